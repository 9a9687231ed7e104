"""sit.lua: who has just been fetched, and needs a lock that nobody else has, runs at once; everybody else asks with
admit.lua. What settle.lua frees of such a lock is the next one's."""

from __future__ import annotations

from typing import Any

import pytest

from taskrunner.envelope import Delivery, Draft, Extra, Lease
from taskrunner.errors import RedisConfigurationError
from taskrunner.outcome import Released
from tests.store.cancelling import cancel, delete
from tests.store.conftest import Place
from tests.store.seating import (
    FIRST,
    LOW,
    admit,
    check_books,
    drain,
    end,
    fetch,
    in_lease,
    lease_of,
    limit,
    lock,
    names,
    needing,
    parked,
    promote,
    send,
)


def locked(id: str, key: str = "k", **options: Any) -> Draft:
    """A job that has a lock, and nothing else out of the ordinary."""
    return needing(id, lock(key), extras={Extra.LOCK: key}, **options)


async def sit(place: Place, arrivals: list[Delivery], worker: str = "one") -> list[int]:
    grants = await (await place.store(worker)).seating.sit(place.keys, arrivals)
    for one, grant in zip(arrivals, grants, strict=True):
        one.grant = grant
    return grants


async def seated(place: Place, lane: str = "default", worker: str = "one") -> list[Delivery]:
    """What of a lane may run, by the short way and then by the other one, as a worker asks."""
    arrivals = await fetch(place, lane, worker)
    sat = await sit(place, arrivals, worker) if arrivals else []
    await admit(place, [one for one, grant in zip(arrivals, sat, strict=True) if not grant], worker)
    return [one for one in arrivals if one.grant]


# -- who sits down -----------------------------------------------------------------------------------------------------


async def test_who_is_alone_runs_under_its_grant(place: Place) -> None:
    await send(place, locked("a"))
    [a] = await fetch(place)
    [grant] = await sit(place, [a])
    assert grant > 1_000_000 * 1000
    assert await in_lease(place, lock()) == ({"a"}, [])
    assert await place.live() == {"a": "q default"}
    await check_books(place)


async def test_many_with_locks_of_their_own_run_at_once(place: Place) -> None:
    ids = [f"{n:03}" for n in range(200)]
    await send(place, *(locked(id, id) for id in ids))
    arrivals = await fetch(place)
    assert 0 not in await sit(place, arrivals)
    for id in ids[::50]:
        assert await in_lease(place, lock(id)) == ({id}, [])
    assert await end(place, *arrivals) == b"1" * 200


async def test_of_two_with_the_same_lock_in_one_question_one_runs(place: Place) -> None:
    """They stand in different lanes, or the second would not be in the stream."""
    await send(place, locked("a"))
    await send(place, locked("b", lane=LOW))
    [a], [b] = await fetch(place), await fetch(place, LOW)
    assert [bool(grant) for grant in await sit(place, [a, b])].count(True) <= 1
    await admit(place, [one for one in (a,) if not one.grant])
    await admit(place, [one for one in (b,) if not one.grant])
    running, _ = await in_lease(place, lock())
    assert running == {one.envelope.id for one in (a, b) if one.grant}
    assert len(running) == 1
    await check_books(place)


async def test_what_is_refused_and_what_is_granted_in_one_question_stay_apart(place: Place) -> None:
    await send(place, *(locked(id, id) for id in "abc"))
    await send(place, locked("x", "b", lane=LOW))
    arrivals = await fetch(place)
    [x] = await fetch(place, LOW)
    await admit(place, [x])
    assert [bool(grant) for grant in await sit(place, arrivals)] == [True, False, True]
    assert await in_lease(place, lock("b")) == ({"x"}, ["b"])


async def test_the_next_in_line_gets_its_turn_through_either_way(place: Place) -> None:
    await send(place, *(locked(id) for id in "abc"))
    ran = list[str]()
    for lane in ("default", FIRST, FIRST):
        [one] = await seated(place, lane)
        assert await end(place, one) == b"1"
        ran += names([one])
    assert ran == ["a", "b", "c"]


# -- who does not ------------------------------------------------------------------------------------------------------


async def unchanged(place: Place, *arrivals: Delivery) -> None:
    """These ask, and it changes nothing but the number of the last grant."""

    def of(keys: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in keys.items() if key != "janitor"}

    before = of(await place.everything())
    assert await sit(place, list(arrivals)) == [0] * len(arrivals)
    assert of(await place.everything()) == before


@pytest.mark.parametrize("by", ["sit", "admit"])
async def test_who_finds_somebody_running_does_not(place: Place, by: str) -> None:
    await send(place, locked("a"))
    await send(place, locked("x", lane=LOW))
    [a], [x] = await fetch(place), await fetch(place, LOW)
    await admit(place, [x])
    if by == "sit":
        await end(place, x)
        await send(place, locked("y", lane=LOW))
        [y] = await seated(place, LOW)
        assert y.grant
    await unchanged(place, a)


async def test_who_runs_already_is_asked_for_with_its_token(place: Place) -> None:
    """Else a worker that lost its job long ago would go on with it beside the one that has it now."""
    await send(place, locked("a"))
    [a] = await fetch(place)
    assert await sit(place, [a]) != [0]
    await unchanged(place, a)


async def test_who_is_behind_others_in_line_does_not(place: Place) -> None:
    await send(place, *(locked(id) for id in "ab"))
    await send(place, locked("x", lane=LOW))
    [x] = await fetch(place, LOW)
    assert (await in_lease(place, lock()))[1] == ["a", "b", "x"]
    await unchanged(place, x)


async def test_while_the_run_of_a_cancelled_job_goes_on_nobody_does(place: Place) -> None:
    await send(place, locked("a"))
    await send(place, locked("x", lane=LOW))
    [a], [x] = await seated(place), await fetch(place, LOW)
    await cancel(place, "a")
    await unchanged(place, x)
    await (await place.store()).seating.tend(place.keys, "free", [("a", a.grant, lock())])
    assert await sit(place, [x]) != [0] or await admit(place, [x]) != [0]


async def test_while_the_run_of_the_only_job_goes_on_that_was_cancelled_nobody_does(place: Place) -> None:
    await send(place, locked("a"))
    [a] = await seated(place)
    await cancel(place, "a")
    await send(place, locked("b"))
    assert await seated(place) == []
    await (await place.store()).seating.tend(place.keys, "free", [("a", a.grant, lock())])
    assert names(await seated(place, FIRST)) == ["b"]


@pytest.mark.parametrize("how", ["cancelled", "deleted", "ended", "handed on"])
async def test_who_is_not_in_line_any_more_does_not(place: Place, how: str) -> None:
    await send(place, locked("a"))
    [a] = await fetch(place)
    if how == "cancelled":
        await cancel(place, "a")
    elif how == "deleted":
        await end(place, a, how=Released())
        await delete(place, "a")
    elif how == "ended":
        await sit(place, [a])
        await end(place, a)
    else:
        await end(place, a, how=Released(50.0))
    await unchanged(place, a)
    await send(place, locked("b"))
    assert names(await seated(place)) == ["b"]


@pytest.mark.parametrize("following", ["b", "aa", "b a", "a a"])
async def test_a_place_that_another_job_took_meanwhile_is_not_ours(place: Place, following: str) -> None:
    await send(place, locked("a"))
    [a] = await fetch(place)
    await cancel(place, "a")
    await send(place, locked(following))
    await unchanged(place, a)
    assert names(await seated(place)) == [following]


@pytest.mark.parametrize("kind", ["string", "hash", "list"])
async def test_strangers_data_in_the_place_of_a_lease_stop_their_own_key_only(place: Place, kind: str) -> None:
    await send(place, locked("a"), locked("b", "other"))
    await send(place, locked("c"))
    a, b = await fetch(place)
    lease = lease_of(place, lock())
    await place.client.delete(lease)
    strange: dict[str, Any] = {
        "string": place.client.set(lease, "x"),
        "hash": place.client.hset(lease, "x", "y"),
        "list": place.client.rpush(lease, "x"),
    }
    for name, making in strange.items():
        if name == kind:
            await making
        else:
            making.close()
    grants = await sit(place, [a, b])
    assert [bool(grant) for grant in grants] == [False, True]
    assert await place.client.type(lease) == kind.encode()
    await place.client.delete(lease)


async def test_strangers_data_in_the_place_of_the_locks_that_one_job_wants_cost_the_short_way(place: Place) -> None:
    await send(place, locked("a"))
    [a] = await fetch(place)
    await place.client.delete(place.keys.alone)
    await place.client.set(place.keys.alone, "a stranger's")
    await unchanged(place, a)
    assert await admit(place, [a]) != [0]
    assert await end(place, a) == b"1"
    assert await place.client.getdel(place.keys.alone) == b"a stranger's"


@pytest.mark.parametrize("key", ["janitor", "outlived"])
async def test_strangers_data_in_the_place_of_its_own_keys_are_told_and_nothing_is_changed(
    place: Place, key: str
) -> None:
    await send(place, locked("a"))
    [a] = await fetch(place)
    await place.client.delete(getattr(place.keys, key))
    await place.client.set(getattr(place.keys, key), "a stranger's")
    with pytest.raises(RedisConfigurationError):
        await sit(place, [a])
    assert await in_lease(place, lock()) == (set(), ["a"])


# -- grants ------------------------------------------------------------------------------------------------------------


async def test_the_grants_of_one_lock_grow_whichever_way_its_jobs_come(place: Place) -> None:
    await send(place, *(locked(id) for id in "abcdefgh"))
    grants = list[int]()
    for n in range(8):
        [one] = await fetch(place, FIRST if n else "default")
        grants += await sit(place, [one]) if n % 2 else [0]
        if not grants[-1]:
            grants[-1:] = await admit(place, [one])
        await end(place, one)
    assert grants == sorted(set(grants))
    assert 0 not in grants


async def test_what_comes_after_a_batch_has_greater_grants_than_all_in_it(place: Place) -> None:
    await send(place, *(locked(id, id) for id in "abc"))
    batch = await sit(place, await fetch(place))
    await send(place, locked("d", "d"))
    [last] = await sit(place, await fetch(place))
    assert last > max(batch)


async def test_a_grant_grows_on_when_a_job_is_taken_over(place: Place) -> None:
    await send(place, locked("a"))
    [a] = await fetch(place)
    [first] = await sit(place, [a])
    await place.fall_silent(a)
    _, [again] = await (await place.store("two")).reclaim(place.keys, "default", 10)
    [second] = await admit(place, [again], "two")
    assert second > first
    assert await end(place, a) == b"0"
    assert await in_lease(place, lock()) == ({"a"}, []), "the outcome of the dead one frees nothing"


# -- settle.lua frees it -----------------------------------------------------------------------------------------------


async def test_an_outcome_frees_the_lock_and_lets_the_next_one_go(place: Place) -> None:
    await send(place, *(locked(id) for id in "abc"))
    [a] = await seated(place)
    assert await end(place, a) == b"1"
    assert await in_lease(place, lock()) == (set(), ["b", "c"])
    assert await parked(place) == ["c"]
    await check_books(place)
    [b] = await seated(place, FIRST)
    assert (b.home, names([b])) == ("default", ["b"])
    assert await end(place, b) == b"1"
    await check_books(place)
    assert await drain(place) == ["c"]


async def test_nothing_is_left_of_the_last_one(place: Place) -> None:
    await send(place, *(locked(id) for id in "ab"))
    assert await drain(place) == ["a", "b"]
    assert await in_lease(place, lock()) == (set(), [])
    assert not await place.client.exists(lease_of(place, lock()), place.keys.outlived)


async def test_a_job_that_holds_a_unique_key_too_frees_both(place: Place) -> None:
    lease = Lease("u", hold=True)
    await send(place, locked("a", leases=(lease,)), locked("b"))
    assert await place.client.get(place.keys.unique("u")) == b"a"
    assert await drain(place) == ["a", "b"]
    assert not await place.client.exists(place.keys.unique("u"))


async def test_a_stale_outcome_frees_nothing(place: Place) -> None:
    await send(place, *(locked(id) for id in "ab"))
    [a] = await seated(place)
    a.deliveries = 2
    assert await end(place, a) == b"0"
    assert await in_lease(place, lock()) == ({"a"}, ["b"])


async def test_an_outcome_frees_no_lock_that_was_lost_and_that_another_job_has_now(place: Place) -> None:
    await send(place, locked("a"))
    [a] = await seated(place)
    await place.client.delete(place.keys.alone, lease_of(place, lock()))
    await send(place, locked("b"))
    [b] = await seated(place)
    assert await end(place, a) == b"1"
    assert await in_lease(place, lock()) == ({"b"}, [])
    assert await end(place, b) == b"1"


async def test_outcomes_of_many_locks_in_one_batch_let_everybody_go_on(place: Place) -> None:
    keys = [f"{n:03}" for n in range(120)]
    await send(place, *(locked("a" + key, key) for key in keys), *(locked("b" + key, key) for key in keys[::2]))
    running = await seated(place)
    assert len(running) == 120
    assert await end(place, *running) == b"1" * 120
    ran = await drain(place)
    await promote(place)  # a script lets fifty go, and leaves the others to the next promotion
    ran += await drain(place)
    assert sorted(ran) == ["b" + key for key in keys[::2]]
    await check_books(place)


async def test_outcomes_with_and_without_a_lock_in_one_batch_each_free_what_is_theirs(place: Place) -> None:
    await send(place, locked("a"), needing("p"), needing("l", limit(1)), locked("u", "other", flags=0))
    await send(place, *(locked(id, key) for id, key in (("b", "k"), ("v", "other"))), needing("m", limit(1)))
    arrivals = {one.envelope.id: one for one in await fetch(place)}
    assert set(arrivals) == set("aplu")
    await sit(place, [arrivals["a"], arrivals["u"]])
    await admit(place, [arrivals["l"]])
    assert await end(place, *arrivals.values()) == b"1111"
    await check_books(place)
    assert sorted(await drain(place)) == ["b", "m", "v"]


async def test_an_outcome_is_recorded_although_a_stranger_has_its_lock(place: Place) -> None:
    await send(place, locked("a"))
    [a] = await seated(place)
    await place.client.delete(lease_of(place, lock()), place.keys.alone)
    await place.client.set(lease_of(place, lock()), "a stranger's")
    assert await end(place, a) == b"1"
    assert await place.client.exists(place.keys.job("a"))
    await place.client.delete(lease_of(place, lock()))
