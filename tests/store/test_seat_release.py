"""However a job ends or steps back, its seats are free exactly once, and the next in line goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskrunner.envelope import Buried, Delivery, Lease, Unreadable
from taskrunner.outcome import Again, Expired, Failed, Failure, Outcome, Released
from taskrunner.store import wire
from tests.store.auditing import audit, end_grace
from tests.store.cancelling import DEBOUNCE, HOLD, LATEST, cancel, delete, left, purge
from tests.store.conftest import Place
from tests.store.seating import (
    DONE,
    FIRST,
    LOW,
    check_books,
    drain,
    end,
    fetch,
    in_lease,
    in_stream,
    lease_of,
    limit,
    lock,
    names,
    needing,
    parked,
    promote,
    rate,
    send,
    start,
)

ERROR = Failure("ValueError", "bad")
ENDS: dict[str, Outcome] = {
    "success": DONE,
    "failure": Failed(ERROR, "no retries left"),
    "retry": Again(50.0, ERROR),
    "snooze": Released(50.0),
    "unknown task": Released(50.0, unknown=True),
    "expired": Expired(),
}
Way = Callable[[Place, Delivery], Awaitable[Any]]


def after(how: Outcome) -> Way:
    async def way(place: Place, job: Delivery) -> None:
        assert await end(place, job, how=how) == b"1"

    return way


async def orphaned(place: Place, job: Delivery) -> None:
    """Its entry is gone and nobody holds it."""
    stream = place.keys.queue(job.queue).stream
    await place.client.xack(stream, "group", job.entry_id)
    await place.client.xdel(stream, job.entry_id)
    await end_grace(place)
    for _ in range(2):  # the first pass ends it, and may have looked at those behind it before
        await audit(place)


async def deleted(place: Place, job: Delivery) -> None:
    """As the operator does it, after its worker gave it back."""
    await end(place, job, how=Released())
    await delete(place, job.envelope.id)


async def cancelled(place: Place, job: Delivery) -> None:
    """While a worker runs it, which then has ended the run."""
    await cancel(place, job.envelope.id)
    store = await place.store()
    assert await store.seating.tend(place.keys, "free", [(job.envelope.id, job.grant, job.envelope.extras["n"])]) == 1


WAYS: dict[str, Way] = {name: after(how) for name, how in ENDS.items()} | {
    "orphan": orphaned,
    "delete": deleted,
    "cancel": cancelled,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("needs", [(lock(),), (limit(1),), (lock(), limit(2))], ids=["lock", "limit", "both"])
async def test_a_job_that_ends_frees_its_seats_and_the_next_one_goes(
    place: Place, way: str, needs: tuple[str, ...]
) -> None:
    await send(place, *(needing(id, *needs) for id in "abc"))
    [a] = await start(place)
    await WAYS[way](place, a)
    for need in needs:
        assert "a" not in (await in_lease(place, need))[0] | set((await in_lease(place, need))[1])
    assert names(await start(place)) == ["b"], "one, and not more"
    await check_books(place)


@pytest.mark.parametrize("way", sorted(set(WAYS) - {"orphan"}))  # of that one see the audit of lines
async def test_nothing_is_left_of_the_last_one(place: Place, way: str) -> None:
    await send(place, needing("a", lock(), limit(2), rate(60_000)))
    [a] = await start(place)
    await WAYS[way](place, a)
    assert not await place.client.exists(lease_of(place, lock()), lease_of(place, limit(2)), place.keys.outlived)


@pytest.mark.parametrize("how", ENDS)
async def test_the_outcome_of_who_lost_its_job_frees_nothing(place: Place, how: str) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    [a] = await start(place)
    await place.store("two")
    await place.client.xclaim(place.names.stream, "group", "two", 0, [a.entry_id])
    assert await end(place, a, how=ENDS[how]) == b"0"
    assert await in_lease(place, lock()) == ({"a"}, ["b"])


@pytest.mark.parametrize("how", ["retry", "snooze"])
async def test_while_a_job_waits_for_its_next_run_others_have_the_seat_and_it_joins_at_the_end(
    place: Place, how: str
) -> None:
    await send(place, *(needing(id, lock()) for id in "abc"))
    [a] = await start(place)
    await end(place, a, how=ENDS[how])
    [b] = await start(place)
    await promote(place)
    assert (await in_lease(place, lock()))[1] == ["c", "a"]
    await check_books(place)
    await end(place, b)
    assert await drain(place) == ["c", "a"]


async def test_what_is_handed_back_at_a_stop_keeps_its_place_in_front(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "abc"))
    [a] = await start(place)
    await end(place, a, how=Released())
    assert (await in_lease(place, lock()))[1] == ["a", "b", "c"]
    assert (await in_stream(place, FIRST), await parked(place)) == (["a"], ["b", "c"])
    await check_books(place)
    assert await drain(place) == ["a", "b", "c"]


async def test_what_is_handed_back_without_a_grant_keeps_its_place_too(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "abc"))
    [a] = await fetch(place)
    await end(place, a, how=Released())
    assert (await in_lease(place, lock()))[1] == ["a", "b", "c"]
    await check_books(place)
    assert await drain(place) == ["a", "b", "c"]


async def test_what_came_from_the_first_lane_is_retried_in_its_own(place: Place) -> None:
    await send(place, *(needing(id, lock(), lane=LOW) for id in "ab"))
    [a] = await start(place)
    await end(place, a)
    [b] = await start(place, FIRST)
    await end(place, b, how=ENDS["retry"])
    assert await place.live() == {"b": "r " + LOW}
    await promote(place)
    [again] = await start(place, LOW)
    assert (again.envelope.attempt, again.home) == (2, "")


async def test_a_dead_letter_of_the_first_lane_lies_in_the_lane_of_its_job(place: Place) -> None:
    await send(place, *(needing(id, lock(), lane=LOW) for id in "ab"))
    await end(place, *(await start(place)))
    [b] = await start(place, FIRST)
    await end(place, b, how=ENDS["failure"])
    low = place.keys.queue(LOW)
    assert await place.client.hkeys(low.dead_letters) == [b"b"]
    assert not await place.client.exists(place.keys.queue(FIRST).dead)


async def test_a_strangers_data_under_the_keys_of_its_own_lane_loses_no_retry(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    await end(place, *(await start(place)))
    [b] = await start(place, FIRST)
    await place.client.set(place.names.due, "a stranger's")
    assert await end(place, b, how=ENDS["retry"]) == b"1"
    assert await place.live() == {"b": "r " + FIRST}


async def test_a_dead_letter_that_is_run_again_stands_in_line(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "abc"))
    await end(place, *(await start(place)), how=ENDS["failure"])
    instant = await place.client.zscore(place.names.dead, "a")
    assert await send(place, needing("a", lock(), claim=Buried(repr(instant)))) == {}
    assert (await in_lease(place, lock()))[1] == ["b", "c", "a"]
    await check_books(place)
    assert await drain(place) == ["b", "c", "a"]


async def test_an_entry_that_was_damaged_in_the_stream_holds_nobody_up_after_an_audit(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    [[entry, _]] = await place.client.xrange(place.names.stream)
    await place.client.xdel(place.names.stream, entry)
    await place.client.execute_command("XADD", place.names.stream, "*", "t1", b"rubbish", "n", lock())
    [strange] = await fetch(place)
    assert isinstance(strange, Unreadable)
    await end(place, strange, how=ENDS["failure"])
    await end_grace(place)
    for _ in range(2):
        await audit(place)
    assert names(await start(place)) == ["b"]


# -- cancel, delete, purge ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remove", [cancel, delete])
@pytest.mark.parametrize(
    "which", ["queued", "let go", "parked", "fetched", "scheduled", "retrying", "waits for its permit"]
)
async def test_a_job_that_is_removed_leaves_the_line(place: Place, remove: Any, which: str) -> None:
    needs, behind = (lock(), rate(3_600_000)), [needing(id, lock()) for id in "yz"]
    if which == "let go":
        await send(place, needing("first", lock()), needing("a", *needs), *behind)
        await end(place, *(await start(place)))
        assert await in_stream(place, FIRST) == ["a"]
    elif which == "parked":
        await send(place, needing("y", lock()), needing("a", *needs), needing("z", lock()))
        assert (await place.live())["a"] == "b default"
    elif which == "waits for its permit":
        await send(place, needing("first", rate(3_600_000)), needing("a", *needs), *behind)
        await start(place, "default")
        assert (await place.live())["a"] == "s default"
    else:
        await send(place, needing("a", *needs, delay=100 if which == "scheduled" else 0.0), *behind)
        if which == "fetched":
            await fetch(place)
        if which == "retrying":
            await end(place, *(await start(place)), how=ENDS["retry"])
    assert await remove(place, "a") is not None
    assert "a" not in await place.live()
    await check_books(place)
    ran = await drain(place)
    assert [id for id in ran if id != "first"] == ["y", "z"]
    rest = {name for name in await left(place) if not name.startswith(("job:", "succeeded:", "cancelled:", "rate:"))}
    assert rest - {"live", "pending", "stream:default", "waiting:default"} == set()


async def test_the_purge_of_a_lane_leaves_the_others_their_turn(place: Place) -> None:
    await send(place, *(needing(f"a{n}", lock()) for n in range(300)))
    await send(place, *(needing(f"x{n}", lock(), lane=LOW) for n in range(3)))
    store = await place.store()
    await store.prepare(place.keys, ["default", LOW, FIRST])
    [a] = await start(place, "default")
    assert await place.client.hlen(place.keys.live) == 303
    ended = await store.cancellation._purge(place.keys, "default", await place.now(), 5.0)
    assert ended == 299
    assert await in_lease(place, lock()) == ({"a0"}, ["x0", "x1", "x2"])
    await check_books(place)
    await end(place, a)
    assert await drain(place) == ["x0", "x1", "x2"]
    assert not await place.client.exists(lease_of(place, lock()))


async def test_the_purge_of_a_queue_ends_all_that_wait_for_a_seat_and_those_it_lets_go(place: Place) -> None:
    await send(place, *(needing(f"a{n}", limit(2)) for n in range(250)))
    await send(place, *(needing(f"x{n}", limit(2), lane=LOW) for n in range(250)))
    await (await place.store()).prepare(place.keys, ["default", LOW])
    assert await purge(place) == 500
    rest = {name for name in await left(place) if not name.startswith(("job:", "cancelled:"))}
    assert rest == set()


async def test_who_has_ended_with_a_strangers_data_around_is_not_half_cancelled(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    await place.client.delete(place.keys.janitor)
    await place.client.set(place.keys.janitor, "a stranger's")
    before = await place.everything()
    with pytest.raises(Exception, match="foreign data"):
        await cancel(place, "a")
    assert await place.everything() == before


# -- unique keys that are held besides ------------------------------------------------------------------------------


async def test_the_heir_of_a_unique_key_joins_the_line_at_its_end(place: Place) -> None:
    await send(place, needing("a", lock(), leases=(LATEST,)), needing("other", lock()))
    await send(place, needing("heir", lock(), leases=(LATEST,)))
    assert (await in_lease(place, lock()))[1] == ["a", "other"], "it waits for a, and not for the lock"
    await end(place, *(await start(place)))
    assert await place.client.get(place.keys.unique("digest")) == b"heir"
    assert (await in_lease(place, lock()))[1] == ["other", "heir"]
    await check_books(place)
    await audit(place)
    assert await drain(place) == ["other", "heir"]
    assert not await place.client.exists(place.keys.unique("digest"), place.keys.next("digest"))


async def test_the_heir_of_a_unique_key_with_a_free_lock_goes_at_once(place: Place) -> None:
    await send(place, needing("a", lock(), leases=(LATEST,)))
    await send(place, needing("heir", lock(), leases=(LATEST,)))
    await end(place, *(await start(place)))
    assert await place.live() == {"heir": "q default"}
    assert await drain(place) == ["heir"]
    assert not await place.client.exists(lease_of(place, lock()))


@pytest.mark.parametrize("remove", [cancel, delete])
async def test_an_heir_in_line_that_is_removed_frees_its_key_and_its_place(place: Place, remove: Any) -> None:
    await send(place, needing("a", lock(), leases=(LATEST,)), needing("other", lock()))
    await send(place, needing("heir", lock(), leases=(LATEST,)))
    await end(place, *(await start(place)))
    await remove(place, "heir")
    assert not await place.client.exists(place.keys.unique("digest"))
    assert await drain(place) == ["other"]


async def test_a_unique_job_in_line_is_the_one_that_a_second_dispatch_finds(place: Place) -> None:
    await send(place, needing("other", lock()), needing("a", lock(), leases=(HOLD,)))
    assert await send(place, needing("b", lock(), leases=(HOLD,))) == {0: "a"}


async def test_debounced_jobs_that_stand_in_line_are_left_alone_by_later_ones_and_by_the_audit(place: Place) -> None:
    await send(place, needing("busy", lock()))
    for n in range(3):
        await send(place, needing(f"{n}", lock(), leases=(DEBOUNCE,), delay=50.0))
        await promote(place)
    assert (await in_lease(place, lock()))[1] == ["busy", "0", "1", "2"]
    await end_grace(place)
    found = await audit(place)
    assert (found.orphaned, found.readded) == (set(), set())
    assert not await place.client.exists(place.keys.next("digest"))
    assert await drain(place) == ["busy", "0", "1", "2"]
    assert not await place.client.exists(place.keys.unique("digest"))


async def test_a_debounced_job_is_replaced_while_it_waits_and_takes_one_place(place: Place) -> None:
    await send(place, needing("busy", lock()))
    await send(place, needing("a", lock(), leases=(DEBOUNCE,), delay=50.0, payload=b"[[1]]"))
    assert await send(place, needing("b", lock(), leases=(DEBOUNCE,), delay=50.0, payload=b"[[2]]")) == {0: "a"}
    await promote(place)
    assert (await in_lease(place, lock()))[1] == ["busy", "a"]
    text = await place.client.hget(place.names.letters, "a")
    assert wire.unseal(text.split(b"\n", 3)[3]).payload == b"[[2]]"
    assert await drain(place) == ["busy", "a"]


async def test_a_period_does_not_touch_the_line(place: Place) -> None:
    held = Lease("period", hold=False, seconds=60)
    await send(place, needing("a", lock(), leases=(held,)))
    assert await send(place, needing("b", lock(), leases=(held,))) == {0: "a"}
    assert (await in_lease(place, lock()))[1] == ["a"]
