"""The semaphore: its four ways to take a slot, its order, and what it keeps when those who wait give up."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner import LimitReached, UsageError
from taskrunner.local import Semaphore


def figures(semaphore: Semaphore) -> tuple[int, int, int]:
    assert semaphore.available + semaphore.acquired == semaphore.limit
    return semaphore.limit, semaphore.available, semaphore.acquired


async def waiting(semaphore: Semaphore, count: int) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(semaphore.acquire()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_slots_are_taken_and_given_back() -> None:
    semaphore = Semaphore(2)
    assert figures(semaphore) == (2, 2, 0)
    assert await semaphore.acquire() is True
    assert semaphore.try_acquire() is True
    assert figures(semaphore) == (2, 0, 2)
    assert semaphore.try_acquire() is False
    semaphore.release()
    assert figures(semaphore) == (2, 1, 1)


async def test_who_finds_none_waits_and_is_next_first_come_first_served() -> None:
    semaphore, order = Semaphore(1), list[int]()

    async def work(n: int) -> None:
        await semaphore.acquire()
        order.append(n)
        await asyncio.sleep(0)
        semaphore.release()

    await asyncio.gather(*(work(n) for n in range(20)))
    assert order == list(range(20))
    assert figures(semaphore) == (1, 1, 0)


async def test_a_slot_that_is_given_back_is_the_first_waiters_and_nobody_gets_between() -> None:
    semaphore = Semaphore(1)
    await semaphore.acquire()
    (first,) = await waiting(semaphore, 1)
    semaphore.release()
    assert semaphore.try_acquire() is False
    assert figures(semaphore) == (1, 0, 1)
    assert await first is True


async def test_a_wait_that_is_over_takes_no_slot() -> None:
    semaphore = Semaphore(1)
    await semaphore.acquire()
    assert await semaphore.acquire(timeout=0.01) is False
    assert await semaphore.acquire(timeout=0) is False
    assert figures(semaphore) == (1, 0, 1)
    semaphore.release()
    assert figures(semaphore) == (1, 1, 0), "nobody was in line any more"
    assert await semaphore.acquire(timeout=0) is True


async def test_a_wait_that_gets_a_slot_in_time_has_it() -> None:
    semaphore = Semaphore(1)
    await semaphore.acquire()
    waiter = asyncio.create_task(semaphore.acquire(timeout=20))
    await asyncio.sleep(0)
    semaphore.release()
    assert await waiter is True
    assert figures(semaphore) == (1, 0, 1)


async def test_who_is_cancelled_while_waiting_takes_no_slot_and_the_next_gets_it() -> None:
    semaphore = Semaphore(1)
    await semaphore.acquire()
    first, second, third = await waiting(semaphore, 3)
    second.cancel()
    await asyncio.wait([second])
    semaphore.release()
    assert await first is True
    semaphore.release()
    assert await third is True
    semaphore.release()
    assert figures(semaphore) == (1, 1, 0)


async def test_who_is_cancelled_in_the_instant_in_which_it_is_given_a_slot_hands_it_on() -> None:
    semaphore = Semaphore(1)
    await semaphore.acquire()
    first, second = await waiting(semaphore, 2)
    semaphore.release()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second is True
    assert figures(semaphore) == (1, 0, 1)


async def test_who_is_cancelled_before_the_slot_is_given_and_has_not_noticed_is_passed_over() -> None:
    semaphore = Semaphore(1)
    await semaphore.acquire()
    first, second = await waiting(semaphore, 2)
    first.cancel()
    semaphore.release()
    assert await second is True
    assert figures(semaphore) == (1, 0, 1)
    assert first.cancelled()


async def test_a_release_without_a_slot_is_an_error_and_changes_nothing() -> None:
    semaphore = Semaphore(2)
    with pytest.raises(UsageError, match="no slot is taken; each release needs an acquire first"):
        semaphore.release()
    assert figures(semaphore) == (2, 2, 0)


async def test_a_block_holds_a_slot_and_gives_it_back_when_it_fails() -> None:
    semaphore = Semaphore(1)
    async with semaphore:
        assert semaphore.acquired == 1
    with pytest.raises(ValueError, match="no"):
        async with semaphore:
            raise ValueError("no")
    assert figures(semaphore) == (1, 1, 0)


async def test_all_who_wait_can_be_turned_away() -> None:
    semaphore = Semaphore(1)
    await semaphore.acquire()
    tasks = await waiting(semaphore, 3)

    async def block() -> None:
        async with semaphore:
            raise AssertionError("it has no slot")

    blocked = asyncio.create_task(block())
    await asyncio.sleep(0)
    tasks[1].cancel()
    semaphore.turn_away()
    assert [await tasks[0], await tasks[2]] == [False, False]
    with pytest.raises(LimitReached, match="a semaphore turned away those who waited for it"):
        await blocked
    semaphore.release()
    assert figures(semaphore) == (1, 1, 0)
    assert await semaphore.acquire() is True, "who comes later is treated as ever"


async def test_its_representation_tells_how_it_stands() -> None:
    semaphore = Semaphore(2)
    await semaphore.acquire()
    await semaphore.acquire()
    (task,) = await waiting(semaphore, 1)
    assert repr(semaphore) == "<Semaphore 2 of 2 acquired, 1 waiting>"
    semaphore.turn_away()
    assert await task is False
