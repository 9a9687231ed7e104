"""schedule.lua, ticks.lua and the tick operations of dispatch.lua: a definition wins whole, a tick is fired once."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from taskrunner.envelope import KEPT, TRACKED, Draft, Envelope, Lease
from taskrunner.errors import RedisConfigurationError
from taskrunner.schedule import Move, Timing, timing
from taskrunner.store.batches import Batches
from taskrunner.store.schedules import Definition, Schedules, Stored
from tests.store.conftest import PATIENCE, Place

HOURLY = timing(every=3600)
KEYS = {"schedules", "ticks", "fired", "schedule-locks"}


def definition(
    name: str = "s",
    when: Timing = HOURLY,
    *,
    lock_key: str | None = None,
    payload: bytes = b"[[]]",
    leases: tuple[Lease, ...] = (),
) -> Definition:
    envelope = Envelope("", "work", 0, TRACKED | KEPT, 1, {}, payload)
    return Definition(name, when, "latest", lock_key, False, Draft(envelope, "default", leases=leases))


async def schedules(place: Place, worker: str = "one") -> Schedules:
    return (await place.store(worker)).schedules


async def put(place: Place, *definitions: Definition, worker: str = "one") -> list[Any]:
    return await (await schedules(place, worker)).put(definitions, await place.now())


async def ticks(place: Place) -> dict[str, int]:
    found = await place.client.zrange(place.keys.ticks, 0, -1, withscores=True)
    return {member.decode().partition("\n")[0]: round(score) for member, score in found}


async def make_due(place: Place, stored: Stored, ago: int = 0) -> int:
    """Lets the tick of a schedule be due, so many ms ago."""
    tick = await place.now() - ago
    await place.client.zadd(place.keys.ticks, {f"{stored.definition.name}\n{stored.mark}": tick})
    return tick


async def fire(place: Place, stored: Stored, move: Move, *, here: bool = True, worker: str = "one") -> dict[int, str]:
    store = await place.store(worker)
    return await store.dispatch(0, "default", [stored.fire(move, await place.now(), here)], PATIENCE)


# -- making and replacing --------------------------------------------------------------------------------------------


async def test_a_schedule_gets_a_definition_and_a_tick_and_others_are_told(place: Place) -> None:
    await place.store()
    listener = place.client.pubsub()
    await listener.subscribe(place.keys.wake)
    before = await place.now()
    [stored] = await put(place, definition())
    assert before + 3_600_000 <= stored.next == stored.anchor <= await place.now() + 3_600_000
    assert await ticks(place) == {"s": stored.next}
    heard = set[Any]()
    while b"schedule" not in heard:
        message = await listener.get_message(timeout=5)
        assert message is not None
        heard.add(message["data"])
    await listener.aclose()
    [kept] = await (await schedules(place)).all()
    assert kept == stored


async def test_the_same_definition_again_changes_nothing(place: Place) -> None:
    [first] = await put(place, definition())
    before = await place.everything()
    [second] = await put(place, definition(), worker="two")
    assert second == first
    after = await place.everything()
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"batch:client-twot"}


async def test_another_job_at_the_same_times_keeps_the_next_tick_and_leaves_no_ghost(place: Place) -> None:
    [old] = await put(place, definition())
    tick = await make_due(place, old, ago=5)
    [new] = await put(place, definition(payload=b"[[2]]"))
    assert (new.next, new.anchor) == (tick, old.anchor)
    assert await place.client.zcard(place.keys.ticks) == 1
    assert await fire(place, old, Move(tick, tick, tick + 1)) == {0: ""}, "the old job is not fired any more"
    assert await place.entries() == []
    assert await fire(place, new, Move(tick, tick, tick + 3_600_000)) == {}
    assert len(await place.entries()) == 1


async def test_other_times_begin_anew(place: Place) -> None:
    [old] = await put(place, definition())
    await make_due(place, old)
    [new] = await put(place, definition(when=timing(every=7200)))
    assert await ticks(place) == {"s": new.next}
    assert new.next > await place.now() + 7_000_000


async def test_a_tick_that_was_lost_comes_back_with_its_definition(place: Place) -> None:
    await put(place, definition())
    await place.client.delete(place.keys.ticks)
    [again] = await put(place, definition())
    assert await ticks(place) == {"s": again.next}


async def test_removing_leaves_nothing(place: Place) -> None:
    [stored] = await put(place, definition(lock_key="k"))
    tick = await make_due(place, stored)
    await fire(place, stored, Move(tick, tick, tick + 1000))
    all_of_them = await schedules(place)
    assert await all_of_them.remove("s", "nobody") == [True, False]
    assert not KEYS & set(await place.everything())


async def test_what_was_replaced_meanwhile_is_not_removed_by_its_old_revision(place: Place) -> None:
    [old] = await put(place, definition())
    await put(place, definition(payload=b"[[2]]"))
    assert await (await schedules(place)).remove("s", revisions=[old.revision]) == [False]
    assert await ticks(place) != {}


async def test_a_lock_key_is_that_of_one_schedule_until_it_goes(place: Place) -> None:
    await put(place, definition("a", lock_key="k"))
    assert await put(place, definition("b", lock_key="k")) == ["a"]
    assert list(await ticks(place)) == ["a"]
    [again] = await put(place, definition("a", lock_key="k", payload=b"[[3]]"))
    assert isinstance(again, Stored)
    await put(place, definition("a", lock_key="other"))
    [b] = await put(place, definition("b", lock_key="k"))
    assert isinstance(b, Stored)
    await (await schedules(place)).remove("b")
    [c] = await put(place, definition("c", lock_key="k"))
    assert isinstance(c, Stored)


async def test_two_of_one_lock_in_one_call_are_told_apart(place: Place) -> None:
    first, second = await put(place, definition("a", lock_key=""), definition("b", lock_key=""))
    assert isinstance(first, Stored)
    assert second == "a"


async def test_a_pause_takes_the_tick_away_and_outlasts_a_new_definition(place: Place) -> None:
    [stored] = await put(place, definition())
    all_of_them = await schedules(place)
    assert await all_of_them.pause("s")
    assert await ticks(place) == {}
    for one in (definition(), definition(payload=b"[[2]]"), definition(when=timing(every=5))):
        [again] = await put(place, one)
        assert again.paused
        assert again.next is None
    assert await all_of_them.resume("s", await place.now())
    assert (await ticks(place))["s"] <= await place.now() + 5000
    assert not await all_of_them.pause("nobody")
    assert not await all_of_them.resume("nobody", 0)
    assert stored.paused is False


async def test_resuming_what_is_not_paused_moves_no_tick(place: Place) -> None:
    await put(place, definition())
    before = await ticks(place)
    assert await (await schedules(place)).resume("s", await place.now() + 100_000_000)
    assert await ticks(place) == before


async def test_more_than_a_script_takes_goes_in_several_calls(place: Place) -> None:
    stored = await put(place, *(definition(f"s{n}") for n in range(450)))
    assert len(stored) == len(await ticks(place)) == 450
    large = [definition(f"big{n}", payload=bytes(400_000)) for n in range(4)]
    assert len(await put(place, *large)) == 4
    assert all(await (await schedules(place)).remove(*(f"s{n}" for n in range(450))))


async def test_a_call_that_was_sent_twice_gives_the_same_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(place, definition())
    run, calls = Batches._run, []

    async def twice(self: Batches, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        calls.append(await run(self, script, list(keys), list(arguments)))
        return await run(self, script, keys, arguments)

    monkeypatch.setattr(Batches, "_run", twice)
    assert await (await schedules(place)).remove("s") == [True]
    assert len(calls) == 1


@pytest.mark.parametrize("key", ["schedules", "ticks", "fired", "schedule_locks"])
async def test_foreign_data_are_complained_of_and_left_alone(place: Place, key: str) -> None:
    name = getattr(place.keys, key)
    await place.store()
    await place.client.set(name, "foreign")
    with pytest.raises(RedisConfigurationError, match="WRONGTYPE"):
        await put(place, definition())
    assert await place.client.get(name) == b"foreign"


async def test_a_definition_that_nobody_can_read_can_be_replaced_and_removed(place: Place) -> None:
    await place.store()
    for text in (b"rubbish", b"a b c d e\nrubbish", b"a b c d e\n{}"):
        await place.client.hset(place.keys.schedules, "s", text)
        assert await (await schedules(place)).all() == []
        await put(place, definition())
        assert len(await (await schedules(place)).all()) == 1
        await place.client.hset(place.keys.schedules, "s", text)
        assert await (await schedules(place)).remove("s") == [True]
        await place.client.delete(place.keys.ticks)


# -- firing ----------------------------------------------------------------------------------------------------------


async def test_what_is_due_is_seen_in_order_and_when_the_next_is(place: Place) -> None:
    a, b, c = await put(place, definition("a"), definition("b"), definition("c"))
    first, second = await make_due(place, b, ago=100), await make_due(place, a, ago=50)
    look = await (await schedules(place)).look()
    assert look.due == [("b", b.mark, first), ("a", a.mark, second)]
    assert (look.next, look.seeded) == (c.next, True)


async def test_an_emptied_server_shows(place: Place) -> None:
    look = await (await schedules(place)).look()
    assert (look.seeded, look.next, look.due) == (False, None, [])


async def test_a_tick_is_fired_once_by_whoever_comes_first(place: Place) -> None:
    [stored] = await put(place, definition())
    tick = await make_due(place, stored)
    move = Move(tick, tick, tick + 3_600_000)
    replies = [await fire(place, stored, move, worker=worker) for worker in ("one", "two", "three")]
    assert replies == [{}, {0: ""}, {0: ""}]
    assert list(await place.live()) == [f"s@{tick}"]
    assert await ticks(place) == {"s": tick + 3_600_000}
    assert await place.client.hget(place.keys.fired, "s") == str(tick).encode()


async def test_a_tick_is_not_fired_before_it_is_due(place: Place) -> None:
    [stored] = await put(place, definition())
    assert await fire(place, stored, Move(stored.next, stored.next, stored.next + 1)) == {0: ""}
    assert await place.entries() == []
    assert await ticks(place) == {"s": stored.next}


async def test_a_tick_from_before_a_pause_or_a_removal_is_not_fired_by_one_who_slept(place: Place) -> None:
    [stored] = await put(place, definition())
    tick = await make_due(place, stored)
    all_of_them = await schedules(place)
    await all_of_them.pause("s")
    assert await fire(place, stored, Move(tick, tick, None)) == {0: ""}
    await all_of_them.remove("s")
    assert await fire(place, stored, Move(tick, tick, None)) == {0: ""}
    assert await place.entries() == []
    assert not await place.client.exists(place.keys.fired)


async def test_several_ticks_of_one_schedule_go_in_one_call(place: Place) -> None:
    [stored] = await put(place, definition())
    tick = await make_due(place, stored, ago=3000)
    now = await place.now()
    drafts = [stored.fire(Move(tick + n, tick + n, tick + n + 1), now, True) for n in range(3)]
    assert await (await place.store()).dispatch(0, "default", drafts, PATIENCE) == {}
    assert len(await place.entries()) == 3
    assert await ticks(place) == {"s": tick + 3}


async def test_after_the_clock_was_set_back_no_tick_is_fired_again(place: Place) -> None:
    [stored] = await put(place, definition())
    tick = await make_due(place, stored)
    await place.client.hset(place.keys.fired, "s", tick + 60_000)
    assert await fire(place, stored, Move(tick, tick, tick + 1)) == {0: ""}
    assert await place.entries() == []
    assert await ticks(place) == {"s": tick + 1}, "it goes on all the same"


async def test_resuming_frees_a_schedule_whose_latest_tick_lies_far_ahead(place: Place) -> None:
    [stored] = await put(place, definition())
    await place.client.hset(place.keys.fired, "s", await place.now() + 10**12)
    all_of_them = await schedules(place)
    await all_of_them.pause("s")
    await all_of_them.resume("s", await place.now())
    tick = await make_due(place, stored)
    assert await fire(place, stored, Move(tick, tick, None)) == {}


async def test_a_tick_whose_unique_key_is_held_is_over_without_a_job(place: Place) -> None:
    hold = (Lease("digest", hold=True),)
    await place.dispatch(place.draft("holder", leases=hold))
    [stored] = await put(place, definition(leases=hold))
    tick = await make_due(place, stored)
    assert await fire(place, stored, Move(tick, tick, tick + 1)) == {0: "holder"}
    assert await ticks(place) == {"s": tick + 1}


async def test_the_last_tick_leaves_the_schedule_without_one(place: Place) -> None:
    [stored] = await put(place, definition())
    tick = await make_due(place, stored)
    assert await fire(place, stored, Move(tick, tick, None)) == {}
    assert await ticks(place) == {}
    [kept] = await (await schedules(place)).all()
    assert (kept.next, kept.last) == (None, tick)


async def test_a_skipped_tick_moves_on_without_a_job_and_only_from_where_it_stands(place: Place) -> None:
    [stored] = await put(place, definition())
    tick = await make_due(place, stored)
    all_of_them = await schedules(place)
    for _ in range(2):
        await all_of_them.move([("s", stored.mark, Move(tick, None, tick + 7))])
    assert await ticks(place) == {"s": tick + 7}
    assert not await place.client.exists(place.keys.fired)


async def test_a_job_of_another_partition_is_fired_once_and_its_schedule_moves_afterwards(place: Place) -> None:
    [stored] = await put(place, definition())
    tick = await make_due(place, stored)
    move = Move(tick, tick, tick + 5)
    assert await fire(place, stored, move, here=False) == {}
    assert await ticks(place) == {"s": tick}, "whoever fired it was killed before it moved the schedule on"
    assert await fire(place, stored, move, here=False, worker="two") == {0: ""}
    await (await schedules(place, "two")).move([("s", stored.mark, move)])
    assert await ticks(place) == {"s": tick + 5}
    [kept] = await (await schedules(place)).all()
    assert kept.last == tick


async def test_a_schedule_that_is_made_again_does_not_fire_on_its_old_grid(place: Place) -> None:
    [old] = await put(place, definition())
    await (await schedules(place)).remove("s")
    [new] = await (await schedules(place)).put([definition()], await place.now() + 1234)
    assert (old.revision, new.anchor > old.anchor) == (new.revision, True)
    tick = await make_due(place, new)
    assert await fire(place, old, Move(tick, tick, None)) == {0: ""}
    assert dataclasses.replace(new, next=None) == await (await schedules(place)).find("s")
