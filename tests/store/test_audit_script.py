"""audit.lua: entries that nobody would get are put back, jobs whose payload is gone end as failed, and nothing else is
touched, whatever state it is in."""

from __future__ import annotations

from typing import Any

import pytest

from taskrunner.envelope import KEPT, TRACKED, Extra
from taskrunner.outcome import Again, Failed, Failure, Released, Succeeded
from taskrunner.store import wire
from tests.store.auditing import HOLD, Found, audit, dead, ids_in_stream, lose_worker, outcome, queued
from tests.store.conftest import Place

AGAIN = Again(100.0, Failure("ValueError", "once"))


# -- what is sound stays as it is -----------------------------------------------------------------------------------


async def every_state(place: Place) -> None:
    """Jobs in every state that there is, of all kinds."""
    await place.store("two")
    for flags in (0, TRACKED, TRACKED | KEPT):
        await place.dispatch(*(place.draft(flags=flags) for _ in range(6)))
        await place.dispatch(place.draft(flags=flags, delay=100))
    taken = await place.fetch("one", 12)
    await place.dispatch(place.draft("unique", leases=(HOLD,)))
    await place.dispatch(place.draft("marked", extras={Extra.RESERVATION: 5000}))
    dead = Failed(Failure("ValueError", "no"), "gave up")
    ends = [Succeeded(b"1"), AGAIN, Released(), Released(50.0), dead]
    await place.settle("one", *zip(taken, ends, strict=False))
    await place.fetch("two", 3)


@pytest.mark.parametrize("how", ["mend", "look"])
@pytest.mark.parametrize("delete", [True, False])
async def test_jobs_in_every_state_are_left_alone(place: Place, how: str, delete: bool) -> None:
    await place.store("one", delete_on_ack=delete)
    await every_state(place)
    before = await place.everything()
    found = await audit(place, how, worker="three", delete_on_ack=delete)
    assert (found.readded, found.orphaned) == (set(), set())
    assert await place.everything() == before


async def test_a_runner_that_deletes_finished_entries_leaves_the_trail_of_one_that_keeps_them(place: Place) -> None:
    await place.store("one", delete_on_ack=False)
    await place.dispatch(*(place.draft(flags=flags) for flags in (0, 3, 0, 3)))
    arrivals = await place.fetch("one")
    await place.settle("one", *((arrival, Succeeded(b"1")) for arrival in arrivals))
    before = await place.everything()
    assert (await audit(place, worker="two", delete_on_ack=True)).readded == set()
    assert await place.everything() == before


async def test_an_empty_namespace_is_one_page(place: Place) -> None:
    assert await audit(place) == Found(pages=1)


async def test_a_stream_without_its_group_is_left_to_the_next_worker(place: Place) -> None:
    await place.dispatch(*(place.draft() for _ in range(3)))
    await place.fetch("one", 2)
    await place.client.xgroup_destroy(place.names.stream, "group")
    before = await place.everything()
    found = await audit(place, worker="one")
    assert (found.readded, found.orphaned) == (set(), set())
    assert await place.everything() == before


async def test_a_stream_that_only_another_group_reads_is_left_alone(place: Place) -> None:
    await queued(place)
    await place.client.xgroup_create(place.names.stream, "theirs", "0")
    await place.client.xgroup_destroy(place.names.stream, "group")
    found = await audit(place, worker="one")
    assert (found.readded, found.orphaned) == (set(), set())


# -- entries that nobody would get ----------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, TRACKED, TRACKED | KEPT])
async def test_jobs_of_a_consumer_that_was_deleted_are_back_in_the_queue(place: Place, flags: int) -> None:
    drafts = [place.draft(f"job{n}", flags=flags, extras={Extra.RESERVATION: 5000}) for n in range(3)]
    await place.dispatch(*drafts, place.draft("waits", flags=flags))
    lost = await place.fetch("one", 3)
    before = await place.entries()
    await lose_worker(place)
    assert await place.fetch("two") != lost
    [waits] = await place.pending()
    found = await audit(place)
    assert (found.readded, found.orphaned) == ({"job0", "job1", "job2"}, set())
    assert await place.entries() == [before[3], *before[:3]], "fields and marks are as they were"
    assert await place.settle("one", *((one, Succeeded(b"1")) for one in lost)) == b"000"
    taken = await place.fetch("two")
    assert [one.envelope for one in taken] == [draft.envelope for draft in drafts]
    assert len(await place.pending()) == 4
    assert waits in await place.pending()
    assert await place.client.hget(place.keys.janitor, "readded") == b"3"
    if flags:
        records = await place.client.hgetall(place.keys.live)
        assert {records[one.envelope.id.encode()].split()[2] for one in taken} == {one.entry_id for one in taken}
    assert await place.settle("two", *((one, Succeeded(b"1")) for one in taken)) == b"111"


async def test_jobs_that_a_moved_group_would_pass_over_are_back_in_the_queue(place: Place) -> None:
    await place.dispatch(*(place.draft(f"job{n}") for n in range(4)))
    [held] = await place.fetch("one", 1)
    await place.client.xgroup_setid(place.names.stream, "group", "$")
    assert await place.fetch("two") == []
    assert (await audit(place)).readded == {"job1", "job2", "job3"}
    assert [one.envelope.id for one in await place.fetch("two")] == ["job1", "job2", "job3"]
    assert await place.settle("one", (held, Succeeded(b"1"))) == b"1"


async def test_a_group_that_was_moved_into_the_future_comes_back(place: Place) -> None:
    await place.dispatch(*(place.draft(f"job{n}") for n in range(3)))
    await place.client.xgroup_setid(place.names.stream, "group", "9999999999999-0")
    assert await place.fetch("two") == []
    assert (await audit(place)).readded == {"job0", "job1", "job2"}
    assert sorted(one.envelope.id for one in await place.fetch("two")) == ["job0", "job1", "job2"]
    await place.dispatch(place.draft("later"))
    assert [one.envelope.id for one in await place.fetch("two")] == ["later"]
    assert (await audit(place)).readded == set()


async def test_with_kept_entries_only_unfinished_jobs_are_back_in_the_queue(place: Place) -> None:
    await place.store("one", delete_on_ack=False)
    await place.dispatch(*(place.draft(f"job{n}") for n in range(4)))
    arrivals = await place.fetch("one")
    await place.settle("one", *((one, Succeeded(b"1")) for one in arrivals[:2]))
    await lose_worker(place)
    assert (await audit(place, delete_on_ack=False)).readded == {"job2", "job3"}
    assert [one.envelope.id for one in await place.fetch("two")] == ["job2", "job3"]
    assert await ids_in_stream(place) == ["job0", "job1", "job2", "job3"]


async def test_an_entry_of_strangers_that_nobody_would_get_is_put_back_whole(place: Place) -> None:
    await place.store("two")
    await place.client.xadd(place.names.stream, {b"a": b"1", b"b": b"\xff\n"})
    await place.fetch("one")
    await lose_worker(place)
    assert len((await audit(place)).readded) == 1
    [stranger] = await place.fetch("two")
    assert stranger.raw == [b"a", b"1", b"b", b"\xff\n"]


async def test_entries_between_those_in_hand_are_found(place: Place) -> None:
    await place.store("two")
    await place.dispatch(*(place.draft(f"job{n:03}") for n in range(200)))
    for n in range(200):
        await place.fetch("one" if n % 3 else "two", 1)
    await lose_worker(place)
    found = await audit(place)
    assert found.readded == {f"job{n:03}" for n in range(200) if n % 3}
    assert {row[1] for row in await place.pending()} == {"two"}


# -- jobs whose payload is gone -------------------------------------------------------------------------------------


async def running(place: Place) -> None:
    """Its worker is gone as well."""
    await place.dispatch(place.draft("lost", leases=(HOLD,)), place.draft("other"))
    [held] = await place.fetch("one", 1)
    await place.client.xdel(place.names.stream, held.entry_id)
    await lose_worker(place)


async def letterless(place: Place) -> None:
    await place.dispatch(place.draft("lost", delay=100, leases=(HOLD,)), place.draft("other", delay=100))
    await place.client.hdel(place.names.letters, "lost")


async def nowhere(place: Place) -> None:
    await letterless(place)
    await place.client.zrem(place.names.due, "lost")


async def retried_without_a_letter(place: Place) -> None:
    await place.dispatch(place.draft("lost"))
    [arrival] = await place.fetch("one")
    await place.settle("one", (arrival, AGAIN))
    await place.client.delete(place.names.letters)


@pytest.mark.parametrize("deed", [queued, running, letterless, nowhere, retried_without_a_letter])
async def test_a_job_without_its_payload_has_failed_and_whoever_waits_for_it_is_told(place: Place, deed: Any) -> None:
    await place.store("two")
    await deed(place)
    channel = place.keys.channel("me")
    assert await (await place.store("two")).inspection.watch(place.keys, "lost", channel) is True
    async with place.client.pubsub() as hears:
        await hears.subscribe(channel)
        await hears.get_message(timeout=20)
        found = await audit(place)
        assert (found.readded, found.orphaned) == (set(), {"lost"})
        told = await hears.get_message(timeout=20)
        assert told is not None
        assert told["data"] == b"lost"
    ended = await outcome(place, "lost")
    assert ended.state == "f"
    assert ended.error is not None
    assert (ended.error[0], ended.error[3], ended.queue) == ("Orphaned", "orphaned", "default")
    letter = await dead(place, "lost")
    assert (letter.reason, letter.letter, letter.raw, letter.queue) == ("orphaned", None, [], "default")
    assert "lost" not in await place.live()
    assert not await place.client.exists(place.keys.watchers)
    assert await place.client.zscore(place.names.due, "lost") is None
    assert await place.client.hget(place.keys.janitor, "orphaned") == b"1"
    assert await place.dispatch(place.draft("next", leases=(HOLD,))) == {}, "its unique key is held no more"
    assert (await audit(place)).orphaned == set(), "and once is enough"


@pytest.mark.parametrize("flags", [0, TRACKED | KEPT])
async def test_a_letter_without_its_due_time_is_kept_as_a_dead_letter(place: Place, flags: int) -> None:
    draft = place.draft("lost", flags=flags or TRACKED, delay=100, leases=(HOLD,), extras={Extra.UNIQUE: "digest"})
    await place.dispatch(draft, place.draft(delay=100))
    if not flags:
        await place.client.hdel(place.keys.live, "lost")
    await place.client.zrem(place.names.due, "lost")
    assert (await audit(place)).orphaned == {"lost"}
    letter = await dead(place, "lost")
    assert letter.letter is not None
    assert wire.unseal(letter.letter) == draft.envelope
    assert (letter.task, letter.attempts) == ("work", 0)
    assert (await outcome(place, "lost")).task == "work"
    assert await place.client.hkeys(place.names.letters) != []
    assert not await place.client.hexists(place.names.letters, "lost")
    assert not await place.client.exists(place.keys.unique("digest"))


async def test_a_due_time_without_its_letter_ends_a_job_without_a_record_too(place: Place) -> None:
    await place.dispatch(place.draft("lost", flags=0, delay=100), place.draft("other", flags=0, delay=100))
    await place.client.hdel(place.names.letters, "lost")
    assert (await audit(place)).orphaned == {"lost"}
    assert await place.client.zrange(place.names.due, 0, -1) == [b"other"]
    assert (await dead(place, "lost")).letter is None


async def test_what_is_left_of_a_damaged_letter_is_kept_as_it_is(place: Place) -> None:
    await place.dispatch(place.draft("lost", delay=100))
    await place.client.hset(place.names.letters, "lost", b"rub\nbish \xff")
    await place.client.zrem(place.names.due, "lost")
    assert (await audit(place)).orphaned == {"lost"}
    assert (await dead(place, "lost")).raw == [b"rub\nbish \xff"]


async def test_of_a_job_that_is_in_the_queue_a_due_time_and_a_letter_are_removed(place: Place) -> None:
    await place.dispatch(place.draft("here"))
    before = await place.everything()
    await place.client.zadd(place.names.due, {"here": 10**13})
    assert (await audit(place)).orphaned == set()
    assert await place.everything() == before
    await place.client.hset(place.names.letters, "here", "x")
    assert (await audit(place)).orphaned == set()
    assert await place.everything() == before


async def test_a_held_job_whose_entry_was_deleted_is_its_workers_until_that_falls_silent(place: Place) -> None:
    await place.store("two")
    await place.dispatch(place.draft("first"), place.draft("second"))
    first, second = await place.fetch("one")
    await place.client.xdel(place.names.stream, first.entry_id, second.entry_id)
    assert (await audit(place)).orphaned == set()
    assert await place.settle("one", (first, Succeeded(b"1"))) == b"1"
    assert (await outcome(place, "first")).state == "s"
    await place.fall_silent(second)
    await (await place.store("two")).reclaim(place.keys, "default", 100)
    assert (await audit(place)).orphaned == {"second"}


async def test_a_known_outcome_is_not_overwritten(place: Place) -> None:
    await queued(place)
    await place.client.set(place.keys.job("lost"), "an outcome", px=1000)
    await audit(place)
    assert await place.client.get(place.keys.job("lost")) == b"an outcome"


async def test_an_unreadable_letter_of_ours_ends_its_job(place: Place) -> None:
    await place.dispatch(place.draft("lost"))
    entry = (await place.client.hget(place.keys.live, "lost")).split()[2]
    await place.client.xdel(place.names.stream, entry)
    damaged = await place.client.xadd(place.names.stream, {b"t1": b"{{{"})
    await place.client.hset(place.keys.live, "lost", b"q default " + damaged)
    [arrival] = await place.fetch("one")
    await place.settle("one", (arrival, Failed(Failure("Unreadable", "no"), "unreadable")))
    assert (await audit(place)).orphaned == {"lost"}
    assert (await outcome(place, "lost")).state == "f"


async def test_the_same_with_kept_entries_and_it_is_not_put_back_for_ever(place: Place) -> None:
    await place.store("one", delete_on_ack=False)
    damaged = await place.client.xadd(place.names.stream, {b"t1": b"{{{"})
    await place.client.hset(place.keys.live, "lost", b"q default " + damaged)
    [arrival] = await place.fetch("one")
    await place.settle("one", (arrival, Failed(Failure("Unreadable", "no"), "unreadable")))
    found = await audit(place, delete_on_ack=False)
    assert (found.readded, found.orphaned) == (set(), {"lost"})


@pytest.mark.parametrize("delete", [True, False])
async def test_a_letter_of_a_newer_format_that_was_put_aside_is_no_orphan(place: Place, delete: bool) -> None:
    store = await place.store("one", delete_on_ack=delete)
    entry = await place.client.xadd(place.names.stream, {b"t2": b"what a newer release writes"})
    await place.client.hset(place.keys.live, "newer", b"q default " + entry)
    for _ in range(2):
        [arrival] = await place.fetch("one")
        await place.settle("one", (arrival, Released(60.0)))
        found = await audit(place, worker="one")
        assert (found.readded, found.orphaned) == (set(), set())
        assert await place.live() == {"newer": "q default"}
        [stray] = await place.client.zrange(place.names.due, 0, -1)
        await place.client.zadd(place.names.due, {stray: 1})
        assert (await store.promote(place.keys, "default"))[0] == 1
        assert (await audit(place, worker="one")).orphaned == set()
