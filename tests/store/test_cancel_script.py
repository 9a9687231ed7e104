"""cancel.lua: a job ends as cancelled in whatever state it is, in one step, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskrunner.envelope import TRACKED, Extra
from taskrunner.errors import RedisConfigurationError
from taskrunner.outcome import Failed, Failure, Succeeded
from tests.store.auditing import audit
from tests.store.cancelling import (
    LATEST,
    RUNNING,
    STATES,
    cancel,
    leased,
    left,
    pending,
    record,
    running,
    scheduled,
)
from tests.store.conftest import Place, delivery
from tests.waiting import eventually

FAILED = Failed(Failure("ValueError", "bad", "trace"), "no retries left")


@pytest.fixture
async def notices(place: Place) -> Any:
    """What is published from now on, as (channel without prefix, data)."""
    heard: list[tuple[str, str]] = []
    pubsub = place.client.pubsub()
    await pubsub.psubscribe(place.keys.prefix.replace("{", "\\{") + "*")

    async def listen() -> None:
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                channel = message["channel"].decode().removeprefix(place.keys.prefix)
                heard.append((channel, message["data"].decode()))

    listening = asyncio.create_task(listen())
    yield heard
    listening.cancel()
    await asyncio.wait([listening])
    await pubsub.aclose()


# -- every state ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
async def test_a_job_in_any_state_ends_as_cancelled_and_leaves_only_that(place: Place, state: str) -> None:
    await STATES[state](place)
    assert await cancel(place) is not None
    assert await left(place) == {
        "job:job": await place.client.get(place.keys.job("job")),
        "cancelled:default": [b"job"],
    }
    ended = await record(place)
    runs = 1 if state in {*RUNNING, "retrying"} else 0
    assert (ended.state, ended.task, ended.queue, ended.attempts, ended.enqueued_at) == (
        "c",
        "work",
        "default",
        runs,
        1000,
    )
    assert abs(ended.ended_at - await place.now()) < 60_000
    assert (ended.error, ended.result) == (None, b"")
    assert (await audit(place)).orphaned == set()


@pytest.mark.parametrize("state", STATES)
async def test_what_waited_is_given_back_and_of_what_ran_its_worker_is_told(
    place: Place, state: str, notices: list[tuple[str, str]]
) -> None:
    await STATES[state](place)
    entry = (await pending(place) or [("", "", 0)])[0][0]
    removed = await cancel(place)
    assert removed is not None
    told = [data for channel, data in notices if channel == "wake" and data.startswith("cancel")]
    if state in RUNNING:
        assert removed.waiting is None
        await eventually(lambda: ("wake", f"cancel default {entry}") in notices)
    else:
        assert removed.waiting is not None
        envelope = removed.waiting.envelope
        assert (envelope.id, envelope.task, envelope.payload, removed.waiting.queue) == (
            "job",
            "work",
            b"[[1]]",
            "default",
        )
        assert envelope.attempt == (2 if state == "retrying" else 1)
        assert told == []


@pytest.mark.parametrize("state", STATES)
async def test_the_next_dispatch_of_its_unique_key_is_a_new_job(place: Place, state: str) -> None:
    await STATES[state](place)
    await cancel(place)
    assert await place.dispatch(leased(place, "next")) == {}
    assert await place.client.get(place.keys.unique("digest")) == b"next"


@pytest.mark.parametrize("state", STATES)
async def test_whoever_waits_for_it_is_told(place: Place, state: str, notices: list[tuple[str, str]]) -> None:
    await STATES[state](place)
    for channel in ("ended:a", "ended:b"):
        assert await (await place.store()).inspection.watch(place.keys, "job", place.keys.prefix + channel) is True
    await cancel(place)
    await eventually(lambda: {("ended:a", "job"), ("ended:b", "job")} <= set(notices))
    assert not await place.client.exists(place.keys.watchers)


@pytest.mark.parametrize("state", STATES)
async def test_a_job_that_keeps_no_outcome_leaves_none(place: Place, state: str) -> None:
    await STATES[state](place, flags=TRACKED)
    assert await cancel(place) is not None
    assert await left(place) == {}


async def test_a_parked_job_gives_up_its_place_and_its_rival_goes_on(place: Place) -> None:
    await place.dispatch(leased(place, "rival", LATEST))
    [rival] = await place.fetch()
    await place.dispatch(leased(place, "job", LATEST))
    assert (await place.live())["job"] == "b default"
    removed = await cancel(place)
    assert removed is not None
    assert removed.waiting is not None
    assert (await record(place)).state == "c"
    assert not await place.client.exists(place.keys.next("digest"), place.names.letters, place.names.tallies)
    assert await place.client.get(place.keys.unique("digest")) == b"rival"
    assert await place.settle("one", (rival, Succeeded(None))) == b"1"
    assert await place.entries() == []


@pytest.mark.parametrize("state", ["queued", "running", "scheduled"])
async def test_the_job_that_waits_for_a_cancelled_one_goes_on(place: Place, state: str) -> None:
    lease = {"lease": LATEST} | ({"delay": 100} if state == "scheduled" else {})
    await place.store()
    await place.dispatch(leased(place, **lease))
    if state == "running":
        await place.fetch()
    await place.dispatch(leased(place, "heir", LATEST))
    await cancel(place)
    assert await place.live() == {"heir": "q default"}
    assert await place.client.get(place.keys.unique("digest")) == b"heir"
    assert await place.client.hget(place.names.waiting, "work") == b"1"
    [arrival] = await place.fetch()
    assert delivery(arrival).envelope.id == "heir"


# -- how long it is known, and what is counted ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "seconds"), [({}, 60), ({"result_ttl": 7}, 7), ({"result_ttl": 0.5}, 0.5), ({"result_ttl": "x"}, 60)]
)
async def test_it_is_known_for_its_own_ttl_or_that_of_who_cancels(
    place: Place, chosen: dict[str, Any], seconds: float
) -> None:
    await place.dispatch(leased(place, extras={Extra.OPTIONS: chosen} if chosen else {}))
    await cancel(place)
    for key in (place.keys.job("job"), place.names.cancelled):
        assert (seconds - 0.45) * 1000 < await place.client.pttl(key) <= seconds * 1000


async def test_what_it_saved_is_known_as_long(place: Place) -> None:
    await running(place)
    await place.client.set(place.keys.saved("job"), b"1", ex=1_000_000)
    await cancel(place)
    assert 0 < await place.client.pttl(place.keys.saved("job")) <= 60_000


@pytest.mark.parametrize("state", STATES)
async def test_other_jobs_are_counted_as_before(place: Place, state: str) -> None:
    await STATES[state](place)
    others = [place.draft(f"other {n}", task="more", delay=n % 2 * 100) for n in range(6)]
    await place.dispatch(*others)
    await cancel(place)
    assert await place.client.hget(place.names.waiting, "more") == b"3"
    assert await place.client.hget(place.names.waiting, "work") in (None, b"0")
    assert await place.client.hgetall(place.names.tallies) == {b"s more": b"3"}
    assert await place.client.zcard(place.names.due) == await place.client.hlen(place.names.letters) == 3
    assert not await place.client.exists(place.names.retrying)


async def test_finished_entries_stay_where_they_are_kept_and_unread_ones_go(place: Place) -> None:
    await place.store(delete_on_ack=False)
    await place.dispatch(place.draft("ran"), place.draft("never ran"))
    await place.fetch(count=1)
    assert await cancel(place, "ran") is not None
    assert await cancel(place, "never ran") is not None
    assert len(await place.entries()) == 1
    assert await place.client.hget(place.names.rates, "kept") == b"1"
    assert await place.pending() == []
    assert await place.fetch() == []
    counts = await (await place.store()).inspection.counts(place.keys, "default")
    assert (counts.waiting, counts.pending) == (0, 0)
    found = await audit(place, worker="one")
    assert (found.readded, found.orphaned) == (set(), set())


async def test_it_is_acknowledged_in_whichever_group_it_runs(place: Place) -> None:
    store = await place.store()
    await place.dispatch(leased(place))
    await place.client.xgroup_create(place.names.stream, "elsewhere", "0")
    await place.client.xreadgroup("elsewhere", "stranger", {place.names.stream: ">"})
    removed = await store.cancellation.cancel("job", 0, 5.0)
    assert removed is not None
    assert removed.waiting is None
    assert (await place.client.xpending(place.names.stream, "elsewhere"))["pending"] == 0


# -- what is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Succeeded(b"1"), FAILED], ids=["succeeded", "failed"])
async def test_what_has_ended_is_left_alone(place: Place, outcome: Any) -> None:
    await place.dispatch(leased(place))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, outcome))
    before = await place.everything()
    assert await cancel(place) is None
    assert await place.everything() == before


async def test_an_unknown_job_is_none(place: Place) -> None:
    await place.dispatch(place.draft("other"))
    before = await place.everything()
    assert await cancel(place) is None
    assert await place.everything() == before


async def test_who_cancels_a_cancelled_job_is_told_that_it_had_ended(place: Place) -> None:
    await scheduled(place)
    assert await cancel(place) is not None
    assert await cancel(place, worker="two") is None


async def test_without_a_live_record_it_is_found_while_it_waits_for_its_time(place: Place) -> None:
    await place.dispatch(place.draft("job", flags=0, delay=100), place.draft("ready", flags=0))
    removed = await cancel(place)
    assert removed is not None
    assert removed.waiting is not None
    assert await cancel(place, "ready") is None
    assert not await place.client.exists(
        place.keys.job("job"), place.names.due, place.names.letters, place.names.tallies
    )


async def test_a_job_whose_entry_was_deleted_is_left_to_the_audit(place: Place) -> None:
    await place.store()
    await place.dispatch(leased(place))
    await place.client.xtrim(place.names.stream, maxlen=0, approximate=False)
    assert await cancel(place) is None
    assert (await audit(place)).orphaned == {"job"}


async def test_a_job_whose_entry_was_deleted_under_its_worker_ends(place: Place) -> None:
    await running(place)
    await place.client.xtrim(place.names.stream, maxlen=0, approximate=False)
    assert await cancel(place) is not None
    assert await place.pending() == []
    assert (await record(place)).state == "c"


async def test_a_damaged_letter_can_be_cancelled(place: Place) -> None:
    await scheduled(place)
    await place.client.hset(place.names.letters, "job", b"rubbish")
    assert await cancel(place) is not None
    assert (await record(place)).state == "c"
    assert await place.live() == {}
    assert not await place.client.exists(place.names.due, place.names.letters)


@pytest.mark.parametrize("key", ["live", "watchers"])
async def test_foreign_data_is_refused_and_nothing_changes(place: Place, key: str) -> None:
    await scheduled(place)
    if key == "live":
        store = await place.store()
        await place.client.rename(place.keys.live, place.keys.prefix + "aside")
    await place.client.set(place.keys.prefix + key, "foreign")
    before = await place.everything()
    with pytest.raises(RedisConfigurationError):
        await cancel(place)
    assert await place.everything() == before
    if key == "live":
        await place.client.rename(place.keys.prefix + "aside", place.keys.live)
        assert await store.cancellation.cancel("job", 0, 5.0) is not None


@pytest.mark.parametrize("field", ["stream", "due", "letters", "waiting", "cancelled", "runs"])
async def test_foreign_data_under_a_key_of_its_queue_is_refused_before_anything_is_written(
    place: Place, field: str
) -> None:
    await place.dispatch(leased(place))
    await place.client.delete(getattr(place.names, field))
    await place.client.sadd(getattr(place.names, field), "foreign")
    before = await place.everything()
    with pytest.raises(RedisConfigurationError):
        await cancel(place)
    assert await place.everything() == before
