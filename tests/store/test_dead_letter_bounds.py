"""The bounds of the dead letters: settle.lua and prune.lua drop the oldest beyond them, count them, and tell."""

from __future__ import annotations

import pytest

from taskrunner.outcome import Succeeded
from taskrunner.store.keys import Keyspace
from taskrunner.store.store import Store, StoreOptions
from tests.store.burying import FAILED, bury, graveyard, in_step, standing
from tests.store.conftest import Place

LONG_AGO = 1_000


async def fail_one(place: Place, *ids: str, **options: object) -> list[tuple[str, int]]:
    """Has these jobs fail, recorded in one call. Returns what was told of dropped ones."""
    store = await place.store(**options)
    told: list[tuple[str, int]] = []
    store.on_drop = lambda queue, dropped: told.append((queue, dropped))
    await place.dispatch(*(place.draft(id) for id in ids))
    arrivals = await place.fetch()
    assert await place.settle("one", *((arrival, FAILED) for arrival in arrivals)) == b"1" * len(ids)
    return told


async def test_the_oldest_beyond_the_number_go_when_new_ones_come(place: Place) -> None:
    await bury(place.client, place.keys, place.names, *((f"old{n}", "work", n) for n in range(5)))
    assert await fail_one(place, "new1", "new2", max_dead_letters=4) == [("default", 3)]
    assert await standing(place) == in_step("old3", "old4", "new1", "new2")
    dead = await graveyard(place)
    assert (await dead.dropped(), await dead.count("work")) == (3, 4)


async def test_the_new_ones_of_one_batch_are_bounded_too(place: Place) -> None:
    assert await fail_one(place, *(f"job{n}" for n in range(9)), max_dead_letters=2) == [("default", 7)]
    assert await standing(place) == in_step("job7", "job8")


async def test_those_that_are_too_old_go_when_new_ones_come(place: Place) -> None:
    soon = await place.now() - 900_000
    letters = (("old", "work", LONG_AGO), ("older", "task", LONG_AGO - 1), ("young", "work", soon))
    await bury(place.client, place.keys, place.names, *letters)
    assert await fail_one(place, "new", dead_letter_ttl=1000) == [("default", 2)]
    assert await standing(place) == in_step("young", "new")
    assert await (await graveyard(place)).dropped() == 2


async def test_without_bounds_all_stay(place: Place) -> None:
    await bury(place.client, place.keys, place.names, *((f"old{n}", "work", n) for n in range(500)))
    assert await fail_one(place, "new", max_dead_letters=None, dead_letter_ttl=None) == []
    assert await (await graveyard(place)).count(None) == 501
    assert await (await graveyard(place)).dropped() == 0


async def test_a_success_drops_nothing_and_costs_nothing(place: Place) -> None:
    await bury(place.client, place.keys, place.names, *((f"old{n}", "work", n) for n in range(5)))
    await place.store(max_dead_letters=1)
    await place.dispatch(place.draft())
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, Succeeded(b"1")))
    assert await (await graveyard(place)).count(None) == 5


async def test_one_call_drops_two_hundred_at_most_and_the_rounds_of_the_workers_the_rest(place: Place) -> None:
    await bury(place.client, place.keys, place.names, *((f"old{n:03}", "work", n) for n in range(500)))
    assert await fail_one(place, "new", max_dead_letters=1) == [("default", 200)]
    store = await place.store()
    assert [await store.drop(place.keys, "default") for _ in range(3)] == [200, 100, 0]
    assert await standing(place) == in_step("new")
    assert await (await graveyard(place)).dropped() == 500


async def test_one_call_reads_a_megabyte_of_them_at_most(place: Place) -> None:
    names = place.names
    await bury(place.client, place.keys, names, *((f"old{n}", "work", n) for n in range(5)))
    for n in range(5):
        text = await place.client.hget(names.dead_letters, f"old{n}")
        await place.client.hset(names.dead_letters, f"old{n}", text + b"x" * 400_000)
    store = await place.store(dead_letter_ttl=1)
    assert [await store.drop(place.keys, "default") for _ in range(4)] == [2, 2, 1, 0]
    assert await standing(place) == in_step()


async def test_a_settle_whose_reply_was_lost_tells_of_them_and_counts_them_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(place.client, place.keys, place.names, ("old", "work", 1))
    await place.store(max_dead_letters=1)
    batches = (await place.store())._settles[0]
    run, sent = batches._run, list[bytes]()

    async def twice(*call: object) -> bytes:
        sent.extend([await run(*call), await run(*call)])  # type: ignore[arg-type]
        return sent[-1]

    monkeypatch.setattr(batches, "_run", twice)
    assert await fail_one(place, "new") == [("default", 1)]
    assert sent == [b"1 1", b"1 1"]
    assert await (await graveyard(place)).dropped() == 1


async def test_a_dropped_one_of_another_task_or_a_damaged_one_leaves_nothing(place: Place) -> None:
    letters = (("a", "work", 1), ("b", 'with "quotes"', 2), ("c", "", 3))
    await bury(place.client, place.keys, place.names, *letters)
    store = await place.store(max_dead_letters=1)
    assert await store.drop(place.keys, "default") == 2
    assert await standing(place) == in_step("c")
    await place.client.hset(place.names.dead_letters, "c", "no record at all")
    assert await (await graveyard(place)).delete("c")
    assert (await standing(place))["dead"] == (await standing(place))["letters"] == set()
    await place.client.unlink(place.names.dead_tasks)


async def test_purging_removes_those_before_an_instant_and_counts_them_nowhere(place: Place) -> None:
    await bury(place.client, place.keys, place.names, *((f"job{n}", "work", n) for n in range(10)))
    dead = await graveyard(place)
    assert [await dead.purge(place.keys, "default", 4) for _ in range(2)] == [4, 0]
    assert await standing(place) == in_step(*(f"job{n}" for n in range(4, 10)))
    assert await dead.dropped() == 0


@pytest.mark.parametrize(("most", "partitions", "share"), [(10, 1, 10), (10, 3, 4), (1, 8, 1)])
async def test_the_partitions_share_the_number(place: Place, most: int, partitions: int, share: int) -> None:
    options = StoreOptions("group", "one", "client", 10.0, 2.5, 60.0, True, max_dead_letters=most)
    store = Store(place.deployment, Keyspace("place", "test-of-shares", partitions), options)
    assert store._bounds == (share, 0)
    await store.close()
