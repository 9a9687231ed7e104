"""``taskrunner run``: workers are supervised, replaced, and drained."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis.asyncio

from taskrunner import JobStatus, TaskRunner
from taskrunner.cli.supervisor import pause_before
from taskrunner.cli.worker import SAME_REQUEST
from tests.cli.terminal import Command
from tests.waiting import eventually

Start = Callable[..., Command]


@pytest.mark.crash
async def test_a_killed_worker_is_replaced_and_the_new_one_works(
    command: Start, declared: TaskRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    running = command("run", "app:runner", "--processes", "2")
    first, second = await running.consuming(2)
    os.kill(first, signal.SIGKILL)
    third = (await running.consuming(3))[2]
    assert running.told(f"worker {first} was killed by SIGKILL; a new one starts at once")()

    async def who_answered() -> set[int]:
        jobs = [await declared.dispatch("whoami") for _ in range(20)]
        return {await job.result(timeout=10) for job in jobs}

    await eventually(lambda: _contains(who_answered(), third))

    await eventually(lambda: _consumers(redis_client, namespace, 2))
    running.process.send_signal(signal.SIGTERM)
    assert await running.ended() == 0
    assert all(map(_gone, (second, third)))


async def _contains(found: Any, wanted: int) -> bool:
    return wanted in await found


async def _consumers(client: redis.asyncio.Redis, namespace: str, number: int) -> bool:
    """Whether there are so many consumers and no others, in the group and in the register of workers."""
    [group] = await client.xinfo_groups(f"taskrunner:{{{namespace}.0}}:stream:default")
    registered = await client.zcard(f"taskrunner:{{{namespace}.0}}:workers")
    return bool(group["consumers"] == registered == number)


async def test_sigterm_lets_a_running_job_finish(command: Start, declared: TaskRunner, folder: Path) -> None:
    running = command("run", "app:runner", "--processes", "2")
    await running.consuming(2)
    job = await declared.dispatch("hold")
    await eventually((folder / "started").exists)
    running.process.send_signal(signal.SIGTERM)
    await eventually(running.told("stopping 2 workers"))
    (folder / "gate").touch()
    assert await running.ended() == 0
    assert await job.result(timeout=10) == "held"
    assert (await job.info()).attempts == 1


@pytest.mark.parametrize("task", ["hold", "hold_thread"])
async def test_a_second_signal_hands_a_running_job_back_at_once(
    command: Start, declared: TaskRunner, folder: Path, make_runner: Callable[..., TaskRunner], task: str
) -> None:
    running = command("run", "app:runner")
    await running.consuming()
    job = await declared.dispatch(task)
    await eventually((folder / "started").exists)
    running.process.send_signal(signal.SIGINT)
    await eventually(running.told("stopping 1 workers"))
    await asyncio.sleep(SAME_REQUEST * 1.2)  # sooner, it would be the same request
    running.process.send_signal(signal.SIGINT)
    assert await running.ended() == 0
    assert await job.status() is JobStatus.QUEUED
    other = make_runner()
    other.register(lambda: "elsewhere", task, {})
    async with other.start():
        assert await job.result(timeout=10) == "elsewhere"


@pytest.mark.crash
async def test_a_third_signal_kills_a_worker_that_does_not_react(
    command: Start,
    declared: TaskRunner,
    folder: Path,
    make_runner: Callable[..., TaskRunner],
    redis_client: redis.asyncio.Redis,
    namespace: str,
) -> None:
    running = command("run", "app:runner")
    [worker] = await running.consuming()
    job = await declared.dispatch("wedge")
    await eventually((folder / "started").exists)
    for reaction in ("stopping 1 workers", "1 workers hand back what they run", "killing 1 workers"):
        running.process.send_signal(signal.SIGTERM)
        await eventually(running.told(reaction))
        await asyncio.sleep(SAME_REQUEST * 1.2)  # sooner, the next would be the same request
    assert await running.ended() == 1
    assert running.told(f"worker {worker} was killed by SIGKILL")()
    other = make_runner(reservation_timeout=0.5)
    other.register(lambda: "elsewhere", "wedge", {})
    async with other.start():
        assert await job.result(timeout=10) == "elsewhere"
        await eventually(lambda: _consumers(redis_client, namespace, 1))


async def test_a_service_manager_that_signals_every_process_asks_only_once(
    command: Start, declared: TaskRunner, folder: Path
) -> None:
    running = command("run", "app:runner")
    [worker] = await running.consuming()
    job = await declared.dispatch("hold")
    await eventually((folder / "started").exists)
    os.kill(worker, signal.SIGTERM)
    running.process.send_signal(signal.SIGTERM)
    await eventually(running.told("stopping 1 workers"))
    (folder / "gate").touch()
    assert await running.ended() == 0
    assert await job.result(timeout=10) == "held"


@pytest.mark.crash
async def test_workers_drain_and_end_when_their_supervisor_is_killed(
    command: Start, declared: TaskRunner, folder: Path
) -> None:
    running = command("run", "app:runner", "--processes", "2")
    workers = await running.consuming(2)
    job = await declared.dispatch("hold")
    await eventually((folder / "started").exists)
    running.process.kill()
    # One of them has nothing to do and ends; the other has a job, which it may finish.
    await eventually(lambda: sum(map(_gone, workers)) == 1)
    (folder / "gate").touch()
    await eventually(lambda: all(map(_gone, workers)))
    assert await job.result(timeout=10) == "held"


async def test_workers_that_die_quickly_are_replaced_ever_more_slowly(command: Start, folder: Path) -> None:
    (folder / "mortal.py").write_text("import os\nos._exit(3)\n")
    running = command("run", "mortal:runner")
    for pause in ("at once", "in 0.5 s", "in 1 s"):
        await eventually(running.told(f"ended with exit code 3; a new one starts {pause}"))
    running.process.send_signal(signal.SIGTERM)
    assert await running.ended() == 0


def test_the_pause_before_a_replacement_grows_to_half_a_minute_and_no_further() -> None:
    assert [pause_before(quick) for quick in (0, 1, 2, 3, 4, 8, 9, 100_000)] == [0, 0, 0.5, 1, 2, 30, 30, 30]


async def test_processes_of_an_embedded_runner_share_one_server(command: Start, folder: Path, namespace: str) -> None:
    running = command("run", "app:runner", "--processes", "2", URL="embedded://")
    workers = await running.consuming(2)
    servers = {(folder / f"server-{pid}").read_text() for pid in workers}
    assert len(servers) == 1
    async with TaskRunner(servers.pop(), namespace=namespace) as runner:
        runner.declare("whoami")
        assert await (await runner.dispatch("whoami")).result(timeout=10) in workers
    running.process.send_signal(signal.SIGTERM)
    assert await running.ended() == 0


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("app", "'app' names no runner: write module:attribute, such as app:runner"),
        ("app.py:runner", "'app.py' is a file: give the module's name, as in app:runner"),
        ("nowhere:runner", "there is no module 'nowhere', neither in"),
        ("app:runer", "module 'app' has no 'runer'; did you mean app:runner?"),
        ("app:not_a_runner", "'app:not_a_runner' is no TaskRunner but of type int"),
        ("broken:runner", "importing 'broken' failed with ZeroDivisionError: division by zero"),
    ],
)
async def test_a_wrong_reference_is_one_clear_line(command: Start, folder: Path, reference: str, sentence: str) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    running = command("run", reference, "--processes", "3")
    assert await running.ended() == 2
    assert len(running.err) == 1
    assert sentence in running.err[0]
    assert running.out == []


async def test_a_wrong_password_is_one_clear_line(command: Start, url: str) -> None:
    running = command("run", "app:runner", "--processes", "2", URL=url.replace("://", "://nobody:secret@", 1))
    assert await running.ended() == 2
    [line] = running.err
    assert "check user name, password and ACL" in line
    assert "secret" not in line


async def test_uvloop_is_used_when_it_is_asked_for(command: Start, folder: Path, declared: TaskRunner) -> None:
    pytest.importorskip("uvloop")
    with (folder / "app.py").open("a") as app:
        app.write("\n@runner.task\nasync def loop() -> str:\n    return type(asyncio.get_running_loop()).__module__\n")
    running = command("run", "app:runner", "--uvloop")
    await running.consuming()
    declared.declare("loop")
    assert await (await declared.dispatch("loop")).result(timeout=10) == "uvloop"
    running.process.send_signal(signal.SIGTERM)
    assert await running.ended() == 0


@pytest.mark.leaves("stream:default", "live")
async def test_workers_consume_the_queues_that_are_asked_for(command: Start, declared: TaskRunner) -> None:
    running = command("run", "app:runner", "--queues", "mail, images")
    [worker] = await running.consuming()
    elsewhere = [declared.with_options(queue=queue) for queue in ("mail", "images")]
    waiting = await declared.dispatch("whoami")
    jobs = [await one.dispatch("whoami") for one in elsewhere]
    assert [await job.result(timeout=20) for job in jobs] == [worker] * 2
    assert await waiting.status() is JobStatus.QUEUED
    running.process.send_signal(signal.SIGTERM)
    assert await running.ended() == 0


@pytest.mark.parametrize("queues", ["", "a,", "a b", "mail/high", "a{b}"])
async def test_a_wrong_name_of_a_queue_is_one_clear_line(command: Start, queues: str) -> None:
    running = command("run", "app:runner", "--processes", "2", "--queues", queues)
    assert await running.ended() == 2
    [line] = running.err
    assert "queues must be 1 to 64 letters, digits or any of '_.-'" in line


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
