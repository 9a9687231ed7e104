"""Processes of programs: functions of the program itself, and what becomes of processes when their worker dies."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis.asyncio

from taskrunner import JobFailed, TaskRunner
from taskrunner.store.keys import Keyspace
from tests.programs import Program
from tests.waiting import eventually

HEAD = """
    import asyncio, os, sys, time
    from pathlib import Path
    from taskrunner import JobContext, TaskRunner

    runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], reservation_timeout=1)
"""
RUN = """
    if __name__ == "__main__":
        asyncio.run(runner.run())
"""
EXECUTE = "import os, sys; os.execv(sys.executable, [sys.executable, '-u', os.environ['SCRIPT']])"
"""Becomes the script, under the same process id; a program on the command line has no file to be read from."""

Start = Callable[..., Program]


@pytest.fixture
def script(program: Start, url: str, namespace: str, tmp_path: Path) -> Callable[..., Program]:
    def start(*parts: str, **environment: str) -> Program:
        path = tmp_path / "script.py"
        path.write_text("\n".join(textwrap.dedent(part) for part in parts))
        return program(EXECUTE, SCRIPT=str(path), URL=url, NAMESPACE=namespace, FOLDER=str(tmp_path), **environment)

    return start


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"


async def ended(worker: Program) -> None:
    worker.signal(signal.SIGTERM)
    assert await worker.ended(40) == 0


async def pid_in(path: Path) -> int:
    return int(await eventually(lambda: path.exists() and path.read_text()))


@pytest.mark.leaves("dead")
async def test_a_function_of_the_program_itself_runs_in_a_process(runner: TaskRunner, script: Start) -> None:
    worker = script(
        HEAD,
        """
        class Own(Exception): ...

        @runner.task(pool="process")
        def add(ctx: JobContext, a: int, b: int) -> list:
            return [ctx.task, a + b, os.getpid()]

        @runner.task(pool="process", max_retry=0, give_up_on=Own)
        def fail() -> None:
            raise Own("mine")
        """,
        RUN,
    )
    first = await (await runner.declare("add").dispatch(2, 3)).result(timeout=40)
    assert first[:2] == ["add", 5]
    with pytest.raises(JobFailed, match="mine") as failed:
        await (await runner.declare("fail").dispatch()).result(timeout=40)
    assert (failed.value.error_type, failed.value.reason) == ("Own", "Own is not retried")
    await ended(worker)


@pytest.mark.leaves("dead")
async def test_a_program_without_a_guard_is_told_to_have_one_and_starts_nothing_twice(
    runner: TaskRunner, script: Start
) -> None:
    worker = script(
        HEAD,
        """
        @runner.task(pool="process", max_retry=0)
        def work() -> None: ...

        asyncio.run(runner.run())
        """,
    )
    with pytest.raises(JobFailed, match="__main__") as failed:
        await (await runner.declare("work").dispatch()).result(timeout=40)
    assert failed.value.error_type == "UsageError"
    await ended(worker)


SPIN = {
    "python": "while True: pass",
    "native code that holds the interpreter lock": "sum(range(10**12))",
    "sleep": "time.sleep(600)",
}


@pytest.mark.crash
@pytest.mark.parametrize("kind", SPIN)
async def test_no_process_outlives_a_worker_that_is_killed(
    make_runner: Callable[..., TaskRunner],
    script: Start,
    tmp_path: Path,
    redis_client: redis.asyncio.Redis,
    kind: str,
) -> None:
    runner = make_runner(reservation_timeout=1)
    keys = Keyspace("taskrunner", runner.settings.namespace, 1).partitions[0]

    async def tidied_up() -> bool:
        consumers = await redis_client.xinfo_consumers(keys.queue("default").stream, "taskrunner")
        return len(consumers) == 1 and await redis_client.zcard(keys.workers) == 1

    @runner.task
    async def spin(path: str) -> str:
        return "elsewhere"

    worker = script(
        HEAD,
        f"""
        from taskrunner import processes

        processes.processors = lambda: 2  # on any machine there is an idle one beside the busy one

        @runner.task(pool="process")
        def spin(path: str) -> None:
            Path(path).write_text(str(os.getpid()))
            {SPIN[kind]}

        @runner.task(pool="process")
        def idle(path: str) -> None:
            Path(path).write_text(str(os.getpid()))
        """,
        RUN,
    )
    job = await spin.dispatch(str(tmp_path / "busy"))
    await (await runner.declare("idle").dispatch(str(tmp_path / "idle"))).result(timeout=40)
    pids = [await pid_in(tmp_path / "busy"), await pid_in(tmp_path / "idle")]
    assert all(map(lives, pids))
    os.kill(worker.pid, signal.SIGKILL)
    await eventually(lambda: not any(map(lives, pids)))
    async with runner.start():
        assert await job.result(timeout=40) == "elsewhere"
        await eventually(tidied_up)


async def test_an_interrupt_from_the_terminal_stops_gracefully(
    runner: TaskRunner, script: Start, tmp_path: Path
) -> None:
    """A terminal sends it to the whole group of the program."""
    worker = script(
        HEAD,
        """
        os.setpgid(0, 0)

        @runner.task(pool="process", max_retry=0)
        def work(folder: str) -> str:
            Path(folder, "pid").write_text(str(os.getpid()))
            while not Path(folder, "go").exists():
                time.sleep(0.01)
            return "done"
        """,
        RUN,
    )
    job = await runner.declare("work").dispatch(str(tmp_path))
    pid = await pid_in(tmp_path / "pid")
    os.killpg(worker.pid, signal.SIGINT)
    os.kill(pid, signal.SIGINT)
    (tmp_path / "go").touch()
    assert await job.result(timeout=40) == "done"
    assert await worker.ended(40) == 0
    assert not lives(pid)
