"""dispatch.lua: each draft becomes an entry, waits for its due time, or duplicates a job that is known."""

from __future__ import annotations

import pytest

from taskrunner.envelope import TRACKED, Extra, Lease
from taskrunner.errors import RedisConfigurationError
from taskrunner.store import wire
from tests.store.conftest import Place

HOLD = Lease("digest", hold=True)


def period(seconds: float) -> Lease:
    return Lease("digest", hold=False, seconds=seconds)


async def test_a_batch_becomes_entries_in_order_with_records_and_counts(place: Place) -> None:
    drafts = [place.draft(task=task) for task in ("a", "b", "a")]
    assert await place.dispatch(*drafts) == {}
    entries = await place.entries()
    assert [wire.unseal(fields[b"t1"]) for fields in entries] == [draft.envelope for draft in drafts]
    assert all(list(fields) == [b"t1"] for fields in entries)
    assert await place.live() == {draft.envelope.id: "q default" for draft in drafts}
    assert await place.client.hgetall(place.names.waiting) == {b"a": b"2", b"b": b"1"}
    assert await place.client.smembers(place.keys.queues) == {b"default"}
    value, last, since = (await place.client.hget(place.names.rates, "arrived")).split()
    assert (float(value), last) == (3.0, since)


async def test_a_live_record_names_the_entry_of_its_job(place: Place) -> None:
    await place.dispatch(place.draft("a"), place.draft("b"))
    ids = [id for id, _ in await place.client.xrange(place.names.stream)]
    records = await place.client.hgetall(place.keys.live)
    assert records == {b"a": b"q default " + ids[0], b"b": b"q default " + ids[1]}


async def test_a_job_that_nobody_asks_for_has_no_record(place: Place) -> None:
    await place.dispatch(place.draft(flags=0))
    assert await place.live() == {}
    assert len(await place.entries()) == 1


async def test_a_delay_and_a_due_time_put_the_job_aside_with_its_letter(place: Place) -> None:
    at = await place.now() + 100_000
    before = await place.now()
    drafts = [place.draft("delayed", delay=50), place.draft("due", due=at)]
    await place.dispatch(*drafts)
    after = await place.now()
    scores = dict(await place.client.zrange(place.names.due, 0, -1, withscores=True))
    assert before + 50_000 <= scores[b"delayed"] <= after + 50_000
    assert scores[b"due"] == at
    letters = await place.client.hgetall(place.names.letters)
    assert letters[b"due"] == b"work\n\nt1\n" + wire.seal(drafts[1].envelope)
    assert await place.live() == {"delayed": "s default", "due": "s default"}
    assert await place.entries() == []
    assert await place.client.hgetall(place.names.waiting) == {}


async def test_a_due_time_that_is_past_is_no_wait(place: Place) -> None:
    await place.dispatch(place.draft(due=1), place.draft(due=await place.now()))
    assert len(await place.entries()) == 2
    assert not await place.client.exists(place.names.due, place.names.letters)


async def test_a_due_time_that_becomes_the_earliest_is_told_on_the_wake_channel_and_others_are_not(
    place: Place,
) -> None:
    await place.store()  # which tells of the new queue
    listener = place.client.pubsub(ignore_subscribe_messages=True)
    await listener.subscribe(place.keys.wake)
    await listener.get_message(timeout=5)
    for delay in (100, 200, 50):
        await place.dispatch(place.draft(delay=delay))
    await place.client.publish(place.keys.wake, "end")
    heard = []
    while not heard or heard[-1] != b"end":
        message = await listener.get_message(timeout=5)
        if message is not None:
            heard.append(message["data"])
    assert heard == [b"due", b"due", b"end"]
    await listener.aclose()


async def test_a_reservation_of_the_tasks_own_stands_beside_the_letter_and_the_shortest_is_known(place: Place) -> None:
    for milliseconds in (5000, 2000, 9000):
        await place.dispatch(place.draft(extras={Extra.RESERVATION: milliseconds}))
    assert [fields[b"r"] for fields in await place.entries()] == [b"5000", b"2000", b"9000"]
    assert await place.client.hget(place.keys.janitor, "shortest:default") == b"2000"


# -- duplicates ------------------------------------------------------------------------------------------------------


async def test_a_key_that_a_living_job_holds_makes_a_duplicate_that_writes_nothing(place: Place) -> None:
    await place.dispatch(place.draft("first", leases=(HOLD,)))
    before = await place.everything()
    assert await place.dispatch(place.draft("second", leases=(HOLD,))) == {0: "first"}
    after = await place.everything()
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"batch:client-oned"}


async def test_duplicates_inside_one_batch_are_found(place: Place) -> None:
    drafts = [
        place.draft("a", leases=(HOLD,)),
        place.draft("b"),
        place.draft("c", leases=(HOLD,)),
        place.draft("d", custom_id=True),
        place.draft("d", custom_id=True),
        place.draft("e", leases=(HOLD,), delay=5),
    ]
    assert await place.dispatch(*drafts) == {2: "a", 4: "d", 5: "a"}
    assert len(await place.entries()) == 3


async def test_a_key_of_a_job_that_waits_or_runs_holds_too(place: Place) -> None:
    await place.dispatch(place.draft("waits", delay=100, leases=(HOLD,)))
    assert await place.dispatch(place.draft(leases=(HOLD,))) == {0: "waits"}
    other = Lease("other", hold=True)
    await place.dispatch(place.draft("runs", leases=(other,)))
    assert len(await place.fetch()) == 1
    assert await place.dispatch(place.draft(leases=(other,))) == {0: "runs"}


@pytest.mark.parametrize("how", ["record", "entry", "due time"])
async def test_a_key_whose_holder_is_gone_in_whatever_way_is_taken_over(place: Place, how: str) -> None:
    await place.dispatch(place.draft("gone", leases=(HOLD,), delay=100 if how == "due time" else 0))
    if how == "record":
        await place.client.hdel(place.keys.live, "gone")
    elif how == "entry":
        await place.client.xtrim(place.names.stream, maxlen=0, approximate=False)
    else:
        await place.client.zrem(place.names.due, "gone")
    assert await place.dispatch(place.draft("next", leases=(HOLD,))) == {}
    assert await place.client.get(place.keys.unique("digest")) == b"next"
    assert (await place.live())["next"] == "q default"
    assert ("gone" in await place.live()) is (how != "record"), "the audit is to find it"


async def test_a_foreign_value_under_a_unique_key_is_replaced(place: Place) -> None:
    await place.client.hset(place.keys.unique("digest"), "a", "b")
    assert await place.dispatch(place.draft("mine", leases=(HOLD,))) == {}
    assert await place.client.get(place.keys.unique("digest")) == b"mine"


async def test_a_period_holds_by_its_own_and_ends_by_expiry(place: Place) -> None:
    await place.dispatch(place.draft("first", leases=(period(100),)))
    await place.client.hdel(place.keys.live, "first")  # that its job has ended is no matter
    assert await place.dispatch(place.draft("second", leases=(period(100),))) == {0: "first"}
    assert 99_000 < await place.client.pttl(place.keys.period("digest")) <= 100_000
    await place.client.delete(place.keys.period("digest"))
    assert await place.dispatch(place.draft("third", leases=(period(0.0001),))) == {}


async def test_of_two_leases_neither_is_taken_when_one_is_refused(place: Place) -> None:
    await place.dispatch(place.draft("first", leases=(period(100),)))
    assert await place.dispatch(place.draft("second", leases=(HOLD, period(100)))) == {0: "first"}
    assert not await place.client.exists(place.keys.unique("digest"))


@pytest.mark.parametrize("flags", [TRACKED, 3])
async def test_an_id_of_the_callers_is_refused_while_it_lives_and_while_its_outcome_is_known(
    place: Place, flags: int
) -> None:
    draft = place.draft("mine", custom_id=True, flags=flags)
    assert await place.dispatch(draft) == {}
    assert await place.dispatch(draft) == {0: "mine"}
    await place.client.hdel(place.keys.live, "mine")
    await place.client.set(place.keys.job("mine"), "an outcome")
    assert await place.dispatch(draft) == {0: "mine"}
    await place.client.delete(place.keys.job("mine"))
    assert await place.dispatch(draft) == {}


# -- what must not happen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stream", "live", "queues", "waiting", "rates", "due", "letters", "janitor"])
async def test_foreign_data_under_one_of_our_keys_refuses_the_batch_before_the_first_write(
    place: Place, name: str
) -> None:
    await place.store()
    key = getattr(place.names, name) if hasattr(place.names, name) else getattr(place.keys, name)
    await place.client.delete(key)
    await place.client.set(key, "foreign")
    before = await place.everything()
    with pytest.raises(RedisConfigurationError, match=r"holds a string.*use another namespace or key_prefix"):
        await place.dispatch(place.draft(leases=(HOLD,), delay=1), place.draft())
    assert await place.everything() == before
