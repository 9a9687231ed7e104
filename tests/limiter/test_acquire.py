"""Taking, keeping and giving back a slot by hand."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime

import pytest

from taskrunner import Limiter
from tests.limiter.books import Books
from tests.limiter.conftest import MakeLimiter
from tests.waiting import eventually


async def test_as_many_as_the_limit_acquire_a_slot_and_the_others_are_refused_at_once(limiter: Limiter) -> None:
    taken = await asyncio.gather(*(limiter.acquire(f"id {n}") for n in range(6)))
    assert sorted(taken) == [False] * 3 + [True] * 3


async def test_after_a_release_one_more_is_let_in(limiter: Limiter) -> None:
    for n in range(3):
        assert await limiter.acquire(str(n))
    assert await limiter.release("1")
    assert await limiter.acquire("3")
    assert not await limiter.acquire("4")


async def test_an_id_that_holds_a_slot_is_refused_another_one_here_and_elsewhere(
    limiter: Limiter, make_limiter: MakeLimiter
) -> None:
    assert await limiter.acquire("one")
    assert not await limiter.acquire("one")
    assert not await make_limiter().acquire("one")
    assert await make_limiter().acquire("two"), "the limit was not what was in the way"


async def test_a_second_acquire_of_the_same_id_does_not_extend_the_first(limiter: Limiter, books: Books) -> None:
    await limiter.acquire("one")
    before = await books.expiry("one")
    await asyncio.sleep(0.01)
    await limiter.acquire("one")
    assert await books.expiry("one") == before


async def test_only_the_holder_can_release_or_renew_and_nobody_else_changes_anything(
    limiter: Limiter, make_limiter: MakeLimiter, books: Books
) -> None:
    await limiter.acquire("one")
    before, other = await books.expiry("one"), make_limiter()
    assert not await other.release("one")
    assert not await other.renew("one")
    assert await books.expiry("one") == before
    assert await limiter.release("one")


async def test_another_limiter_object_of_the_same_runner_is_another_holder(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    twin = type(limiter)(limiter._caller.session, "places", 3, 60)
    await limiter.acquire("one")
    assert not await twin.release("one")
    assert await limiter.release("one")


async def test_releasing_what_is_not_held_is_no_error_and_frees_nothing(limiter: Limiter) -> None:
    for n in range(3):
        await limiter.acquire(str(n))
    assert not await limiter.release("somebody")
    assert not await limiter.acquire("somebody")


async def test_a_slot_ends_by_itself_after_its_timeout_by_the_servers_clock(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter = make_limiter(limit=1, timeout=0.25)
    before = await books.now()
    assert await limiter.acquire("one")
    assert before + 250 <= await books.expiry("one") <= await books.now() + 250
    assert await eventually(lambda: limiter.acquire("two"))
    assert await books.now() >= before + 250
    assert not await limiter.release("one"), "its time is over"


async def test_a_timeout_of_fifty_milliseconds_is_fifty_milliseconds(make_limiter: MakeLimiter, books: Books) -> None:
    before = await books.now()
    assert await make_limiter(timeout=0.05).acquire("one")
    after = await books.now()
    score = await books.client.zscore(books.slots, "one")
    assert score is None or before + 50 <= score <= after + 50
    await eventually(lambda: is_empty(books))


async def is_empty(books: Books) -> bool:
    return await books.all() == []


async def test_renewing_extends_a_slot_from_now_on(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(timeout=20)
    await limiter.acquire("one")
    await books.client.zadd(books.slots, {"one": await books.now() + 5_000})
    before = await books.now()
    assert await limiter.renew("one")
    assert before + 20_000 <= await books.expiry("one") <= await books.now() + 20_000


async def test_a_slot_that_is_over_can_be_neither_renewed_nor_released(limiter: Limiter, books: Books) -> None:
    await limiter.acquire("one")
    await books.end("one")
    assert not await limiter.renew("one")
    assert not await limiter.release("one")
    assert await limiter.holders() == []


async def test_who_lost_a_slot_does_not_free_that_of_the_next_holder_of_the_same_id(
    limiter: Limiter, make_limiter: MakeLimiter, books: Books
) -> None:
    await limiter.acquire("one")
    await books.end("one")
    other = make_limiter()
    assert await other.acquire("one")
    assert not await limiter.release("one")
    assert not await limiter.renew("one")
    assert await other.renew("one")


async def test_the_holders_are_told_with_their_expiry_oldest_first(limiter: Limiter, books: Books) -> None:
    for id in ("zebra", "ant", "mouse"):
        await limiter.acquire(id)
    await limiter.renew("zebra")
    holders = await limiter.holders()
    assert [one.id for one in holders] == ["zebra", "ant", "mouse"]
    assert [one.fence for one in holders] == sorted({one.fence for one in holders})
    for one in holders:
        assert one.expires_at == datetime.fromtimestamp(await books.expiry(one.id) / 1000, UTC)
    with pytest.raises(AttributeError):
        holders[0].id = "other"  # type: ignore[misc]


async def test_more_holders_than_one_answer_has_room_for_are_all_told(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(limit=1000)
    await asyncio.gather(*(limiter.acquire(f"{n:03}") for n in range(450)))
    assert sorted(one.id for one in await limiter.holders()) == [f"{n:03}" for n in range(450)]


async def test_those_whose_time_is_over_do_not_count_however_many_they_are(
    make_limiter: MakeLimiter, books: Books
) -> None:
    limiter, ids = make_limiter(limit=1000), [f"{n:03}" for n in range(450)]
    await asyncio.gather(*map(limiter.acquire, ids))
    await books.end(*ids)
    assert await limiter.holders() == []
    assert await make_limiter(limit=100).acquire("449"), "one call removes two hundred of them"
    assert [one.id for one in await limiter.holders()] == ["449"]


async def test_limiters_of_different_names_do_not_concern_each_other(make_limiter: MakeLimiter) -> None:
    one, two = make_limiter(limit=1, name="one"), make_limiter(limit=1, name="two")
    assert await one.acquire("id")
    assert await two.acquire("id")
    assert await one.release("id")
    assert not await two.acquire("other")


@pytest.mark.parametrize(("first", "second"), [("a", "a:b"), ("a*", "ab"), ("[ab]", "a"), ("a?", "ab"), ("{a}", "a")])
async def test_a_name_with_signs_that_mean_something_to_redis_is_just_a_name(
    first: str, second: str, make_limiter: MakeLimiter
) -> None:
    one, two = make_limiter(limit=1, name=first), make_limiter(limit=1, name=second)
    assert await two.acquire("1")
    assert await one.acquire("b:1*")
    assert [holder.id for holder in await one.holders()] == ["b:1*"]


async def test_another_limit_holds_from_the_next_call_on(limiter: Limiter, make_limiter: MakeLimiter) -> None:
    for n in range(3):
        assert await limiter.acquire(str(n))
    raised, lowered = make_limiter(limit=4), make_limiter(limit=2)
    assert await raised.acquire("four")
    assert await limiter.release("0")
    assert not await lowered.acquire("three"), "three hold one"
    assert await limiter.release("1")
    assert not await lowered.acquire("three"), "two hold one"
    assert await limiter.release("2")
    assert await lowered.acquire("three")


async def test_what_is_given_back_leaves_no_key_of_a_limiter(limiter: Limiter, books: Books) -> None:
    for n in range(3):
        await limiter.acquire(str(n))
    assert await books.all() == ["slot-owners", "slots"]
    for n in range(3):
        await limiter.release(str(n))
    assert await books.all() == []


async def test_the_keys_of_holders_end_with_the_last_of_them(make_limiter: MakeLimiter, books: Books) -> None:
    await make_limiter(timeout=50).acquire("short")
    await make_limiter(timeout=90).acquire("long")
    for key in (books.slots, books.owners):
        before, end = await books.now(), await books.expiry("long") + 1_000
        left = await books.client.pttl(key)
        assert before + left <= end <= await books.now() + left + 1


async def test_a_limiter_works_over_several_partitions(make_limiter: MakeLimiter) -> None:
    limiters = [make_limiter(limit=1, name=f"name {n}", partitions=4) for n in range(12)]
    assert await asyncio.gather(*(limiter.acquire("one") for limiter in limiters)) == [True] * 12
    assert await asyncio.gather(*(limiter.acquire("two") for limiter in limiters)) == [False] * 12
    partitions = {one._caller.session().store.keyspace.partition_of(one._caller.digest) for one in limiters}
    assert len(partitions) > 1


async def test_a_cancelled_acquire_leaves_no_slot_behind(make_limiter: MakeLimiter, books: Books) -> None:
    limiter = make_limiter(limit=1)
    await limiter.acquire("warm")
    await limiter.release("warm")
    going = asyncio.create_task(limiter.acquire("one"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # it is on its way
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert await limiter.acquire("two"), "calls take effect in their order"
    assert [one.id for one in await limiter.holders()] == ["two"]


async def test_after_a_fork_the_two_limiter_objects_are_two_holders(
    make_limiter: MakeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = make_limiter()
    assert await limiter.acquire("one")
    here = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: here + 1)
    assert not await limiter.release("one")
    assert not await limiter.renew("one")
