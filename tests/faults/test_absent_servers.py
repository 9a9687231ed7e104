"""Servers that aren't there yet, aren't there any more, or let nobody in."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from taskrunner import RedisConfigurationError, RedisUnavailable, TaskRunner
from taskrunner.worker import worker as worker_module
from tests.faults.workshop import Fleet, Workshop
from tests.servers import Server
from tests.waiting import eventually

SECRET = "correct-horse-battery"


@pytest.fixture
def later_server(tmp_path: Path) -> Iterator[Server]:
    """A server that does not run yet."""
    server = Server(tmp_path / "later")
    yield server
    server.kill()


@pytest.fixture
async def locked_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with a password."""
    async with Server(tmp_path / "locked", "--requirepass", SECRET) as server:
        yield server


async def test_what_was_started_and_dispatched_before_the_server_existed_works_when_it_comes(
    later_server: Server, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet(later_server.url)
    worker = await fleet.worker()
    async with fleet.runner.start():
        early = asyncio.create_task(fleet.tasks.quick.dispatch("early"))
        await asyncio.sleep(0.5)
        assert not fleet.runner.ready
        assert not early.done()
        await later_server.start()
        assert await (await early).result(20) == "early"
        await eventually(lambda: fleet.runner.ready)
    await fleet.end(worker)
    assert "Traceback" not in fleet.log(worker)


async def test_closing_a_runner_ends_the_dispatches_that_wait_for_its_server(
    later_server: Server, make_runner: Callable[..., TaskRunner], tmp_path: Path
) -> None:
    runner = make_runner(later_server.url)
    workshop = Workshop(runner, tmp_path)
    waiting = [asyncio.create_task(workshop.quick.dispatch(n)) for n in range(3)]
    await asyncio.sleep(0.2)
    assert not any(one.done() for one in waiting)
    await asyncio.wait_for(runner.aclose(), 5)
    for one in waiting:
        with pytest.raises(RedisUnavailable):
            await one
    workshop.journal.close()


async def test_fail_fast_raises_at_once_when_there_is_no_server(
    later_server: Server, make_runner: Callable[..., TaskRunner]
) -> None:
    runner = make_runner(later_server.url)
    with pytest.raises(RedisUnavailable):
        async with asyncio.timeout(5), runner.start(fail_fast=True):
            pass


@pytest.mark.parametrize("password", ["", ":wrong-horse@"], ids=["no password", "a wrong password"])
@pytest.mark.parametrize("way", ["start", "dispatch"])
async def test_a_password_that_does_not_fit_is_one_clear_line_at_once(
    way: str, password: str, locked_server: Server, make_runner: Callable[..., TaskRunner], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    runner = make_runner(locked_server.url.replace("//", f"//{password}"))
    workshop = Workshop(runner, tmp_path)
    attempt = workshop.quick.dispatch if way == "dispatch" else runner.start().__aenter__
    with pytest.raises(RedisConfigurationError, match="password") as raised, caplog.at_level(logging.DEBUG):
        await asyncio.wait_for(attempt(), 5)
    workshop.journal.close()
    text = str(raised.value)
    assert "\n" not in text
    for told in (text, caplog.text):
        assert "horse" not in told


async def test_the_right_password_opens(
    locked_server: Server, make_runner: Callable[..., TaskRunner], tmp_path: Path
) -> None:
    runner = make_runner(locked_server.url.replace("//", f"//:{SECRET}@"))
    workshop = Workshop(runner, tmp_path)
    async with runner.start():
        assert await (await workshop.quick.dispatch("in")).result(20) == "in"
    workshop.journal.close()


async def test_a_password_that_appears_at_runtime_makes_it_unready_and_its_removal_makes_it_ready_again(
    fleet: Fleet, own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    fleet.runner.on_error(lambda role, error: told.append(f"{role}: {error}"))
    async with fleet.runner.start():
        running = await fleet.tasks.hold.dispatch("gate")
        await fleet.tasks.seen(1, "start", job=running.id)
        await eventually(lambda: fleet.runner.ready)
        async with own_server.client() as inside:
            await inside.config_set("requirepass", SECRET)
            await inside.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await eventually(lambda: not fleet.runner.ready)
            with pytest.raises(RedisConfigurationError):
                await fleet.tasks.quick.dispatch()
            await eventually(lambda: any(line.startswith("fetcher: ") and "password" in line for line in told))
            await inside.execute_command("AUTH", SECRET)
            await inside.config_set("requirepass", "")
        fleet.tasks.open_gate("gate")
        await eventually(lambda: fleet.runner.ready)
        assert await (await fleet.tasks.quick.dispatch("in")).result(20) == "in"
        await running.wait(20)
        assert len(fleet.journal.lines("start", job=running.id)) == 1
    assert SECRET not in caplog.text


async def test_a_password_that_is_changed_at_runtime_is_told_of_and_never_shown(
    locked_server: Server, make_fleet: Callable[..., Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet(locked_server.url.replace("//", f"//:{SECRET}@"))
    told: list[str] = []
    fleet.runner.on_error(lambda role, error: told.append(f"{role}: {error!r}"))
    with caplog.at_level(logging.DEBUG):
        async with fleet.runner.start():
            running = await fleet.tasks.hold.dispatch("gate")
            await fleet.tasks.seen(1, "start", job=running.id)
            async with locked_server.client(locked_server.url.replace("//", f"//:{SECRET}@")) as inside:
                await inside.config_set("requirepass", "battery-staple")
                await inside.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await eventually(lambda: not fleet.runner.ready)
                fleet.tasks.open_gate("gate")  # what has ended must be kept until it can be recorded
                await fleet.tasks.seen(1, "end", job=running.id)
                await eventually(lambda: any("fetcher" in line for line in told) and "heartbeat failed" in caplog.text)
                with pytest.raises(RedisConfigurationError, match="password"):
                    await fleet.tasks.quick.dispatch()
                await inside.config_set("requirepass", SECRET)
            await eventually(lambda: fleet.runner.ready)
            assert await (await fleet.tasks.quick.dispatch("in")).result(20) == "in"
            await running.wait(20)
    assert len(fleet.journal.lines("start", job=running.id)) == 1
    for text in (caplog.text, *told, repr(fleet.runner), repr(fleet.runner.session())):
        assert SECRET not in text
        assert "battery-staple" not in text


async def test_a_stop_while_the_server_is_away_ends_by_its_deadline_and_the_job_runs_when_it_is_back(
    make_fleet: Callable[..., Fleet], persistent_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(persistent_server.url, shutdown_timeout=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "RECORD_GRACE", 1.0)
        async with fleet.runner.start():
            job = await fleet.tasks.hold.dispatch("gate")
            await fleet.tasks.seen(1, "start")
            persistent_server.kill()
            began = time.monotonic()
    # Half a second for the job, one for recording that it goes back; the rest is for what was on its way meanwhile.
    assert time.monotonic() - began < 10
    assert fleet.journal.lines("cancelled", job=job.id)
    await persistent_server.start()
    fleet.tasks.open_gate("gate")
    async with fleet.runner.start():
        assert await job.result(20) == os.getpid()
    assert [line.deliveries for line in fleet.journal.lines("start")] == [1, 2]
