"""watch.lua, look.lua and stats.lua: what is known of a job and of a queue. Nothing changes but who waits."""

from __future__ import annotations

import orjson

from taskrunner.envelope import KEPT, TRACKED
from taskrunner.outcome import Again, Failed, Failure, Succeeded
from taskrunner.store.inspect import Sight
from taskrunner.store.wire import Ended
from tests.store.conftest import Place

FAILURE = Failure("ValueError", "bad")

# -- look ----------------------------------------------------------------------------------------------------------


async def look(place: Place, id: str = "job") -> Ended | Sight | None:
    store = await place.store()
    before = await place.everything()
    seen = await store.inspection.look(place.keys, id)
    assert await place.everything() == before
    return seen


async def test_a_job_is_seen_wherever_it_is_on_its_way(place: Place) -> None:
    assert await look(place) is None
    draft = place.draft("job", delay=100)
    await place.dispatch(draft)
    seen = await look(place)
    assert isinstance(seen, Sight)
    assert (seen.state, seen.queue, seen.envelope) == ("scheduled", "default", draft.envelope)
    assert seen.due == await place.client.zscore(place.names.due, "job")

    await place.client.zadd(place.names.due, {"job": 1})
    await (await place.store()).promote(place.keys, "default")
    assert await look(place) == Sight("queued", "default", 0, "", 0, draft.envelope)

    [arrival] = await place.fetch("one")
    assert await look(place) == Sight("running", "default", 0, "one", 1, draft.envelope)

    await place.settle("one", (arrival, Again(100, FAILURE)))
    seen = await look(place)
    assert isinstance(seen, Sight)
    assert seen.state == "retrying"
    assert seen.envelope is not None
    assert seen.envelope.attempt == 2

    await place.client.zadd(place.names.due, {"job": 1})
    await (await place.store()).promote(place.keys, "default")
    [arrival] = await place.fetch("one")
    await place.settle("one", (arrival, Failed(FAILURE, "enough")))
    ended = await look(place)
    assert isinstance(ended, Ended)
    assert (ended.state, ended.attempts, ended.error) == ("f", 2, ("ValueError", "bad", "", "enough"))


async def test_a_job_whose_entry_was_deleted_is_seen_as_queued_without_its_envelope(place: Place) -> None:
    await place.dispatch(place.draft("job"))
    await place.client.xtrim(place.names.stream, maxlen=0, approximate=False)
    assert await look(place) == Sight("queued", "default", 0, "", 0, None)


# -- watch ---------------------------------------------------------------------------------------------------------


async def test_a_watcher_of_a_living_job_is_noted_once_per_channel(place: Place) -> None:
    inspection = (await place.store()).inspection
    await place.dispatch(place.draft("job"))
    for channel in ("a", "ab", "a", "b"):
        assert await inspection.watch(place.keys, "job", channel) is True
    assert await place.client.hgetall(place.keys.watchers) == {b"job": b"a ab b"}


async def test_a_watcher_of_an_ended_job_gets_its_outcome_and_one_of_an_unknown_job_nothing(place: Place) -> None:
    inspection = (await place.store()).inspection
    await place.dispatch(place.draft("job"), place.draft("quiet", flags=TRACKED))
    arrivals = await place.fetch()
    await place.settle("one", *((arrival, Succeeded(b"7")) for arrival in arrivals))
    ended = await inspection.watch(place.keys, "job", "a")
    assert isinstance(ended, Ended)
    assert ended.result == b"7"
    assert await inspection.watch(place.keys, "quiet", "a") is False
    assert await inspection.watch(place.keys, "nobody", "a") is False
    assert not await place.client.exists(place.keys.watchers)


async def test_a_record_that_outlives_the_jobs_ttl_is_unknown(place: Place) -> None:
    inspection = (await place.store()).inspection
    await place.dispatch(place.draft("job", flags=TRACKED | KEPT))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, Succeeded(b"7")))
    await place.client.delete(place.keys.job("job"))
    assert await inspection.watch(place.keys, "job", "a") is False


# -- stats ---------------------------------------------------------------------------------------------------------


async def test_the_figures_of_a_queue_are_all_of_one_instant(place: Place) -> None:
    store = await place.store()
    await place.client.zadd(place.keys.workers, {"one": await place.now() + 60_000, "gone": 1})
    facts = {"slots": 7, "queues": ["default"]}
    await place.client.hset(place.keys.worker_facts, "one", orjson.dumps(facts))
    await place.dispatch(place.draft(task="a"), place.draft(task="a"), place.draft(task="b"), place.draft(delay=100))
    first, second = await place.fetch("one", count=2)
    await place.settle("one", (first, Failed(FAILURE, "enough")))
    before = await place.everything()
    counts = await store.inspection.counts(place.keys, "default")
    assert await place.everything() == before
    assert (counts.entries, counts.pending, counts.waiting, counts.scheduled, counts.dead) == (2, 1, 1, 1, 1)
    assert counts.unsettled == {"a": 1, "b": 1}
    assert counts.workers == [facts]
    assert abs(counts.now - await place.now()) < 60_000
    [(waiting, _)] = await place.client.xrange(place.names.stream, min=b"(" + second.entry_id)
    assert counts.oldest == int(waiting.split(b"-")[0]), "the age of what runs is no wait"


async def test_a_queue_that_never_was_has_figures_of_nothing(place: Place) -> None:
    store = await place.store()
    counts = await store.inspection.counts(place.keys, "never")
    assert (counts.entries, counts.pending, counts.waiting, counts.scheduled, counts.dead, counts.oldest) == (0,) * 6
    assert (counts.unsettled, counts.runs, counts.rates, counts.workers) == ({}, {}, {}, [])


async def test_entries_that_nobody_has_read_are_counted_without_a_group_too(place: Place) -> None:
    store = await place.store()
    await place.client.delete(place.names.stream)
    await place.dispatch(place.draft(), place.draft())
    counts = await store.inspection.counts(place.keys, "default")
    assert (counts.waiting, counts.pending) == (2, 0)
    assert counts.oldest > 0
