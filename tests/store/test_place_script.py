"""dispatch.lua with unique="debounce" and unique="latest": a new job takes the place of a waiting one, or is parked."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from taskrunner.envelope import KEPT, TRACKED, Delivery, Draft, Extra, Lease
from taskrunner.outcome import Again, Failed, Failure, Released, Succeeded
from taskrunner.store import wire
from tests.store.conftest import Place, delivery

FAILED = Failed(Failure("ValueError", "no"), "no retries")


def debounced(place: Place, id: str, n: int = 0, *, lane: str = "default", wait: float = 100, **more: Any) -> Draft:
    lease = Lease("digest", hold=True, turn="debounce")
    draft = place.draft(id, payload=b"[[%d]]" % n, extras={Extra.UNIQUE: "digest"}, leases=(lease,), delay=wait, **more)
    draft.queue = lane
    return draft


def latest(place: Place, id: str, n: int = 0, *, lane: str = "default", period: float = 0, **more: Any) -> Draft:
    leases: tuple[Lease, ...] = (Lease("digest", hold=True, turn="latest"),)
    if period:
        leases += (Lease("digest", hold=False, seconds=period),)
    draft = place.draft(id, payload=b"[[%d]]" % n, extras={Extra.UNIQUE: "digest"}, leases=leases, **more)
    draft.queue = lane
    return draft


async def send(place: Place, draft: Draft, worker: str = "one") -> str | None:
    """Dispatches one. Returns the id of the job that it is, if that was there before."""
    store = await place.store(worker)
    return (await store.dispatch(0, draft.queue, [draft], 5.0)).get(0)


async def letter(place: Place, id: str, lane: str = "default") -> wire.Envelope:
    text = await place.client.hget(place.keys.queue(lane).letters, id)
    assert text is not None
    return wire.unseal(text.split(b"\n", 3)[3])


def waits(place: Place, lane: str = "default") -> list[str]:
    """The keys of a queue that are there while jobs wait."""
    names = place.keys.queue(lane)
    return [names.due, names.letters, names.retrying, names.tallies, f"{place.keys.prefix}parked:{lane}"]


async def make_due(place: Place, id: str, lane: str = "default") -> None:
    assert await place.client.zadd(place.keys.queue(lane).due, {id: 1}, xx=True, ch=True) == 1
    await (await place.store()).promote(place.keys, lane)


async def tallies(place: Place, lane: str = "default") -> dict[str, int]:
    counts = await place.client.hgetall(place.keys.queue(lane).tallies)
    return {name.decode(): int(n) for name, n in counts.items()}


async def end(place: Place, arrival: Any, outcome: Any = None) -> None:
    assert await place.settle("one", (arrival, outcome or Succeeded(b"null"))) == b"1"


# -- debounce -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["a", "a,", 'quote"d', "back\\slash", "ümläut", "a/b", ""], ids=repr)
async def test_the_letter_of_a_replaced_job_keeps_its_id_and_has_all_else_of_the_new_one(place: Place, id: str) -> None:
    first = debounced(place, id, 1)
    second = debounced(place, 'second,"/\\ü', 2, flags=TRACKED, task="work")
    second.envelope.extras[Extra.HEADERS] = {"a": "b"}
    assert await send(place, first) is None
    assert await send(place, second) == first.envelope.id
    kept = await letter(place, first.envelope.id)
    assert (kept.id, kept.payload, kept.flags) == (first.envelope.id, b"[[2]]", TRACKED)
    assert kept.extras == second.envelope.extras
    assert await place.client.hlen(place.names.letters) == 1


async def test_a_replaced_job_waits_from_anew_and_is_counted_once(place: Place) -> None:
    await send(place, debounced(place, "a", wait=50))
    await send(place, debounced(place, "b", wait=200))
    at = await place.now()
    [(id, due)] = await place.client.zrange(place.names.due, 0, -1, withscores=True)
    assert id == b"a"
    assert at + 190_000 < due <= at + 200_000
    assert await tallies(place) == {"s work": 1}


async def test_equal_jobs_of_one_batch_become_one_with_the_last_arguments(place: Place) -> None:
    known = await place.dispatch(*(debounced(place, f"job{n}", n) for n in range(5)))
    assert known == dict.fromkeys(range(1, 5), "job0")
    assert (await letter(place, "job0")).payload == b"[[4]]"


async def test_a_promoted_job_is_replaced_no_more_and_does_not_free_the_key_of_the_next(place: Place) -> None:
    await send(place, debounced(place, "a", 1))
    await make_due(place, "a")
    assert await send(place, debounced(place, "b", 2)) is None
    [arrival] = await place.fetch()
    assert delivery(arrival).envelope.payload == b"[[1]]"
    await end(place, arrival)
    assert await place.client.get(place.keys.unique("digest")) == b"b"
    assert await send(place, debounced(place, "c", 3)) == "b"
    assert await place.live() == {"b": "s default"}


@pytest.mark.parametrize("outcome", [Again(50, Failure("E", "")), Released(50)], ids=["a retry", "a snooze"])
async def test_a_job_that_waits_after_a_run_is_not_replaced(place: Place, outcome: Any) -> None:
    await send(place, debounced(place, "a", 1))
    await make_due(place, "a")
    [arrival] = await place.fetch()
    await end(place, arrival, outcome)
    assert await send(place, debounced(place, "b", 2)) is None
    assert (await letter(place, "a")).payload == b"[[1]]"
    assert await send(place, debounced(place, "c", 3)) == "b"


@pytest.mark.parametrize("gone", ["record", "due time", "key", "all"])
async def test_the_next_takes_over_when_the_one_that_waited_is_gone(place: Place, gone: str) -> None:
    await send(place, debounced(place, "a"))
    if gone in ("record", "all"):
        await place.client.hdel(place.keys.live, "a")
    if gone in ("due time", "all"):
        await place.client.zrem(place.names.due, "a")
    if gone in ("key", "all"):
        await place.client.delete(place.keys.unique("digest"))
    assert await send(place, debounced(place, "b")) is None
    assert await send(place, debounced(place, "c")) == "b"


async def test_a_letter_that_was_deleted_is_there_again_with_the_next_arguments(place: Place) -> None:
    await send(place, debounced(place, "a", 1))
    await place.client.delete(place.names.letters)
    assert await send(place, debounced(place, "b", 2)) == "a"
    await make_due(place, "a")
    assert delivery((await place.fetch())[0]).envelope.payload == b"[[2]]"


async def test_a_job_moves_to_the_queue_that_the_new_dispatch_names(place: Place) -> None:
    await send(place, debounced(place, "a", 1))
    assert await send(place, debounced(place, "b", 2, lane="default/high")) == "a"
    assert await place.live() == {"a": "s default/high"}
    assert not await place.client.exists(*waits(place))
    assert await tallies(place, "default/high") == {"s work": 1}
    await make_due(place, "a", "default/high")
    [fields] = [fields for _, fields in await place.client.xrange(place.keys.queue("default/high").stream)]
    assert wire.unseal(fields[b"t1"]).payload == b"[[2]]"


async def test_strangers_under_the_keys_of_the_queue_where_it_waited_leave_the_new_dispatch_alone(place: Place) -> None:
    await send(place, debounced(place, "a", 1, lane="other"))
    await place.client.set(place.keys.queue("other").letters, "strange")
    assert await send(place, debounced(place, "b", 2)) is None
    assert (await letter(place, "b")).payload == b"[[2]]"


async def test_an_id_of_the_callers_that_waits_is_replaced_and_one_that_runs_is_known(place: Place) -> None:
    assert await send(place, debounced(place, "mine", 1, custom_id=True)) is None
    assert await send(place, debounced(place, "mine", 2, custom_id=True)) == "mine"
    assert (await letter(place, "mine")).payload == b"[[2]]"
    await make_due(place, "mine")
    assert await send(place, debounced(place, "mine", 3, custom_id=True)) == "mine"
    assert await place.live() == {"mine": "q default"}


# -- latest ---------------------------------------------------------------------------------------------------------


async def test_the_first_is_queued_the_second_parked_and_the_third_takes_the_seconds_place(place: Place) -> None:
    assert await send(place, latest(place, "a", 1)) is None
    assert await send(place, latest(place, "b", 2)) is None
    assert await send(place, latest(place, "c", 3)) == "b"
    assert await place.live() == {"a": "q default", "b": "b default"}
    assert await place.client.get(place.keys.next("digest")) == b"b"
    assert await tallies(place) == {"b work": 1}
    assert await place.client.zrange(place.keys.prefix + "parked:default", 0, -1) == [b"b"]
    assert (await letter(place, "b")).payload == b"[[3]]"
    assert len(await place.entries()) == 1


async def test_the_same_of_one_batch(place: Place) -> None:
    known = await place.dispatch(*(latest(place, f"job{n}", n) for n in range(5)))
    assert known == dict.fromkeys((2, 3, 4), "job1")
    assert (await letter(place, "job1")).payload == b"[[4]]"


@pytest.mark.parametrize("outcome", [Succeeded(b"1"), FAILED], ids=["success", "failure"])
@pytest.mark.parametrize("flags", [TRACKED, TRACKED | KEPT])
async def test_the_end_of_the_one_queues_the_other(place: Place, outcome: Any, flags: int) -> None:
    await send(place, latest(place, "a", 1, flags=flags))
    await send(place, latest(place, "b", 2, flags=flags))
    [arrival] = await place.fetch()
    await end(place, arrival, outcome)
    assert await place.live() == {"b": "q default"}
    assert await place.client.get(place.keys.unique("digest")) == b"b"
    assert not await place.client.exists(place.keys.next("digest"), *waits(place))
    assert await place.client.hgetall(place.names.waiting) == {b"work": b"1"}
    [arrival] = await place.fetch()
    assert delivery(arrival).envelope.payload == b"[[2]]"
    await end(place, arrival)
    assert not await place.client.exists(place.keys.live, place.keys.unique("digest"))


async def test_a_retry_and_a_snooze_are_no_end(place: Place) -> None:
    await send(place, latest(place, "a", 1))
    await send(place, latest(place, "b", 2))
    for outcome in (Again(50, Failure("E", "")), Released(50)):
        [arrival] = await place.fetch()
        await end(place, arrival, outcome)
        assert (await place.live())["b"] == "b default"
        assert await send(place, latest(place, "c", 3)) == "b"
        await make_due(place, "a")


async def test_a_parked_job_moves_to_the_queue_that_the_new_dispatch_names_and_is_queued_there(place: Place) -> None:
    await send(place, latest(place, "a", 1))
    await send(place, latest(place, "b", 2))
    assert await send(place, latest(place, "c", 3, lane="mail/low")) == "b"
    assert not await place.client.exists(*waits(place))
    assert await tallies(place, "mail/low") == {"b work": 1}
    await end(place, (await place.fetch())[0])
    assert await place.live() == {"b": "q mail/low"}
    assert await place.client.hgetall(place.keys.queue("mail/low").waiting) == {b"work": b"1"}
    assert await place.client.smembers(place.keys.queues) == {b"default", b"mail/low"}


async def test_the_marks_of_a_parked_job_are_there_when_it_is_queued(place: Place) -> None:
    await send(place, latest(place, "a", 1))
    second = latest(place, "b", 2)
    second.envelope.extras[Extra.RESERVATION] = 5000
    await send(place, second)
    await end(place, (await place.fetch())[0])
    assert (await place.entries())[0][b"r"] == b"5000"


@pytest.mark.parametrize("parked", [False, True])
async def test_the_next_dispatch_takes_over_from_a_holder_that_was_lost_and_nothing_runs_twice(
    place: Place, parked: bool
) -> None:
    await send(place, latest(place, "a", 1))
    if parked:
        await send(place, latest(place, "b", 2))
    await place.client.delete(place.names.stream)
    assert await send(place, latest(place, "c", 3)) == ("b" if parked else None)
    [fields] = await place.entries()
    envelope = wire.unseal(fields[b"t1"])
    assert (envelope.id, envelope.payload) == ("b" if parked else "c", b"[[3]]")
    assert await place.client.get(place.keys.unique("digest")) == envelope.id.encode()
    assert not await place.client.exists(place.keys.next("digest"), *waits(place))


@pytest.mark.parametrize("mode", ["first", "debounce"])
async def test_a_parked_job_survives_a_dispatch_of_another_mode_that_takes_over_from_a_lost_holder(
    place: Place, mode: Any
) -> None:
    await send(place, latest(place, "a", 1))
    await send(place, latest(place, "b", 2))
    await place.client.delete(place.names.stream)
    await (await place.store()).prepare(place.keys, ["default"])
    other = place.draft("c", extras={Extra.UNIQUE: "digest"}, leases=(Lease("digest", hold=True, turn=mode),), delay=9)
    assert await send(place, other) is None
    await make_due(place, "c")
    await end(place, (await place.fetch())[0])
    assert (await place.live())["b"] == "q default"


async def test_an_id_of_the_callers_that_is_parked_is_replaced_and_one_that_is_queued_is_known(place: Place) -> None:
    assert await send(place, latest(place, "mine", 1, custom_id=True)) is None
    assert await send(place, latest(place, "mine", 2, custom_id=True)) == "mine"
    assert await send(place, latest(place, "yours", 3, custom_id=True)) is None
    assert await send(place, latest(place, "yours", 4, custom_id=True)) == "yours"
    assert (await letter(place, "yours")).payload == b"[[4]]"
    assert await place.live() == {"mine": "q default", "yours": "b default"}


async def test_a_period_lets_no_second_job_come_into_being_but_new_arguments_to_a_parked_one(place: Place) -> None:
    assert await send(place, latest(place, "a", 1, period=100)) is None
    assert await send(place, latest(place, "b", 2, period=100)) == "a"
    assert await place.live() == {"a": "q default"}
    await place.client.delete(place.keys.period("digest"))  # as if it were over
    assert await send(place, latest(place, "c", 3, period=100)) is None
    assert await send(place, latest(place, "d", 4, period=100)) == "c"
    assert (await letter(place, "c")).payload == b"[[4]]"
    await end(place, (await place.fetch())[0])
    assert await send(place, latest(place, "e", 5, period=100)) == "c"
    assert await place.live() == {"c": "q default"}


# -- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [debounced, latest])
async def test_a_batch_that_is_sent_again_changes_nothing_and_has_the_same_answer(place: Place, make: Any) -> None:
    await place.dispatch(make(place, "a", 1))
    drafts = [make(place, "b", 2), make(place, "c", 3), make(place, "d", 4)]
    store = await place.store()
    lane = store._dispatches[0][0]
    known = await place.dispatch(*drafts)
    before = await place.everything()
    lane._number -= 1  # its reply was lost
    assert await place.dispatch(*drafts) == known
    after = await place.everything()
    assert {name: after[name] for name in after if not name.startswith("batch:")} == {
        name: before[name] for name in before if not name.startswith("batch:")
    }


async def test_ends_and_dispatches_in_every_order_lose_no_newest_arguments_and_park_nothing_for_ever(
    place: Place,
) -> None:
    """Three dispatches and two ends of whatever runs: whoever comes last is the last to run."""
    for order in sorted(set(itertools.permutations("ddde" + "e"))):
        ran, n = list[int](), 0
        for deed in order:
            if deed == "d":
                n += 1
                await send(place, latest(place, f"{''.join(order)}-{n}", n))
            else:
                await run_one(place, ran)
        while await place.live():
            await run_one(place, ran)
        assert ran[-1] == n, order
        assert ran == sorted(set(ran)), order
        assert not await place.client.exists(place.keys.unique("digest"), place.keys.next("digest"), *waits(place))


async def run_one(place: Place, ran: list[int]) -> None:
    for arrival in await place.fetch():
        assert isinstance(arrival, Delivery)
        ran.append(int(arrival.envelope.payload.strip(b"[]")))
        await end(place, arrival)
