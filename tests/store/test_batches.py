"""Numbered batches: sent again after a lost reply they change nothing, and one that comes late is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio

from taskrunner.errors import RedisUnavailable
from taskrunner.outcome import Failed, Failure, Succeeded
from taskrunner.store.links import Link
from taskrunner.store.scripts import DISPATCH, SETTLE, load
from tests.store.conftest import Place


class Recorder:
    """Keeps the script calls that a store sends, so that they can be sent again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.lose = 0
        original = Link.run

        async def run(link: Any, script: Any, keys: Any, arguments: Any, **options: Any) -> Any:
            if script not in (DISPATCH, SETTLE):
                return await original(link, script, keys, arguments, **options)
            self.calls.append((script, list(keys), list(arguments)))
            reply = await original(link, script, keys, arguments, **options)
            if self.lose:
                self.lose -= 1
                raise RedisUnavailable("the reply was lost on its way")
            return reply

        monkeypatch.setattr(Link, "run", run)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


async def send(client: redis.asyncio.Redis, call: tuple[Any, ...]) -> Any:
    script, keys, arguments = call
    return await client.eval(script.text, len(keys), *keys, *arguments)


@pytest.mark.parametrize("lost", [1, 3])
async def test_a_dispatch_whose_reply_was_lost_makes_no_second_job(place: Place, recorder: Recorder, lost: int) -> None:
    await place.store()
    recorder.lose = lost
    drafts = [place.draft("a", custom_id=True), place.draft("b"), place.draft("a", custom_id=True)]
    assert await place.dispatch(*drafts) == {2: "a"}
    assert len(recorder.calls) == lost + 1
    assert len({tuple(map(str, call[2])) for call in recorder.calls}) == 1, "it was sent again as it was"
    assert len(await place.entries()) == 2


@pytest.mark.parametrize("lost", [1, 3])
async def test_a_settle_whose_reply_was_lost_records_nothing_twice(place: Place, recorder: Recorder, lost: int) -> None:
    await place.dispatch(place.draft("a"), place.draft("b"))
    first, second = await place.fetch()
    await place.client.execute_command("XCLAIM", place.names.stream, "group", "two", 0, second.entry_id)
    recorder.lose = lost
    failed = Failed(Failure("ValueError", "bad"), "enough")
    assert await place.settle("one", (first, failed), (second, Succeeded(b"1"))) == b"10", (
        "and the verdicts are the same"
    )
    stats = await (await place.store()).inspection.stats("default", None)
    assert (stats.per_task["work"].failed, stats.dead) == (1, 1)


async def test_a_batch_that_comes_again_gets_the_same_reply_and_changes_nothing(
    place: Place, recorder: Recorder
) -> None:
    await place.dispatch(place.draft("a", custom_id=True), place.draft("a", custom_id=True))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, Succeeded(b"1")))
    before = await place.everything()
    replies = [await send(place.client, call) for call in recorder.calls]
    assert replies == [[1, b"a"], b"1"]
    assert await place.everything() == before


async def test_a_batch_that_comes_after_its_successor_is_refused_and_changes_nothing(
    place: Place, recorder: Recorder
) -> None:
    for n in range(3):
        await place.dispatch(place.draft(f"job{n}"))
    before = await place.everything()
    for call in recorder.calls[:2]:
        with pytest.raises(redis.ResponseError, match=r"STALE batch \d came after 3"):
            await send(place.client, call)
    assert await place.everything() == before


async def test_batches_of_two_clients_are_numbered_apart(place: Place) -> None:
    for worker in ("one", "two", "one"):
        await place.dispatch(place.draft(), worker=worker)
    everything = await place.everything()
    assert everything["batch:client-oned"].split()[0] == b"2"
    assert everything["batch:client-twod"].split()[0] == b"1"
    assert 0 < await place.client.ttl(place.keys.batch("client-oned")) <= 600


async def test_concurrent_batches_of_one_client_go_one_after_the_other(place: Place, recorder: Recorder) -> None:
    await asyncio.gather(*(place.dispatch(place.draft()) for _ in range(20)))
    assert [call[2][0] for call in recorder.calls] == list(range(1, 21))
    assert len(await place.entries()) == 20


async def test_patience_ends_with_the_outage_told(place: Place, recorder: Recorder) -> None:
    store = await place.store()
    recorder.lose = 1_000
    with pytest.raises(RedisUnavailable, match="lost on its way"):
        await store.dispatch(0, "default", [place.draft()], 0.2)
    recorder.lose = 0
    assert await place.dispatch(place.draft()) == {}, "the next batch has a number of its own"


async def test_a_server_that_forgot_the_scripts_gets_them_again(place: Place) -> None:
    await place.dispatch(place.draft())
    await place.client.script_flush()
    await place.dispatch(place.draft())
    [first, second] = await place.fetch()
    await place.client.script_flush()
    assert await place.settle("one", (first, Succeeded(b"1")), (second, Succeeded(b"2"))) == b"11"


async def test_a_reply_that_was_not_read_never_meets_the_next_caller(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = (await place.store()).control(place.keys)
    await link.call(b"PING")
    reading: Any = type(link.connection).read_response

    async def too_deep(self: Any, **options: Any) -> Any:
        monkeypatch.setattr(type(self), "read_response", reading)
        raise RecursionError

    monkeypatch.setattr(type(link.connection), "read_response", too_deep)
    with pytest.raises(RecursionError):
        await link.call(b"ECHO", b"one")
    assert await link.call(b"ECHO", b"two") == b"two"


def test_every_script_opens_with_its_contract() -> None:
    names = [
        "beat",
        "dispatch",
        "join",
        "lead",
        "leave",
        "look",
        "page",
        "promote",
        "prune",
        "reclaim",
        "settle",
        "stats",
        "sweep",
        "trim",
        "watch",
    ]
    for name in names:
        text = load(name).text.decode()
        own = text[text.rindex("-- ", 0, text.index("-- KEYS")) :]
        assert own.index("-- KEYS") < own.index("-- Returns"), name
