"""settle.lua: what a batch of deliveries came to, each recorded once and only by who holds it."""

from __future__ import annotations

import orjson
import pytest

from taskrunner.envelope import TRACKED, Extra, Lease
from taskrunner.errors import RedisConfigurationError
from taskrunner.forecast import Load
from taskrunner.outcome import Again, Expired, Failed, Failure, Outcome, Released, Succeeded
from taskrunner.store import wire
from taskrunner.store.graveyard import Graveyard
from tests.store.conftest import Place, delivery

FAILED = Failed(Failure("ValueError", "bad", "trace"), "no retries left")
AGAIN = Again(50.0, Failure("ValueError", "bad"))
ENDS: list[Outcome] = [Succeeded(b"42"), FAILED, Expired()]
OUTCOMES: list[Outcome] = [*ENDS, AGAIN, Released(), Released(5.0)]


def name(outcome: Outcome) -> str:
    return type(outcome).__name__ + (" later" if outcome == Released(5.0) else "")


@pytest.mark.parametrize("outcome", OUTCOMES, ids=name)
async def test_a_settled_delivery_leaves_the_stream_and_the_pending_list(place: Place, outcome: Outcome) -> None:
    await place.dispatch(place.draft())
    [arrival] = await place.fetch()
    first = arrival.entry_id
    assert await place.settle("one", (arrival, outcome)) == b"1"
    assert await place.pending() == []
    assert first not in [id for id, _ in await place.client.xrange(place.names.stream)]


@pytest.mark.parametrize(("outcome", "state"), [(ENDS[0], "s"), (ENDS[1], "f"), (ENDS[2], "e")], ids=name)
async def test_an_end_is_kept_for_its_ttl_and_the_live_record_goes(place: Place, outcome: Outcome, state: str) -> None:
    await place.dispatch(place.draft("job"))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, outcome))
    record = wire.read_record(await place.client.get(place.keys.job("job")))
    assert (record.state, record.task, record.queue, record.attempts) == (state, "work", "default", 1)
    assert (record.enqueued_at, record.seconds) == (1000, 0.5)
    assert record.result == (b"42" if state == "s" else b"")
    assert record.error == (("ValueError", "bad", "trace", "no retries left") if state == "f" else None)
    assert 59_000 < await place.client.pttl(place.keys.job("job")) <= 60_000
    assert await place.live() == {}
    assert await place.client.hget(place.names.waiting, "work") == b"0"


@pytest.mark.parametrize("flags", [0, TRACKED])
async def test_a_job_that_keeps_nothing_leaves_nothing(place: Place, flags: int) -> None:
    await place.dispatch(place.draft("job", flags=flags))
    [arrival] = await place.fetch()
    assert await place.settle("one", (arrival, Succeeded(None))) == b"1"
    assert not await place.client.exists(place.keys.job("job"), place.keys.live)


async def test_a_failure_is_a_dead_letter_with_all_that_is_needed_to_run_it_again(place: Place) -> None:
    draft = place.draft("job", payload=b'[["x"]]')
    await place.dispatch(draft)
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, FAILED))
    letter = wire.exhume(await place.client.hget(place.names.dead_letters, "job"))
    assert (letter.id, letter.task, letter.queue, letter.attempts, letter.deliveries) == (
        "job",
        "work",
        "default",
        1,
        1,
    )
    assert (letter.error_type, letter.message, letter.traceback) == ("ValueError", "bad", "trace")
    assert letter.letter is not None
    assert wire.unseal(letter.letter) == draft.envelope
    assert abs(await place.client.zscore(place.names.dead, "job") - await place.now()) < 60_000


async def test_a_retry_waits_with_its_next_attempt(place: Place) -> None:
    await place.dispatch(place.draft("job", extras={Extra.RESERVATION: 700}))
    [arrival] = await place.fetch()
    before = await place.now()
    await place.settle("one", (arrival, AGAIN))
    assert before + 50_000 <= await place.client.zscore(place.names.due, "job") <= await place.now() + 50_000
    task, marks, version, letter = (await place.client.hget(place.names.letters, "job")).split(b"\n", 3)
    assert (task, marks, version) == (b"work", b"r 700", b"t1")
    assert wire.unseal(letter).attempt == 2
    assert await place.live() == {"job": "r default"}
    assert await place.client.hget(place.names.waiting, "work") == b"0"


async def test_a_release_is_back_in_the_stream_as_it_was(place: Place) -> None:
    draft = place.draft("job", extras={Extra.RESERVATION: 700})
    await place.dispatch(draft)
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, Released()))
    [fields] = await place.entries()
    assert wire.unseal(fields[b"t1"]) == draft.envelope
    assert fields[b"r"] == b"700"
    assert await place.live() == {"job": "q default"}
    assert await place.client.hget(place.names.waiting, "work") == b"1"
    [again] = await place.fetch()
    assert again.deliveries == 1


async def test_deliveries_that_ended_in_a_crash_are_carried_along(place: Place) -> None:
    await place.dispatch(place.draft("job"))
    [arrival] = await place.fetch()
    await place.client.execute_command("XCLAIM", place.names.stream, "group", "one", 0, arrival.entry_id)
    arrival.deliveries = 2
    assert await place.settle("one", (arrival, Released())) == b"1"
    [again] = await place.fetch()
    assert again.envelope.extras == {Extra.DELIVERIES: 1}


@pytest.mark.parametrize("outcome", ENDS, ids=name)
async def test_an_end_frees_the_unique_key_if_it_is_the_jobs_own(place: Place, outcome: Outcome) -> None:
    lease = Lease("digest", hold=True)
    await place.dispatch(place.draft("job", leases=(lease,), extras={Extra.UNIQUE: "digest"}))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, outcome))
    assert not await place.client.exists(place.keys.unique("digest"))


@pytest.mark.parametrize("outcome", OUTCOMES, ids=name)
async def test_another_jobs_unique_key_is_left_alone(place: Place, outcome: Outcome) -> None:
    lease = Lease("digest", hold=True)
    await place.dispatch(place.draft("job", leases=(lease,), extras={Extra.UNIQUE: "digest"}))
    [arrival] = await place.fetch()
    await place.client.set(place.keys.unique("digest"), "another")
    await place.settle("one", (arrival, outcome))
    assert await place.client.get(place.keys.unique("digest")) == b"another"


@pytest.mark.parametrize("outcome", [AGAIN, Released(), Released(5.0)], ids=name)
async def test_what_is_no_end_keeps_the_unique_key(place: Place, outcome: Outcome) -> None:
    lease = Lease("digest", hold=True)
    await place.dispatch(place.draft("job", leases=(lease,), extras={Extra.UNIQUE: "digest"}))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, outcome))
    assert await place.dispatch(place.draft(leases=(lease,))) == {0: "job"}


# -- who may settle --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", OUTCOMES, ids=name)
@pytest.mark.parametrize("held", [0, 1, 1000])
@pytest.mark.parametrize("thief", ["two", "one"])
async def test_a_stale_token_changes_nothing(place: Place, outcome: Outcome, held: int, thief: str) -> None:
    """Another worker has taken the job over; or this one has, and so knows it under a newer token."""
    await place.dispatch(place.draft("job", leases=(Lease("digest", hold=True),), extras={Extra.UNIQUE: "digest"}))
    [arrival] = await place.fetch("one")
    await place.client.execute_command("XCLAIM", place.names.stream, "group", thief, 0, arrival.entry_id)
    before = await place.everything()
    assert await place.settle("one", (arrival, outcome), held=held) == b"0"
    after = await place.everything()
    del after["batch:client-ones"]
    assert after == before
    assert await place.pending() == [(arrival.entry_id.decode(), thief, 2)]


async def test_each_item_of_a_batch_is_judged_for_itself(place: Place) -> None:
    await place.dispatch(*(place.draft(f"job{n}") for n in range(5)))
    arrivals = await place.fetch("one")
    for n in (1, 3):
        await place.client.execute_command("XCLAIM", place.names.stream, "group", "two", 0, arrivals[n].entry_id)
    assert await place.settle("one", *((arrival, Succeeded(b"1")) for arrival in arrivals)) == b"10101"
    assert sorted(await place.live()) == ["job1", "job3"]


async def test_a_delivery_that_was_settled_or_deleted_or_never_was_is_refused(place: Place) -> None:
    await place.dispatch(place.draft("job"), place.draft("other"))
    first, second = await place.fetch()
    assert await place.settle("one", (first, Succeeded(b"1")), (first, FAILED)) == b"10"
    assert await place.settle("one", (first, Succeeded(b"1"))) == b"0"
    second.entry_id = b"1-1"
    assert await place.settle("one", (second, Succeeded(b"1"))) == b"0"
    assert not await place.client.exists(place.names.dead)


async def test_on_an_emptied_server_everything_is_refused_and_nothing_is_written(place: Place) -> None:
    await place.dispatch(place.draft("job"))
    [arrival] = await place.fetch()
    await place.client.delete(*[place.keys.prefix + name for name in await place.everything()])
    assert await place.settle("one", (arrival, Succeeded(b"1"))) == b"0"
    assert set(await place.everything()) == {"batch:client-ones"}


async def test_foreign_data_under_one_of_our_keys_refuses_the_batch_before_the_first_write(place: Place) -> None:
    await place.dispatch(place.draft("job"))
    [arrival] = await place.fetch()
    await place.client.set(place.names.dead, "foreign")
    before = await place.everything()
    with pytest.raises(RedisConfigurationError, match="holds a string"):
        await place.settle("one", (arrival, Succeeded(b"1")))
    assert await place.everything() == before


# -- what is counted and told -----------------------------------------------------------------------------------------


async def test_runs_are_counted_by_task_and_outcome_with_their_times(place: Place) -> None:
    await place.dispatch(*(place.draft(task=task) for task in ("a", "a", "a", "b")))
    arrivals = await place.fetch()
    outcomes = [Succeeded(b"1"), FAILED, AGAIN, Released()]
    await place.settle("one", *zip(arrivals, outcomes, strict=True), seconds=2.0)
    runs = orjson.loads(await place.client.hget(place.names.runs, "a"))
    assert (runs["ok"], runs["failed"], runs["retried"], runs["n"]) == (1, 1, 1, 3)
    assert not await place.client.hexists(place.names.runs, "b"), "a release is no run"
    stats = await (await place.store()).inspection.stats("default", None)
    assert stats.per_task["a"].avg_run_time == pytest.approx(2.0)
    completed = await place.client.hget(place.names.rates, "completed")
    assert float(completed.split()[0]) == 2.0


async def test_run_times_follow_a_change(place: Place) -> None:
    for seconds, batches in ((1.0, 1), (3.0, 20)):
        for _ in range(batches):
            await place.dispatch(*(place.draft(flags=0) for _ in range(100)))
            await place.settle("one", *((arrival, Succeeded(None)) for arrival in await place.fetch()), seconds=seconds)
    stats = await (await place.store()).inspection.stats("default", None)
    assert stats.per_task["work"].succeeded == 2100
    assert 2.8 < stats.per_task["work"].avg_run_time <= 3.0


async def test_those_who_wait_are_told_on_their_channels_and_forgotten(place: Place) -> None:
    listener = place.client.pubsub(ignore_subscribe_messages=True)
    await listener.subscribe("a", "b")
    await place.dispatch(place.draft("job"), place.draft("other"))
    arrivals = await place.fetch()
    store = await place.store()
    for channel in ("a", "b", "a"):
        assert await store.inspection.watch(place.keys, "job", channel) is True
    await place.settle("one", *((arrival, Succeeded(b"1")) for arrival in arrivals))
    heard = []
    while len(heard) < 2:
        message = await listener.get_message(timeout=5)
        if message is not None:
            heard.append((message["channel"], message["data"]))
    assert sorted(heard) == [(b"a", b"job"), (b"b", b"job")]
    assert not await place.client.exists(place.keys.watchers)
    await listener.aclose()


async def test_what_a_worker_gets_done_is_summed_by_what_limits_it(place: Place) -> None:
    for load in (Load(1.0, 9.0, 100, 10), Load(1.0, 1.0, 5000, 10)):
        await place.dispatch(place.draft(flags=0))
        [arrival] = await place.fetch()
        await place.settle("one", (arrival, Succeeded(None)), load=load)
    rates = await place.client.hgetall(place.names.rates)
    assert [float(part) for part in rates[b"slots"].split()] == pytest.approx([1e6, 9e6])
    assert [float(part) for part in rates[b"loop"].split()] == pytest.approx([1e6, 5000])


async def test_an_entry_that_nobody_can_read_is_kept_whole_as_a_dead_letter(place: Place) -> None:
    store = await place.store()
    await place.client.xadd(place.names.stream, {"x": b"\xff", "y": b"\x00\n"})
    [arrival] = await place.fetch()
    assert await place.settle("one", (arrival, Failed(Failure("Unreadable", "?"), "unreadable"))) == b"1"
    [letter] = [grave.letter() for grave in await Graveyard(store).newest(None, 10, None)]
    assert letter.raw == [b"x", b"\xff", b"y", b"\x00\n"]
    assert letter.letter is None


async def test_kept_entries_are_acknowledged_and_counted_as_kept(place: Place) -> None:
    await place.store("keeper", delete_on_ack=False)
    await place.dispatch(place.draft("a"), place.draft("b"))
    arrivals = await place.fetch("keeper")
    await place.settle("keeper", (arrivals[0], Succeeded(b"1")), (arrivals[1], AGAIN))
    assert len(await place.entries()) == 2
    assert await place.pending() == []
    assert await place.client.hget(place.names.rates, "kept") == b"2"
    assert delivery(arrivals[0]).envelope.id == "a"
