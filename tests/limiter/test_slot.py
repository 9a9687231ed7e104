"""A slot for the length of a block: who waits for it, in which order, and what ends the wait."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from taskrunner import Limiter, LimitReached, SlotLost, UsageError
from tests.limiter.books import Books, Waiter
from tests.limiter.conftest import MakeLimiter
from tests.waiting import eventually


async def test_a_slot_is_held_while_the_block_runs_and_free_after_it(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(limit=1)
    async with limiter.slot("one") as slot:
        assert slot.id == "one"
        assert not await limiter.acquire("two")
        [holder] = await limiter.holders()
        assert (holder.id, holder.fence) == ("one", slot.fence)
    assert await books.all() == []


async def test_an_error_of_the_block_frees_the_slot_and_comes_through(limiter: Limiter, books: Books) -> None:
    with pytest.raises(ZeroDivisionError):
        async with limiter.slot("one"):
            raise ZeroDivisionError
    assert await books.all() == []


async def test_those_who_wait_come_first_come_first_served_whoever_they_are(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiters, order = [make_limiter(limit=1) for _ in range(3)], list[str]()
    first = Waiter(limiters[0], "first")
    await first.has_it()
    waiters = [first]
    for n in range(12):
        waiters.append(Waiter(limiters[n % 3], str(n), order=order))
        await books.waits(n + 1)
    for waiter in waiters:
        await waiter.has_it()
        await waiter.leave()
    assert order == [str(n) for n in range(12)]
    assert await books.all() == []


async def test_a_slot_that_is_given_back_is_the_next_ones_in_the_same_step(
    limiter: Limiter, make_limiter: MakeLimiter, books: Books
) -> None:
    for n in range(3):
        await limiter.acquire(str(n))
    waiter = Waiter(make_limiter(), "next")
    await books.waits(1)
    assert await limiter.release("1")
    assert await books.counts() == (3, 0)
    await waiter.has_it()
    assert [one.id for one in await limiter.holders()] == ["0", "2", "next"]
    await waiter.leave()


async def test_no_wait_is_no_wait(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(limit=1)
    async with limiter.slot("one", wait=0):
        with pytest.raises(LimitReached, match=r"'places'.*'two'"):
            async with limiter.slot("two", wait=0):
                pytest.fail("it has no slot")
        assert await books.counts() == (1, 0)


async def test_a_wait_that_is_over_is_told_and_leaves_the_line(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(limit=1)
    await limiter.acquire("one")
    began = asyncio.get_running_loop().time()
    with pytest.raises(LimitReached, match=r"within 0\.3 s"):
        async with limiter.slot("two", wait=0.3):
            pytest.fail("it has no slot")
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert await books.counts() == (1, 0)
    await limiter.release("one")
    assert await books.all() == []


async def test_without_a_wait_it_waits_as_long_as_it_takes(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(limit=1)
    await limiter.acquire("one")
    waiter = Waiter(make_limiter(limit=1), "two", wait=None)
    await books.waits(1)
    await limiter.release("one")
    await waiter.has_it()
    await waiter.leave()


async def test_who_is_cancelled_while_it_waits_leaves_the_line(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(limit=1)
    await limiter.acquire("one")
    waiters = [Waiter(make_limiter(limit=1), str(n)) for n in range(2)]
    await books.waits(2)
    await waiters[0].cancel()
    await books.waits(1)
    await limiter.release("one")
    await waiters[1].has_it()
    await waiters[1].leave()


async def test_who_is_cancelled_in_the_instant_of_being_given_a_slot_gives_it_back(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter, deaf = make_limiter(limit=1), make_limiter(limit=1)
    await limiter.acquire("one")
    unlucky = Waiter(deaf, "unlucky")
    await books.waits(1)
    lucky = Waiter(make_limiter(limit=1), "lucky")
    await books.waits(2)
    deaf._caller.session().hearers.clear()  # it does not hear that it was given the slot
    await limiter.release("one")
    assert [one.id for one in await limiter.holders()] == ["unlucky"]
    deaf._caller.session().hearers[unlucky.slot._ticket] = lambda notice: None
    await unlucky.cancel()
    await lucky.has_it()
    await lucky.leave()


async def test_a_limiter_is_exact_and_never_idle_while_many_come_and_go(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiters, inside, most = [make_limiter() for _ in range(3)], 0, 0

    async def work(n: int) -> None:
        nonlocal inside, most
        async with limiters[n % 3].slot(str(n)):
            inside += 1
            most = max(most, inside)
            held, waiting = await books.counts()
            assert held == 3 if waiting else held <= 3
            inside -= 1

    await asyncio.gather(*(work(n) for n in range(150)))
    assert most == 3


async def test_an_id_waits_for_itself_and_holds_up_nobody_else(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(limit=2)
    await limiter.acquire("busy")
    await limiter.acquire("other")
    same = Waiter(make_limiter(limit=2), "busy")
    await books.waits(1)
    behind = Waiter(make_limiter(limit=2), "third")
    await books.waits(2)
    await limiter.release("other")
    await behind.has_it()
    assert not same.inside.is_set()
    await limiter.release("busy")
    await same.has_it()
    for waiter in (same, behind):
        await waiter.leave()


async def test_a_waiter_with_a_higher_limit_is_let_in_before_one_whose_own_limit_is_reached(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter = make_limiter(limit=1)
    await limiter.acquire("one")
    low = Waiter(make_limiter(limit=1), "low")
    await books.waits(1)
    high = Waiter(make_limiter(limit=2), "high")
    await high.has_it()
    assert not low.inside.is_set()
    await high.leave()
    await limiter.release("one")
    await low.has_it()
    await low.leave()


async def test_the_fence_grows_with_every_hand_over(make_limiter: MakeLimiter, books: Books) -> None:
    limiters, fences = [make_limiter(limit=1), make_limiter(limit=1)], list[int]()
    for n in range(10):
        async with limiters[n % 2].slot("same") as slot:
            fences.append(slot.fence)
    await books.client.hdel(books.partition.janitor, "grant")  # as if the data were lost
    async with limiters[0].slot("same") as slot:
        fences.append(slot.fence)
    assert fences == sorted(set(fences))


async def test_a_slot_renews_itself(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(limit=1, timeout=3)
    async with limiter.slot("one") as slot:
        first = await books.expiry("one")

        async def is_past_it() -> bool:
            return await books.now() > first + 100

        await eventually(is_past_it)
        assert not await limiter.acquire("two")
        [holder] = await limiter.holders()
        assert (holder.id, holder.fence) == ("one", slot.fence)


async def test_who_was_given_a_slot_while_it_waited_has_its_whole_timeout(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter = make_limiter(limit=1, timeout=90)
    await limiter.acquire("one")
    waiter = Waiter(make_limiter(limit=1, timeout=90), "two")
    await books.waits(1)
    await limiter.release("one")
    await waiter.has_it()
    assert await books.expiry("two") > await books.now() + 80_000
    await waiter.leave()


# -- a slot that is lost ---------------------------------------------------------------------------------------------


async def test_a_body_whose_slot_is_gone_is_cancelled_and_slot_lost_raised_in_its_place(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter, seen, task = make_limiter(timeout=3), list[bool](), asyncio.current_task()

    async def body() -> None:
        async with limiter.slot("one") as slot:
            await books.client.delete(books.slots, books.owners)
            try:
                await asyncio.sleep(30)
            finally:
                seen.append(slot.lost)

    with pytest.raises(SlotLost, match=r"'one' of limiter 'places'.*not held any more") as caught:
        await body()
    assert seen == [True]
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_a_body_that_ends_before_it_hears_of_its_loss_raises_slot_lost_and_nothing_later(
    limiter: Limiter,
) -> None:
    async def body() -> None:
        async with limiter.slot("one") as slot:
            slot._lose("the test says so")

    with pytest.raises(SlotLost):
        await body()
    await asyncio.sleep(0)  # the cancellation that was asked for does not come now


async def test_a_body_that_swallows_its_cancellation_raises_slot_lost_all_the_same(limiter: Limiter) -> None:
    async def body() -> None:
        async with limiter.slot("one") as slot:
            slot._lose("the test says so")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)

    with pytest.raises(SlotLost):
        await body()


async def test_the_error_of_a_body_that_was_cancelled_for_its_slot_comes_through(limiter: Limiter) -> None:
    async def body() -> None:
        async with limiter.slot("one") as slot:
            slot._lose("the test says so")
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                raise ZeroDivisionError from None

    with pytest.raises(ZeroDivisionError):
        await body()


async def test_who_is_cancelled_from_outside_as_well_is_cancelled(limiter: Limiter) -> None:
    slot = limiter.slot("one")

    async def body() -> None:
        async with slot:
            await asyncio.sleep(30)

    task = asyncio.create_task(body())
    await eventually(lambda: slot.fence)
    slot._lose("the test says so")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_blocked_event_loop_loses_the_slot_and_hears_of_it(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(limit=1, timeout=0.2)

    async def body() -> None:
        async with limiter.slot("one"):
            time.sleep(0.5)  # noqa: ASYNC251
            await asyncio.sleep(30)

    with pytest.raises(SlotLost, match="event loop was blocked"):
        await body()


async def test_a_slot_is_entered_once(limiter: Limiter) -> None:
    slot = limiter.slot("one")
    async with slot:
        pass
    with pytest.raises(UsageError, match="once"):
        async with slot:
            pass
