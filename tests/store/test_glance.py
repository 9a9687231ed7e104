"""A glance tells of many jobs where they stand, and asks about them together."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from taskrunner import RedisUnavailable
from taskrunner.outcome import Again, Expired, Failed, Failure, Succeeded
from taskrunner.store import glance as module
from taskrunner.store.glance import Glance
from tests.store.conftest import PATIENCE, Place, delivery

FAILURE = Failure("ValueError", "no")


async def glance(place: Place) -> Glance:
    return Glance((await place.store()).control(place.keys), place.keys, "group")


async def test_every_state_of_a_job_is_told(place: Place) -> None:
    ends = {"succeeded": Succeeded(b"1"), "failed": Failed(FAILURE, "no retries"), "expired": Expired()}
    others = {"retrying": Again(3600.0, FAILURE)}
    await place.dispatch(*(place.draft(name) for name in [*ends, *others, "running"]))
    fetched = {delivery(one).envelope.id: one for one in await place.fetch()}
    await place.settle("one", *((fetched[name], outcome) for name, outcome in {**ends, **others}.items()))
    await place.dispatch(place.draft("queued"), place.draft("scheduled", delay=3600), place.draft("cancelled"))
    assert await (await place.store()).cancellation.cancel("cancelled", 0, PATIENCE)
    names = [*ends, *others, "running", "queued", "scheduled", "cancelled"]
    assert await (await glance(place)).states([*names, "nobody"]) == {name: name for name in names}


async def test_of_many_in_a_stream_those_that_workers_hold_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SINGLE", 3)
    monkeypatch.setattr(module, "ASKED", 4)
    ids = [f"job-{n:02}" for n in range(20)]
    await place.dispatch(*(place.draft(id) for id in ids))
    await place.fetch(count=10)
    states = await (await glance(place)).states(ids)
    assert states == dict.fromkeys(ids[:10], "running") | dict.fromkeys(ids[10:], "queued")
    monkeypatch.setattr(module, "HELD", 8)
    assert list((await (await glance(place)).states(ids)).values()).count("running") == 8, "no more are read"


async def test_a_thousand_jobs_take_a_handful_of_round_trips(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"job-{n:04}" for n in range(1_000)]
    for start in range(0, 1_000, 200):
        await place.dispatch(*(place.draft(id) for id in ids[start : start + 200]))
    one = await glance(place)
    writes = 0
    original: Any = type(one._link).exchange

    async def exchange(self: Any, commands: list[Any], *rest: Any) -> Any:
        nonlocal writes
        writes += 1
        return await original(self, commands, *rest)

    monkeypatch.setattr(type(one._link), "exchange", exchange)
    assert set((await one.states(ids)).values()) == {"queued"}
    assert writes <= 3


async def test_a_glance_at_nothing_asks_nothing(place: Place) -> None:
    assert await (await glance(place)).states([]) == {}


@pytest.mark.parametrize(("question", "job"), [(b"XPENDING", "running"), (b"GETRANGE", "ended")])
async def test_what_the_server_had_no_time_to_answer_is_not_taken_for_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, question: bytes, job: str
) -> None:
    await place.dispatch(place.draft("running"), place.draft("ended"))
    [_, ended] = [delivery(one) for one in await place.fetch()]
    await place.settle("one", (ended, Succeeded(b"1")))
    one = await glance(place)
    original: Any = type(one._link).exchange

    async def exchange(self: Any, commands: list[Any], *rest: Any) -> Any:
        replies = await original(self, commands, *rest)
        return [ResponseError("BUSY a script") if commands[0][0] == question else reply for reply in replies]

    monkeypatch.setattr(type(one._link), "exchange", exchange)
    with pytest.raises(RedisUnavailable, match="BUSY"):
        await one.states([job])
