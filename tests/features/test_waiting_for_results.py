"""Waiting for a result is notified and not polled, and survives a notice that was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Job, JobNotFound, ResultTimeout, TaskRunner, session
from taskrunner.store.keys import PartitionKeys
from taskrunner.store.links import Link
from taskrunner.store.listen import Listener
from tests.servers import Server
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
NEVER = (3600.0, 3600.0)


class Held:
    """A worker with a job that runs until it is told to end, and a runner of another process that waits for it."""

    def __init__(self, make_runner: MakeRunner) -> None:
        self.worker, self.asker = make_runner(), make_runner()
        self.started, self.go = asyncio.Event(), asyncio.Event()
        self.worker.task(name="work")(self.work)

    async def work(self) -> str:
        self.started.set()
        await self.go.wait()
        return "heard"

    async def dispatch(self) -> Job[Any]:
        job = await self.worker.dispatch("work")
        await self.started.wait()
        return self.asker.job(job.id)


@pytest.fixture
def held(make_runner: MakeRunner) -> Held:
    return Held(make_runner)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[Any, int]:
    """How many commands each runner sent, by its deployment."""
    counted: dict[Any, int] = {}
    original = Link.call

    async def call(self: Any, *command: Any, **options: Any) -> Any:
        counted[self._deployment] = counted.get(self._deployment, 0) + 1
        return await original(self, *command, **options)

    monkeypatch.setattr(Link, "call", call)
    return counted


async def watched(client: redis.asyncio.Redis, keys: PartitionKeys, job: Job[Any]) -> bool:
    return bool(await client.hexists(keys.watchers, job.id))


async def test_a_waiter_hears_of_the_end_and_asks_no_more_than_a_handful_of_times(
    held: Held,
    calls: dict[Any, int],
    monkeypatch: pytest.MonkeyPatch,
    redis_client: redis.asyncio.Redis,
    keys: PartitionKeys,
) -> None:
    monkeypatch.setattr(session, "LOOK_AGAIN", NEVER)
    async with held.worker.start():
        job = await held.dispatch()
        waiting = asyncio.create_task(job.result(timeout=20))
        await eventually(lambda: watched(redis_client, keys, job))
        held.go.set()
        assert await waiting == "heard"
    assert calls[held.asker._deployment] <= 6, (
        "TIME, a look, a watch, and a watch after the notice; scripts once as text"
    )


async def test_a_hundred_waiters_for_one_job_all_hear_of_it(
    held: Held, monkeypatch: pytest.MonkeyPatch, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    monkeypatch.setattr(session, "LOOK_AGAIN", NEVER)
    async with held.worker.start():
        job = await held.dispatch()
        waiting = [asyncio.create_task(job.result(timeout=20)) for _ in range(100)]
        await eventually(lambda: len(held.asker.session()._waiters.get(job.id, ())) == 100)
        await eventually(lambda: watched(redis_client, keys, job))
        held.go.set()
        assert await asyncio.gather(*waiting) == ["heard"] * 100


async def test_a_notice_that_is_lost_with_its_connection_is_made_up_for_when_it_is_back(
    held: Held, monkeypatch: pytest.MonkeyPatch, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    monkeypatch.setattr(session, "LOOK_AGAIN", NEVER)
    async with held.worker.start():
        job = await held.dispatch()
        waiting = asyncio.create_task(job.result(timeout=20))
        await eventually(lambda: watched(redis_client, keys, job))
        assert await redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        held.go.set()
        assert await waiting == "heard"


async def test_a_notice_that_never_comes_is_made_up_for_by_looking(
    held: Held, monkeypatch: pytest.MonkeyPatch, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    monkeypatch.setattr(session, "LOOK_AGAIN", (0.05, 0.1))
    monkeypatch.setattr(session.Session, "_heard", lambda *_: None)
    async with held.worker.start():
        job = await held.dispatch()
        waiting = asyncio.create_task(job.result(timeout=20))
        await eventually(lambda: watched(redis_client, keys, job))
        held.go.set()
        assert await waiting == "heard"


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind_in_its_process(held: Held) -> None:
    async with held.worker.start():
        job = await held.dispatch()
        waiting = asyncio.create_task(job.result())
        await eventually(lambda: held.asker.session()._waiters)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert held.asker.session()._waiters == {}
        held.go.set()


@pytest.mark.parametrize("ticks", range(5))
async def test_a_waiter_that_is_cancelled_in_the_instant_of_a_notice_is_cancelled(held: Held, ticks: int) -> None:
    async with held.worker.start():
        job = await held.dispatch()
        waiting = asyncio.create_task(job.result())
        [heard] = await eventually(lambda: held.asker.session()._waiters.get(job.id))
        await eventually(lambda: heard._waiters)
        heard.set()  # a notice that says nothing new, as after a gap
        for _ in range(ticks):
            await asyncio.sleep(0)
        waiting.cancel()
        done, _ = await asyncio.wait([waiting], timeout=5)
        held.go.set()
        assert done
        assert waiting.cancelled()


async def test_a_waiter_hears_that_the_job_has_no_record(make_runner: MakeRunner) -> None:
    worker, asker = make_runner(), make_runner()
    go = asyncio.Event()

    @worker.task(ignore_result=True, unique=True)
    async def work() -> None:
        await go.wait()

    async with worker.start():
        job = await work.dispatch()
        waiting = asyncio.create_task(asker.job(job.id).result(timeout=20))
        await eventually(lambda: asker.session()._waiters)
        go.set()
        with pytest.raises(JobNotFound):
            await waiting


async def test_a_result_that_is_there_is_read_without_listening(held: Held) -> None:
    async with held.worker.start():
        job = await held.dispatch()
        held.go.set()
        await held.worker.job(job.id).wait(timeout=20)
        assert await job.result(timeout=20) == "heard"
    assert held.asker.session()._listening is None


async def test_a_job_that_ends_before_its_waiter_listens_is_found_by_its_first_look(
    held: Held, monkeypatch: pytest.MonkeyPatch, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    monkeypatch.setattr(session, "LOOK_AGAIN", NEVER)
    async with held.worker.start():
        job = await held.dispatch()

        async def has_ended() -> bool:
            return bool(await redis_client.exists(keys.job(job.id)))

        async def ready(*_: Any) -> bool:
            held.go.set()
            return bool(await eventually(has_ended))

        monkeypatch.setattr(Listener, "ready", ready)
        assert await job.result(timeout=20) == "heard"


async def test_who_can_not_listen_at_all_finds_the_result_by_looking(
    held: Held, monkeypatch: pytest.MonkeyPatch, redis_client: redis.asyncio.Redis, keys: PartitionKeys
) -> None:
    async def never(*_: Any) -> bool:
        await asyncio.Event().wait()
        return False

    async def not_yet(*_: Any) -> bool:
        return False

    monkeypatch.setattr(session, "LOOK_AGAIN", (0.05, 0.1))
    async with held.worker.start():
        job = await held.dispatch()
        monkeypatch.setattr(Listener, "listen", never)
        monkeypatch.setattr(Listener, "ready", not_yet)
        waiting = asyncio.create_task(job.result(timeout=20))
        await eventually(lambda: watched(redis_client, keys, job))
        held.go.set()
        assert await waiting == "heard"


async def test_a_waiter_whose_connection_dies_again_and_again_gives_up_at_its_timeout_and_not_later(
    held: Held, redis_client: redis.asyncio.Redis
) -> None:
    over = asyncio.Event()

    async def kill() -> None:
        while not over.is_set():
            await redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.02)

    async with held.worker.start():
        job = await held.dispatch()
        killing = asyncio.create_task(kill())
        async with asyncio.timeout(20):
            with pytest.raises(ResultTimeout, match="goes on"):
                await job.result(timeout=1)
        over.set()
        await killing
        assert held.asker.session()._waiters == {}
        held.go.set()
        assert await job.result(timeout=20) == "heard"


@pytest.mark.crash
async def test_a_waiter_gives_up_at_its_timeout_while_the_server_says_nothing(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    async with Server(tmp_path / "server") as server:
        held = Held(partial(make_runner, server.url))
        async with held.worker.start():
            job = await held.dispatch()
            waiting = asyncio.create_task(job.result(timeout=2))
            await eventually(lambda: held.asker.session()._waiters)
            server.pause()
            try:
                async with asyncio.timeout(20):
                    with pytest.raises(ResultTimeout):
                        await waiting
                    with pytest.raises(ResultTimeout):
                        await job.result(timeout=0.2)
            finally:
                server.resume()
            held.go.set()
            assert await job.result(timeout=20) == "heard"
        await held.asker.aclose()
        await held.worker.aclose()


@pytest.mark.parametrize("notices", [True, False], ids=["notified", "by looking"])
async def test_a_waiter_that_comes_too_late_for_a_short_lived_result_hears_that_it_is_gone(
    make_runner: MakeRunner,
    monkeypatch: pytest.MonkeyPatch,
    redis_client: redis.asyncio.Redis,
    keys: PartitionKeys,
    notices: bool,
) -> None:
    heard = session.Session._heard

    def late(self: session.Session, channel: str, data: bytes) -> None:
        if notices:
            asyncio.get_running_loop().call_later(0.1, heard, self, channel, data)

    monkeypatch.setattr(session.Session, "_heard", late)
    monkeypatch.setattr(session, "LOOK_AGAIN", NEVER if notices else (0.3, 0.3))
    worker, asker, go = make_runner(result_ttl=0.001), make_runner(), asyncio.Event()

    @worker.task
    async def work() -> None:
        await go.wait()

    async with worker.start():
        job = await work.dispatch()
        waiting = asyncio.create_task(asker.job(job.id).result(timeout=20))
        await eventually(lambda: watched(redis_client, keys, job))
        go.set()
        with pytest.raises(JobNotFound):
            await waiting
