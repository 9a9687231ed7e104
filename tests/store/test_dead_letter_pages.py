"""page.lua and the graveyard: dead letters in their order, page by page, over lanes, however many failed at once."""

from __future__ import annotations

import random

import pytest
import redis.asyncio

from taskrunner.errors import RedisConfigurationError
from taskrunner.store.graveyard import Grave, Graveyard
from taskrunner.store.links import Link
from tests.store.burying import bury, fail, graveyard
from tests.store.conftest import Place

LANES = ("default", "default/high", "other")


def scattered(seed: int, count: int) -> list[tuple[str, str, int]]:
    """Ids, tasks and instants, of which many are the same; some ids begin others, some are no ASCII."""
    chance = random.Random(seed)
    ids = {"".join(chance.choices("abB~ü€", k=chance.randint(1, 6))) for _ in range(count)}
    return [(id, chance.choice(["one", "one-two", "ö"]), chance.randint(1, 5)) for id in sorted(ids)]


async def scatter(place: Place, seed: int, count: int = 200) -> list[tuple[int, bytes, str]]:
    """Dead letters in several lanes. Returns instant, id and task of all, the oldest first."""
    letters = scattered(seed, count)
    for n, lane in enumerate(LANES):
        await bury(place.client, place.keys, place.keys.queue(lane), *letters[n :: len(LANES)])
    return sorted((at, id.encode(), task) for id, task, at in letters)


def told(graves: list[Grave]) -> list[tuple[int, bytes]]:
    return [(int(grave.instant), grave.id) for grave in graves]


@pytest.mark.parametrize("task", [None, "one", "ö"])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_pages_of_any_size_show_each_once_and_the_newest_first(place: Place, size: int, task: str | None) -> None:
    every = await scatter(place, seed=size, count=700 if size == 1000 else 200)
    expected = [(at, id) for at, id, of in reversed(every) if task in (None, of)]
    dead = await graveyard(place)
    found: list[Grave] = []
    while page := await dead.newest(task, size, found[-1] if found else None):
        assert len(page) <= size
        found += page
    assert told(found) == expected
    assert await dead.count(task) == len(expected)


@pytest.mark.parametrize("task", [None, "one-two"])
async def test_the_oldest_first_are_those_of_one_lane_until_an_instant(place: Place, task: str | None) -> None:
    await scatter(place, seed=3, count=600)
    dead, names = await graveyard(place), place.keys.queue("other")
    rows = await place.client.zrange(names.dead, 0, -1, withscores=True)
    of_task = {member.split(b"\n")[2] for member in await place.client.zrange(names.dead_tasks, 0, -1)
               if task in (None, member.split(b"\n")[0].decode())}  # fmt: skip
    expected = [(int(at), id) for id, at in rows if at <= 3 and id in of_task]
    found: list[Grave] = []
    while page := await dead.oldest(place.keys, "other", task, found[-1] if found else None, 3):
        found += page
    assert told(found) == expected
    assert all(grave.record for grave in found)


async def test_a_page_goes_on_where_it_ended_whoever_came_and_went_meanwhile(place: Place) -> None:
    dead = await graveyard(place)
    await bury(place.client, place.keys, place.names, *((f"job{n}", "work", 10 + n // 2) for n in range(10)))
    first = await dead.newest(None, 4, None)
    await dead.delete("job9")
    await dead.delete("job4")
    await bury(place.client, place.keys, place.names, ("new", "work", 99))
    second = await dead.newest(None, 4, first[-1])
    assert [grave.id for grave in [*first, *second]] == [f"job{n}".encode() for n in (9, 8, 7, 6, 5, 3, 2, 1)]


async def test_what_is_removed_between_two_steps_of_one_page_makes_room_for_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, read = await graveyard(place), Graveyard._read
    await bury(place.client, place.keys, place.names, *((f"job{n}", "work", n) for n in range(10)))

    async def read_late(self: Graveyard, places: list[Grave]) -> list[Grave]:
        for n in (9, 7):
            await self.delete(f"job{n}")
        return await read(self, places)

    monkeypatch.setattr(Graveyard, "_read", read_late)
    assert [grave.id for grave in await dead.newest(None, 4, None)] == [b"job8", b"job6", b"job5", b"job4"]


async def test_a_page_of_large_ones_is_no_larger_than_a_batch(place: Place) -> None:
    await fail(place, *(place.draft(f"job{n}", payload=b"[" + b"1" * 400_000 + b"]") for n in range(5)))
    dead = await graveyard(place)
    pages: list[list[Grave]] = []
    while page := await dead.oldest(place.keys, "default", None, pages[-1][-1] if pages else None, 2**53):
        pages.append(page)
    assert [len(page) for page in pages] == [2, 2, 1]


async def test_a_hundred_thousand_of_one_instant_cost_a_page_no_more_than_its_length(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 100_000
    names = place.names
    await place.client.sadd(place.keys.queues, "default")
    for start in range(0, many, 10_000):
        ids = [f"job{n:06}" for n in range(start, start + 10_000)]
        await place.client.zadd(names.dead, dict.fromkeys(ids, 7))
        await place.client.hset(names.dead_letters, mapping=dict.fromkeys(ids, "[]"))
        await place.client.zadd(names.dead_tasks, {f"work\n{7:015}\n{id}": 0 for id in ids})
    dead = await graveyard(place)
    await dead.newest(None, 1, None)  # the server has the script now
    exchanged, seen = Link.exchange, list[int]()

    async def count_replies(self: Link, commands: list[object], timeout: float = 10.0) -> list[object]:
        replies = await exchanged(self, commands, timeout)
        seen.extend(len(reply) if isinstance(reply, list) else 1 for reply in replies)
        return replies

    monkeypatch.setattr(Link, "exchange", count_replies)
    before = await calls(place.client)
    assert await dead.count(None) == await dead.count("work") == many
    [middle] = await dead.find("job050000")
    for task in (None, "work"):
        page = await dead.newest(task, 10, middle)
        assert [grave.id for grave in page] == [f"job{49_999 - n:06}".encode() for n in range(10)]
    after = await calls(place.client)
    assert max(seen) == 30, "no reply has more than the page asks for"
    # Of one instant the beginning of a page is found in as many steps as a number of 17 binary digits has.
    assert {name: after[name] - before.get(name, 0) for name in after if name in ("zrevrange", "zrange", "zrangebylex")
            and after[name] - before.get(name, 0) > 20} == {}  # fmt: skip
    assert after.get("scan", 0) == before.get("scan", 0)
    assert after.get("hgetall", 0) == before.get("hgetall", 0)
    await place.client.unlink(*names.grave)


async def calls(client: redis.asyncio.Redis) -> dict[str, int]:
    figures = await client.info("commandstats")
    return {name.removeprefix("cmdstat_"): figure["calls"] for name, figure in figures.items()}


async def test_an_id_in_two_queues_is_found_in_both_and_deleted_from_both(place: Place) -> None:
    dead = await graveyard(place)
    for lane, at in (("default", 5), ("other", 9)):
        await bury(place.client, place.keys, place.keys.queue(lane), ("same", "work", at))
    assert [grave.lane for grave in await dead.find("same")] == ["other", "default"]
    assert await dead.delete("same")
    assert await dead.count(None) == await dead.count("work") == 0
    assert not await dead.delete("same")


async def test_foreign_data_under_their_keys_is_told(place: Place) -> None:
    await fail(place, place.draft("job"))
    await place.client.unlink(place.names.dead)
    await place.client.set(place.names.dead, "a stranger's")
    dead = await graveyard(place)
    for question in (
        dead.count(None),
        dead.find("job"),
        dead.newest(None, 1, None),
        dead.purge(place.keys, "default", 9),
    ):
        with pytest.raises(RedisConfigurationError, match="foreign data under our keys"):
            await question
