"""The line of those who wait: nobody polls, nobody is forgotten, and the dead hold up no one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from taskrunner import Limiter, RedisConfigurationError, TaskRunner
from taskrunner.store.slots import Answer, Kind
from tests.limiter.books import Books, Waiter
from tests.limiter.conftest import MakeLimiter
from tests.servers import Server


async def ask(limiter: Limiter, id: str) -> Answer:
    """What a waiter is told that asks for the first time."""
    caller = limiter._caller
    return await caller.ask(caller.call(Kind.ASK, id, caller.ticket()))


async def test_the_slot_of_a_holder_that_is_gone_is_the_next_ones_when_it_expires(
    make_limiter: MakeLimiter, books: Books
) -> None:
    gone = make_limiter(limit=1, timeout=1)
    await gone.acquire("gone")
    over = await books.expiry("gone")
    waiter = Waiter(make_limiter(limit=1), "next")
    await waiter.has_it()
    assert await books.now() >= over
    await waiter.leave()


async def test_who_acquires_does_not_overtake_those_who_wait(make_limiter: MakeLimiter, books: Books) -> None:
    await make_limiter(limit=1).acquire("one")
    await ask(make_limiter(limit=1), "patient")
    await books.end("one")
    hasty = make_limiter(limit=1)
    assert not await hasty.acquire("hasty"), "what it found free was given to the one who waits"
    assert [one.id for one in await hasty.holders()] == ["patient"]


async def test_a_waiter_is_told_when_the_holder_expires_that_it_depends_on(
    make_limiter: MakeLimiter, books: Books
) -> None:
    for n in (1, 2, 3):
        assert await make_limiter(limit=3, timeout=n + 1).acquire(str(n))
    limiter, now = make_limiter(limit=3), await books.now()
    answers = [await ask(limiter, f"waiter {n}") for n in range(4)]
    later = await books.now()
    for n, answer in enumerate(answers[:3], start=1):
        expiry = await books.expiry(str(n))
        assert expiry - later <= answer.wait * 1000 <= expiry - now
    assert answers[3].wait == 5, "as many as there are holders are before it"
    for answer in answers:
        assert answer.grant == 0


async def test_who_becomes_first_in_line_is_told_anew_how_long_it_may_take(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter = make_limiter(limit=2)
    await limiter.acquire("long")
    short = make_limiter(limit=2, timeout=40)
    await short.acquire("short")
    waiters, heard = [], list[str]()
    for n in range(2):
        waiters.append(Waiter(make_limiter(limit=2), str(n)))
        await books.waits(n + 1)
        session = waiters[n].slot._caller.session()
        session.listen()
        await session.listener.ready(20)  # what is said before that is not heard, but asked for
    slot, hearers = waiters[1].slot, waiters[1].slot._caller.session().hearers
    told = asyncio.Event()

    def hear(notice: str) -> None:
        heard.append(notice)
        slot._hear(notice)
        told.set()

    hearers[slot._ticket] = hear
    await limiter.release("long")
    async with asyncio.timeout(20):
        while not heard or not heard[-1].startswith(slot._ticket):
            told.clear()
            await told.wait()
    ticket, milliseconds = heard[-1].split()
    assert ticket == slot._ticket
    assert 0 < int(milliseconds) <= 40_000, "what is left of the short one"
    await short.release("short")
    for waiter in waiters:
        await waiter.has_it()
        await waiter.leave()


async def test_a_waiter_that_has_not_been_heard_of_is_passed_over(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(limit=1)
    await limiter.acquire("one")
    assert (await ask(make_limiter(limit=1), "dead")).wait
    await books.waits(1)
    await books.silence()
    alive = Waiter(make_limiter(limit=1), "alive")
    await books.waits(2)
    await limiter.release("one")
    assert [one.id for one in await limiter.holders()] == ["alive"]
    assert await books.counts() == (1, 0)
    await alive.has_it()
    await alive.leave()


async def test_a_slot_that_a_waiter_was_given_and_never_came_for_is_kept_fifteen_seconds(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter = make_limiter(limit=1, timeout=3600)
    await limiter.acquire("one")
    await ask(make_limiter(limit=1, timeout=3600), "dead")
    await limiter.release("one")
    assert await books.now() < await books.expiry("dead") <= await books.now() + 15_000


async def test_who_asks_again_after_its_place_was_lost_gets_it_back(make_limiter: MakeLimiter, books: Books) -> None:
    limiter, order = make_limiter(limit=1), list[str]()
    await limiter.acquire("one")
    waiters = []
    for n in range(3):
        waiters.append(Waiter(make_limiter(limit=1), str(n), order=order))
        await books.waits(n + 1)
    await books.client.delete(books.queue, books.waiters)
    for n, waiter in enumerate(reversed(waiters), start=1):
        waiter.slot._hear("")
        await books.waits(n)
    await limiter.release("one")
    for waiter in waiters:
        await waiter.has_it()
        await waiter.leave()
    assert order == ["0", "1", "2"]


@pytest.mark.slow
async def test_a_notice_that_is_lost_is_made_up_for_within_five_seconds(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter, deaf = make_limiter(limit=1), make_limiter(limit=1)
    await limiter.acquire("one")
    waiter = Waiter(deaf, "deaf")
    await books.waits(1)
    deaf._caller.session().hearers[waiter.slot._ticket] = lambda notice: None
    await limiter.release("one")
    await waiter.has_it()
    await waiter.leave()


async def test_what_waits_ends_by_itself_when_all_who_wait_have_died(limiter: Limiter, books: Books) -> None:
    for n in range(3):
        await limiter.acquire(str(n))
    await ask(limiter, "dead")
    assert await books.all() == ["slot-owners", "slot-queue", "slot-waiters", "slots"]
    for key in (books.queue, books.waiters):
        assert 0 < await books.client.pttl(key) <= 20_000


async def test_a_thousand_waiters_behind_a_held_id_keep_nobody_from_a_free_slot(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter = make_limiter(limit=2)
    await limiter.acquire("busy")
    await limiter.acquire("other")
    await asyncio.gather(*(ask(limiter, "busy") for _ in range(900)))
    last = Waiter(make_limiter(limit=2), "last")
    await books.waits(901)
    await limiter.release("other")
    await last.has_it()
    await last.leave()


async def test_the_greatest_limit_and_the_longest_timeout_work_for_those_who_wait(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter = make_limiter(limit=2**53, timeout=250_000_000_000)
    await limiter.acquire("same")
    waiter = Waiter(limiter, "same")
    await books.waits(1)
    await limiter.release("same")
    await waiter.has_it()
    assert [one.id for one in await make_limiter(timeout=1).holders()] == ["same"]
    await waiter.leave()


async def test_waiting_costs_the_server_no_polling(own_server: Server) -> None:
    async with own_server.client() as client, contextlib.AsyncExitStack() as stack:
        runners = [await stack.enter_async_context(TaskRunner(own_server.url, namespace="idle")) for _ in range(21)]
        first, *limiters = [runner.limiter("places", limit=3, timeout=600) for runner in runners]
        for n in range(3):
            await first.acquire(str(n))
        waiters = [Waiter(limiter, f"waiter {n}", wait=60) for n, limiter in enumerate(limiters)]
        await Books(client, "idle").waits(20)
        for limiter in limiters:
            assert await limiter._caller.session().listener.ready(20)
            await limiter.renew("nothing")  # comes after the question that all ask when they are sure to hear
        await client.config_resetstat()
        await asyncio.sleep(3)
        stats: dict[str, Any] = await client.info("commandstats")
        calls = sum(row["calls"] for name, row in stats.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))
        assert calls < 20, "not even one of each, with clients that share no batch"
        for waiter in waiters:
            await waiter.cancel()


async def test_a_full_server_lets_holders_renew_and_give_back(own_server: Server) -> None:
    async with own_server.client() as client, TaskRunner(own_server.url, namespace="full") as runner:
        limiter = runner.limiter("places", limit=1, timeout=60)
        await limiter.acquire("one")
        waiter = Waiter(limiter, "two")
        await Books(client, "full").waits(1)
        await client.config_set("maxmemory", 1)
        assert await limiter.renew("one")
        assert await limiter.release("one")
        await waiter.has_it()
        await waiter.leave()


@pytest.mark.parametrize("key", ["slots", "owners", "queue", "waiters"])
async def test_strange_data_under_a_limiters_key_concern_only_that_limiter(
    key: str, make_limiter: MakeLimiter, books: Books
) -> None:
    limiter = make_limiter()
    other = type(limiter)(limiter._caller.session, "other", 3, 60)
    await books.client.set(getattr(books, key), "strange")
    refused, taken = await asyncio.gather(limiter.acquire("one"), other.acquire("one"), return_exceptions=True)
    assert isinstance(refused, RedisConfigurationError)
    assert getattr(books, key) in str(refused)
    assert taken is True
    assert await books.client.delete(getattr(books, key))
    assert await limiter.holders() == []
    await other.release("one")
