"""purge.lua and delete.lua: a queue without its waiting jobs, and a job of which nothing is known any more."""

from __future__ import annotations

from typing import Any

import pytest

from taskrunner.envelope import KEPT, TRACKED, Draft
from taskrunner.errors import RedisConfigurationError
from taskrunner.outcome import Expired, Failed, Failure, Succeeded
from taskrunner.store import cancellation
from tests.store.auditing import audit
from tests.store.cancelling import AGAIN, LATEST, RUNNING, STATES, delete, leased, left, purge, running
from tests.store.conftest import Place, delivery
from tests.waiting import eventually

FAILED = Failed(Failure("ValueError", "bad", "trace"), "no retries left")


# -- purge -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
async def test_a_purge_ends_what_waits_and_leaves_what_runs(place: Place, state: str) -> None:
    await STATES[state](place)
    before = await place.live()
    ended = await purge(place)
    if state in RUNNING:
        assert ended == 0
        assert await place.live() == before
        assert len(await place.pending()) == 1
        return
    assert ended == 1
    assert await left(place) == {
        "job:job": await place.client.get(place.keys.job("job")),
        "cancelled:default": [b"job"],
    }
    assert (await audit(place)).orphaned == set()


async def test_a_parked_job_ends_and_its_rival_runs_on(place: Place) -> None:
    await place.dispatch(leased(place, "rival", LATEST))
    [rival] = await place.fetch()
    await place.dispatch(leased(place, "job", LATEST))
    assert await purge(place) == 1
    assert await place.live() == {"rival": "q default"}
    assert not await place.client.exists(place.keys.next("digest"), place.names.letters, place.names.tallies)
    assert await place.settle("one", (rival, Succeeded(b"1"))) == b"1"
    assert not await place.client.exists(place.keys.unique("digest"))
    assert await place.entries() == []


async def test_nobody_slips_through_who_waited_for_a_job_that_is_purged(place: Place) -> None:
    await place.store()
    await place.dispatch(leased(place, "rival", LATEST))
    await place.dispatch(leased(place, "heir", LATEST))
    assert await purge(place) == 2
    assert set(await left(place)) == {"job:rival", "job:heir", "cancelled:default"}


async def test_many_jobs_take_many_calls_and_none_is_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "PURGED", 7)
    await place.store()
    drafts = [place.draft(f"job {n}", task=f"t{n % 3}", delay=n % 2 * 100) for n in range(100)]
    await place.dispatch(*drafts)
    assert await purge(place) == 100
    found = await left(place)
    assert len(found.pop("cancelled:default")) == 100
    assert {name[:8] for name in found} == {"job:job "}
    assert len(found) == 100


async def test_all_lanes_of_a_queue_are_purged_and_no_other_queue(place: Place) -> None:
    store = await place.store()
    for lane in ("default", "default/high", "default/low", "other"):
        await store.dispatch(0, lane, [place.draft(f"in {lane}"), place.draft(f"due {lane}", delay=9)], 5.0)
    assert await purge(place) == 6
    assert await place.live() == {"in other": "q other", "due other": "s other"}


async def test_letters_of_64_kilobytes_are_read_a_megabyte_per_call(place: Place) -> None:
    """By how many it takes: reading them is what a call's time goes into."""
    await place.store()
    for n in range(6):
        payload = b'[["%b"]]' % (b"x" * 65_536)
        await place.dispatch(*(place.draft(payload=payload, delay=n % 2 * 100) for _ in range(12)))
    await place.client.config_resetstat()
    assert await purge(place) == 72
    stats = await place.client.info("commandstats")
    assert (
        stats["cmdstat_evalsha"]["calls"] + stats.get("cmdstat_eval", {"calls": 0})["calls"] >= 72 * 65_536 // 1_000_000
    )


async def test_what_comes_in_after_it_began_stays(place: Place) -> None:
    """The letter says when a job was dispatched: by the server's clock, as its producer knows it."""
    store, keys = await place.store(), place.keys
    later = await place.now() + 10_000

    def new(id: str, **options: Any) -> Draft:
        draft = place.draft(id, **options)
        draft.envelope.enqueued_at = later
        return draft

    await place.dispatch(place.draft("old", delay=100), new("new", delay=50), place.draft("ready"))
    began = await place.now() - 1
    await place.client.xadd(place.names.stream, {"t1": b'["copy","work",%d,3]\n[]' % later})
    assert await store.cancellation._purge(keys, "default", began - 60_000, 5.0) == 2
    assert await place.live() == {"new": "s default"}
    assert len(await place.entries()) == 1
    assert await store.cancellation._purge(keys, "default", later, 5.0) == 2


async def test_an_entry_that_nobody_can_read_goes_too(place: Place) -> None:
    await place.store()
    await place.client.xadd(place.names.stream, {"rubbish": "x"})
    await place.client.xadd(place.names.stream, {"t7": "of a newer release"})
    await place.client.zadd(place.names.due, {"unreadable-1-1": 1e15})
    await place.client.hset(place.names.letters, "unreadable-1-1", "\n\nt7\nof a newer release")
    assert await purge(place) == 3
    assert await left(place) == {}


async def test_a_strangers_due_time_of_a_queued_job_ends_nothing_but_itself(place: Place) -> None:
    await place.dispatch(place.draft("job"))
    [arrival] = await place.fetch()
    await place.client.zadd(place.names.due, {"job": 1})
    await purge(place)
    assert await place.live() == {"job": "q default"}
    assert await place.settle("one", (arrival, Succeeded(b"1"))) == b"1"


async def test_a_copy_of_an_entry_goes_and_says_nothing_of_its_job(place: Place) -> None:
    await place.dispatch(place.draft("job"))
    [arrival] = await place.fetch()
    [fields] = await place.entries()
    await place.client.xadd(place.names.stream, fields)
    assert await purge(place) == 1
    assert await place.live() == {"job": "q default"}
    assert await place.settle("one", (arrival, Succeeded(b"1"))) == b"1"


async def test_finished_entries_of_an_audit_trail_stay(place: Place) -> None:
    await place.store(delete_on_ack=False)
    await place.dispatch(place.draft("done"), place.draft("waiting"))
    [arrival] = await place.fetch(count=1)
    await place.settle("one", (arrival, Succeeded(b"1")))
    assert await purge(place) == 1
    assert len(await place.entries()) == 1
    assert await place.client.hget(place.names.rates, "kept") == b"1"


async def test_dead_letters_stay(place: Place) -> None:
    await place.dispatch(place.draft("dead"))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, FAILED))
    assert await purge(place) == 0
    assert await place.client.hkeys(place.names.dead_letters) == [b"dead"]


async def test_whoever_waits_for_a_purged_job_is_told(place: Place) -> None:
    await place.dispatch(place.draft("job", delay=100))
    pubsub = place.client.pubsub()
    await pubsub.subscribe(place.keys.channel("me"))
    await (await place.store()).inspection.watch(place.keys, "job", place.keys.channel("me"))
    await purge(place)

    async def told() -> bool:
        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1)
        return message is not None and message["data"] == b"job"

    await eventually(told)
    await pubsub.aclose()


async def test_jobs_that_keep_nothing_leave_nothing(place: Place) -> None:
    await place.store()
    await place.dispatch(*(place.draft(flags=flags, delay=delay) for flags in (0, TRACKED) for delay in (0, 100)))
    assert await purge(place) == 4
    assert await left(place) == {}


async def test_foreign_data_is_refused_before_anything_is_written(place: Place) -> None:
    await place.dispatch(place.draft(delay=100))
    await place.client.set(place.names.cancelled, "foreign")
    before = await place.everything()
    with pytest.raises(RedisConfigurationError):
        await purge(place)
    assert await place.everything() == before


# -- delete ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
async def test_a_deleted_job_leaves_nothing_in_any_state(place: Place, state: str) -> None:
    await STATES[state](place)
    await place.client.set(place.keys.saved("job"), b"1")
    removed = await delete(place)
    assert removed is not None
    assert (removed.waiting is None) == (state in RUNNING)
    assert await left(place) == {}
    assert await delete(place) is None
    assert (await audit(place)).orphaned == set()


@pytest.mark.parametrize("outcome", [Succeeded(b"1"), FAILED, Expired()], ids=["succeeded", "failed", "expired"])
async def test_an_ended_job_is_not_known_any_more(place: Place, outcome: Any) -> None:
    await place.dispatch(leased(place))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, outcome))
    assert await delete(place) is not None
    found = await left(place)
    found.pop("succeeded:default", None)
    found.pop("expired:default", None)
    assert found == {}
    assert await delete(place) is None


async def test_a_dead_letter_goes_when_its_outcome_is_forgotten_already(place: Place) -> None:
    await place.dispatch(place.draft("job"))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, FAILED))
    await place.client.delete(place.keys.job("job"))
    assert await delete(place) is not None
    assert not await place.client.exists(place.names.dead, place.names.dead_letters, place.names.dead_tasks)


async def test_a_job_and_the_dead_letter_of_its_id_in_another_lane_both_go(place: Place) -> None:
    store = await place.store()
    await place.dispatch(place.draft("job"))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, FAILED))
    await place.client.delete(place.keys.job("job"))
    await store.dispatch(0, "default/high", [place.draft("job", delay=100)], 5.0)
    removed = await delete(place)
    assert removed is not None
    assert removed.waiting is not None
    assert await left(place) == {}
    assert not await place.client.exists(place.keys.queue("default/high").due)


async def test_the_run_of_a_deleted_job_is_refused(place: Place) -> None:
    await running(place)
    [[entry, *_]] = await place.pending()
    [held] = await (await place.store()).sweep(place.keys, "default")
    assert held.entry_id == entry.encode()
    await delete(place)
    for outcome in (Succeeded(b"1"), AGAIN, FAILED):
        assert await place.settle("one", (held, outcome)) == b"0"
    assert await left(place) == {}
    assert delivery(held).envelope.flags == TRACKED | KEPT


async def test_what_is_not_there_is_none(place: Place) -> None:
    await place.dispatch(place.draft("other"))
    before = await place.everything()
    assert await delete(place, "job") is None
    assert await place.everything() == before


async def test_what_stands_in_the_wrong_queue_goes_and_says_nothing_of_its_job(place: Place) -> None:
    store = await place.store()
    await place.dispatch(leased(place, "rival", LATEST), place.draft("due", delay=100))
    await place.dispatch(leased(place, "parked", LATEST))
    await store.dispatch(0, "other.queue", [place.draft("theirs", delay=100)], 5.0)
    await place.client.zadd(place.keys.queue("other.queue").due, {"due": 1, "parked": 1})
    await place.client.zadd(place.keys.prefix + "parked:other.queue", {"due": 1, "parked": 1})
    assert await purge(place, "other.queue") == 3
    assert await place.live() == {"rival": "q default", "due": "s default", "parked": "b default"}
    assert not await place.client.exists(place.keys.prefix + "parked:other.queue", place.keys.queue("other.queue").due)
    assert await purge(place) == 3
    assert await place.live() == {}
