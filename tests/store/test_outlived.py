"""Runs that have outlived their jobs: who is cancelled while it runs keeps its seats until the run has really ended."""

from __future__ import annotations

from typing import Any

import pytest

from taskrunner.envelope import Delivery
from tests.store.auditing import audit, end_grace, turn
from tests.store.cancelling import cancel, delete, left
from tests.store.conftest import Place
from tests.store.seating import (
    FIRST,
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
    send,
    start,
)


def run_of(delivery: Delivery) -> tuple[str, int, str]:
    return delivery.envelope.id, delivery.grant, delivery.envelope.extras["n"]


async def free(place: Place, *runs: Delivery) -> int:
    return await (await place.store()).seating.tend(place.keys, "free", [run_of(one) for one in runs])


async def renew(place: Place, *runs: Delivery) -> int:
    return await (await place.store()).seating.tend(place.keys, "renew", [run_of(one) for one in runs])


async def cancelled_run(place: Place, *needs: str, behind: str = "b", remove: Any = cancel) -> Delivery:
    await send(place, needing("a", *needs), *(needing(id, *needs) for id in behind))
    [a] = await start(place)
    assert await remove(place, "a") is not None
    return a


async def expire(place: Place) -> None:
    """As if the worker had renewed nothing for a reservation."""
    for run in await place.client.zrange(place.keys.outlived, 0, -1):
        await place.client.zadd(place.keys.outlived, {run: await place.now() - 1})


@pytest.mark.parametrize("remove", [cancel, delete])
@pytest.mark.parametrize("needs", [(lock(),), (lock(), limit(1))], ids=["lock", "both"])
async def test_the_job_has_ended_and_its_run_holds_the_seats_until_it_is_over(
    place: Place, needs: tuple[str, ...], remove: Any
) -> None:
    a = await cancelled_run(place, *needs, remove=remove)
    assert await place.live() == {"b": "b default"}
    assert await start(place) == []
    for need in needs:
        assert (await in_lease(place, need))[0] == {f"a\n{a.grant}"}
    assert await free(place, a) == 1
    assert names(await start(place)) == ["b"]
    assert not await place.client.exists(place.keys.outlived)
    await check_books(place)


async def test_freed_once_more_after_a_lost_reply_it_frees_nobody_elses(place: Place) -> None:
    a = await cancelled_run(place, lock(), behind="bc")
    await free(place, a)
    [b] = await start(place)
    assert await free(place, a) == 0
    assert await in_lease(place, lock()) == ({"b"}, ["c"])
    await end(place, b)


async def test_a_grant_of_before_frees_and_renews_nothing(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    [a] = await start(place)
    await place.fall_silent(a)
    _, [again] = await (await place.store("two")).reclaim(place.keys, "default", 10)
    [again.grant] = await (await place.store("two")).seating.admit(place.keys, "default", [again])
    assert await free(place, a) == await renew(place, a) == 0
    await cancel(place, "a")
    assert await free(place, a) == await renew(place, a) == 0, "the dead worker's run, which had lost the job before"
    assert (await in_lease(place, lock()))[0] == {f"a\n{again.grant}"}
    assert await free(place, again) == 1
    assert names(await start(place)) == ["b"]


async def test_a_run_whose_job_lives_is_neither_freed_nor_renewed(place: Place) -> None:
    await send(place, needing("a", lock()))
    [a] = await start(place)
    assert await free(place, a) == await renew(place, a) == 0
    assert (await in_lease(place, lock()))[0] == {"a"}


async def test_it_is_held_for_a_reservation_and_each_renewal_holds_it_for_another(place: Place) -> None:
    a = await cancelled_run(place, lock(), limit(1))
    before = await place.now()
    [first, _] = [score for _, score in await place.client.zrange(place.keys.outlived, 0, -1, withscores=True)]
    assert before + 9_000 < first <= before + 10_000
    await expire(place)
    assert await renew(place, a) == 1
    assert await place.client.zcount(place.keys.outlived, before + 9_000, "+inf") == 2
    assert await start(place) == []


@pytest.mark.parametrize("who", ["promoter", "audit", "next cancel", "admission"])
async def test_when_its_worker_is_dead_it_expires_and_the_next_one_goes(place: Place, who: str) -> None:
    await cancelled_run(place, lock(), behind="bcd")
    store = await place.store()
    await store.promote(place.keys, "default")
    assert (await in_lease(place, lock()))[1] == ["b", "c", "d"]
    assert await parked(place) == ["b", "c", "d"]
    await expire(place)
    if who == "promoter":
        await store.promote(place.keys, FIRST)
    elif who == "audit":
        await end_grace(place)
        await turn(place)
        await turn(place)
    elif who == "next cancel":
        await cancel(place, "d")
    else:
        await send(place, needing("e", lock("other")))
        await start(place)  # that of another key sees nothing of it
        await store.promote(place.keys, "default")
    assert await in_stream(place, FIRST) == ["b"]
    assert not await place.client.exists(place.keys.outlived)
    await check_books(place)


async def test_whoever_comes_when_it_has_expired_finds_the_seat_free(place: Place) -> None:
    await cancelled_run(place, limit(1), behind="")
    await expire(place)
    await send(place, needing("b", limit(1)))
    assert names(await start(place)) == ["b"]


async def test_a_new_job_of_the_same_id_waits_for_the_run_of_the_old_one(place: Place) -> None:
    await send(place, needing("a", lock(), custom_id=True))
    [old] = await start(place)
    assert await delete(place, "a") is not None
    assert await send(place, needing("a", lock(), custom_id=True)) == {}
    assert await start(place) == []
    assert await place.live() == {"a": "b default"}
    assert await free(place, old) == 1
    [new] = await start(place)
    assert new.grant > old.grant
    assert await free(place, old) == 0
    assert await end(place, new) == b"1"
    assert not await place.client.exists(lease_of(place, lock()))


async def test_who_was_fetched_and_not_admitted_when_it_was_cancelled_holds_nothing(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    await fetch(place)
    await cancel(place, "a")
    assert not await place.client.exists(place.keys.outlived)
    assert names(await start(place)) == ["b"]


async def test_an_id_with_a_blank_is_as_good_as_any(place: Place) -> None:
    await send(place, needing("order 7", lock()), needing("order 8", lock()))
    [one] = await start(place)
    await cancel(place, "order 7")
    assert await renew(place, one) == 1
    assert await free(place, one) == 1
    assert await drain(place) == ["order 8"]


async def test_a_run_that_nobody_would_ever_end_is_found_by_the_audit(place: Place) -> None:
    await cancelled_run(place, lock())
    await place.client.delete(place.keys.outlived)
    await end_grace(place)
    assert (await audit(place, "look")).readded == {"b"}
    assert await parked(place) == ["b"]
    await audit(place)
    assert await drain(place) == ["b"]


async def test_a_run_that_goes_on_is_left_alone_by_the_audit(place: Place) -> None:
    a = await cancelled_run(place, lock())
    await end_grace(place)
    assert (await audit(place)).readded == set()
    assert (await in_lease(place, lock()))[0] == {f"a\n{a.grant}"}
    await free(place, a)
    assert await drain(place) == ["b"]
    rest = {name for name in await left(place) if not name.startswith(("job:", "succeeded:", "cancelled:"))}
    assert rest == set()


async def test_a_strangers_data_where_runs_are_listed_keeps_nobody_from_cancelling(place: Place) -> None:
    await send(place, *(needing(id, lock()) for id in "ab"))
    [a] = await start(place)
    await place.client.set(place.keys.outlived, "a stranger's")
    assert await cancel(place, "a") is not None
    assert await place.live() == {"b": "b default"}
    await place.client.delete(place.keys.outlived)
    assert await free(place, a) == 1
    assert await drain(place) == ["b"]
