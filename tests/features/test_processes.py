"""Plain functions in processes: their values, their errors, their deaths, and that none of them is left behind."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskrunner import Backoff, JobContext, JobFailed, JobStatus, TaskOptionError, TaskRunner, processes
from tests.features import process_tasks as tasks
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
end_in_dead_letters = pytest.mark.leaves("dead")
AT_ONCE = Backoff.constant(0)


def lives(pid: int) -> bool:
    """Whether there is such a process, and be it as a zombie."""
    return psutil.pid_exists(pid)


@pytest.fixture(autouse=True)
def no_process_left() -> Any:
    """What a test starts has ended when the runner has."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not [child for child in left if "process_main" in " ".join(child.cmdline()) or child.status() == "zombie"]


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """On any machine a worker has two processes: one that is hurt, and its neighbour."""
    monkeypatch.setattr(processes, "processors", lambda: 2)


async def read(path: Path) -> int:
    return int(await eventually(lambda: path.exists() and path.read_text()))


# -- values ---------------------------------------------------------------------------------------------------------


async def test_a_plain_function_runs_in_a_process_that_is_used_again(runner: TaskRunner) -> None:
    square = runner.task(pool="process")(tasks.square)
    async with runner.start():
        first = await (await square.dispatch(3)).result(timeout=30)
        second = await (await square.dispatch(4)).result(timeout=30)
        assert (first[0], second[0]) == (9, 16)
        assert first[1] == second[1] != os.getpid()
        assert lives(first[1])
    assert not lives(first[1])


async def test_arguments_arrive_as_the_types_of_the_signature(runner: TaskRunner) -> None:
    typed = runner.task(pool="process")(tasks.typed)
    async with runner.start():
        assert await (await typed.dispatch(tasks.Order(3))).result(timeout=30) == ["Order", "int"]


async def test_a_process_has_a_context_of_plain_data(make_runner: MakeRunner) -> None:
    runner = make_runner(state=object())
    task = runner.task(name="facts", queue="mail", pool="process", max_retry=7)(tasks.context)
    async with runner.start():
        job = await task.with_options(headers={"a": "b"}).dispatch(5)
        found = await job.result(timeout=30)
    assert found[:8] == [job.id, "facts", "mail", 1, 7, {"a": "b"}, False, 5]
    assert found[8:12] == [True, None, None, None]
    assert found[12] != os.getpid()


async def test_a_task_may_print_and_read_whatever_it_likes(
    runner: TaskRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = runner.task(pool="process", max_retry=0)(tasks.noise)
    async with runner.start():
        assert await (await noise.dispatch()).result(timeout=30) == ["", "", ""]
    assert sorted(capfd.readouterr().out.splitlines()) == ["from a program", "from print", "from the descriptor"]


async def test_a_program_that_the_task_starts_can_be_stopped_by_signals(runner: TaskRunner) -> None:
    ignored = runner.task(pool="process", max_retry=0)(tasks.ignored_signals)
    async with runner.start():
        assert await (await ignored.dispatch()).result(timeout=30) == [False, False]


async def test_a_middleware_goes_around_a_process_too(runner: TaskRunner) -> None:
    @runner.middleware
    async def outside(ctx: JobContext, call_next: Any) -> Any:
        result, pid = await call_next()
        return [ctx.task, result, pid != os.getpid()]

    square = runner.task(pool="process")(tasks.square)
    async with runner.start():
        assert await (await square.dispatch(3)).result(timeout=30) == ["square", 9, True]  # type: ignore[comparison-overlap]


# -- errors ---------------------------------------------------------------------------------------------------------


@end_in_dead_letters
@pytest.mark.parametrize(
    ("what", "error_type", "message"),
    [
        ("key", "KeyError", "'no such key'"),
        ("demanding", "Demanding", "5: no"),
        ("local", "Local", "from inside"),
        ("exit", "SystemExit", "enough"),
    ],
)
async def test_an_error_comes_back_with_its_type_its_text_and_its_traceback(
    runner: TaskRunner, what: str, error_type: str, message: str
) -> None:
    task = runner.task(pool="process", max_retry=0)(tasks.fail)
    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await (await task.dispatch(what)).result(timeout=30)
    assert (failed.value.error_type, failed.value.message) == (error_type, message)
    assert "process_tasks.py" in failed.value.traceback
    assert "in fail" in failed.value.traceback


@end_in_dead_letters
@pytest.mark.parametrize(
    ("options", "what", "runs"),
    [
        ({"retry_on": tasks.Demanding}, "demanding", 3),
        ({"retry_on": OSError}, "demanding", 1),
        ({"give_up_on": LookupError}, "key", 1),
        ({"give_up_on": ValueError}, "local", 1),
        ({"retry_on": ValueError}, "local", 3),
    ],
    ids=repr,
)
async def test_errors_of_a_process_are_judged_by_their_class(
    runner: TaskRunner, tmp_path: Path, options: dict[str, Any], what: str, runs: int
) -> None:
    task = runner.task(pool="process", max_retry=2, backoff=AT_ONCE, **options)(tasks.fail)
    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await (await task.dispatch(what, str(tmp_path / "runs"))).result(timeout=30)
    assert failed.value.attempts == runs


@pytest.mark.parametrize(("what", "attempts"), [("retry", 2), ("snooze", 1)])
async def test_a_process_may_ask_for_another_run(runner: TaskRunner, tmp_path: Path, what: str, attempts: int) -> None:
    task = runner.task(pool="process", max_retry=1, backoff=Backoff.constant(1000))(tasks.fail)
    async with runner.start():
        job = await task.dispatch(what, str(tmp_path / "runs"))
        assert await job.result(timeout=30) == "run 2"
        assert (await job.info()).attempts == attempts


@end_in_dead_letters
async def test_a_process_may_give_up(runner: TaskRunner) -> None:
    task = runner.task(pool="process", max_retry=5, backoff=AT_ONCE)(tasks.fail)
    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await (await task.dispatch("give up")).result(timeout=30)
    assert (failed.value.attempts, failed.value.message, failed.value.reason) == (1, "closed", "gave up")


@end_in_dead_letters
async def test_a_result_that_can_not_travel_fails_the_job_and_says_so(runner: TaskRunner) -> None:
    task = runner.task(pool="process", max_retry=5)(tasks.fail)
    async with runner.start():
        with pytest.raises(JobFailed, match="can't leave its process") as failed:
            await (await task.dispatch("result")).result(timeout=30)
        assert failed.value.reason == "its result can't be kept"
        assert await (await task.dispatch("nothing")).result(timeout=30) == "run 0"


# -- deaths ---------------------------------------------------------------------------------------------------------


@pytest.mark.crash
@end_in_dead_letters
@pytest.mark.parametrize(
    ("how", "message"),
    [("exit", "exit code 7"), ("kill", "SIGKILL"), ("segfault", "SIGSEGV"), ("fork", "SIGKILL")],
)
async def test_a_process_that_dies_fails_its_job_and_no_other(
    runner: TaskRunner, tmp_path: Path, how: str, message: str
) -> None:
    die = runner.task(pool="process", max_retry=0)(tasks.die)
    hold = runner.task(pool="process")(tasks.hold)
    square = runner.task(pool="process")(tasks.square)
    async with runner.start():
        neighbour = await hold.dispatch(str(tmp_path / "pid"), str(tmp_path / "go"))
        pid = await read(tmp_path / "pid")
        with pytest.raises(JobFailed, match=message) as failed:
            await (await die.dispatch(how)).result(timeout=30)
        assert failed.value.error_type == "ProcessCrashed"
        assert lives(pid)
        (tmp_path / "go").touch()
        assert await neighbour.result(timeout=30) == "gone"
        assert (await (await square.dispatch(5)).result(timeout=30))[0] == 25


@pytest.mark.crash
async def test_a_job_whose_process_died_is_tried_again(runner: TaskRunner, tmp_path: Path) -> None:
    die = runner.task(pool="process", max_retry=1, backoff=AT_ONCE)(tasks.die)
    async with runner.start():
        job = await die.dispatch("kill", str(tmp_path / "once"))
        assert await job.result(timeout=30) == "alive"
        assert (await job.info()).attempts == 2


@pytest.mark.crash
async def test_a_process_that_is_killed_while_it_has_nothing_to_do_is_replaced(runner: TaskRunner) -> None:
    square = runner.task(pool="process", max_retry=0)(tasks.square)
    async with runner.start():
        _, pid = await (await square.dispatch(1)).result(timeout=30)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not lives(pid) or psutil.Process(pid).status() == "zombie")
        again = await (await square.dispatch(2)).result(timeout=30)
        assert again[0] == 4
        assert again[1] != pid


@end_in_dead_letters
async def test_a_timeout_kills_the_process_and_the_next_job_has_another(runner: TaskRunner, tmp_path: Path) -> None:
    hold = runner.task(pool="process", max_retry=0, timeout=0.3)(tasks.hold)
    square = runner.task(pool="process")(tasks.square)
    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await (await hold.dispatch(str(tmp_path / "pid"), str(tmp_path / "never"))).result(timeout=30)
        assert failed.value.error_type == "JobTimeout"
        pid = await read(tmp_path / "pid")
        assert not lives(pid), "it is gone before its job has ended"
        assert (await (await square.dispatch(3)).result(timeout=30))[0] == 9


@end_in_dead_letters
async def test_a_timeout_kills_what_the_process_has_started_too(runner: TaskRunner, tmp_path: Path) -> None:
    start = runner.task(pool="process", max_retry=0, timeout=1)(tasks.start_program)
    async with runner.start():
        with pytest.raises(JobFailed):
            await (await start.dispatch(str(tmp_path / "pid"))).result(timeout=30)
        pid = await read(tmp_path / "pid")
        await eventually(lambda: not lives(pid) or psutil.Process(pid).status() == "zombie")


async def test_to_wait_for_a_process_is_no_part_of_the_timeout(
    make_runner: MakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.processes.processors", lambda: 1)
    runner = make_runner(num_workers=2)
    hold = runner.task(pool="process")(tasks.hold)
    square = runner.task(pool="process", timeout=0.5, max_retry=0)(tasks.square)
    async with runner.start():
        long = await hold.dispatch(str(tmp_path / "pid"), str(tmp_path / "go"))
        await read(tmp_path / "pid")
        short = await square.dispatch(3)
        await eventually(lambda: in_state(short, JobStatus.RUNNING))
        await asyncio.sleep(0.8)
        (tmp_path / "go").touch()
        assert await long.result(timeout=30) == "gone"
        assert (await short.result(timeout=30))[0] == 9


async def test_at_the_deadline_of_a_stop_the_process_is_killed_and_the_job_handed_back(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    runner = make_runner(shutdown_timeout=0.2)
    hold = runner.task(pool="process", max_retry=0)(tasks.hold)
    async with runner.start():
        job = await hold.dispatch(str(tmp_path / "pid"), str(tmp_path / "go"))
        pid = await read(tmp_path / "pid")
    assert not lives(pid)
    assert (await job.info()).status is JobStatus.QUEUED
    (tmp_path / "go").touch()
    async with runner.start():
        assert await job.result(timeout=30) == "gone"
        assert (await job.info()).attempts == 1


async def test_a_graceful_stop_waits_for_the_process(runner: TaskRunner, tmp_path: Path) -> None:
    hold = runner.task(pool="process")(tasks.hold)
    async with runner.start():
        job = await hold.dispatch(str(tmp_path / "pid"), str(tmp_path / "go"))
        pid = await read(tmp_path / "pid")
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)  # as a terminal or a service manager does to everybody
        asyncio.get_running_loop().call_later(0.2, (tmp_path / "go").touch)
    assert await job.result(timeout=30) == "gone"


# -- what can't be --------------------------------------------------------------------------------------------------


def refused(runner: TaskRunner, function: Any, why: str, **options: Any) -> None:
    with pytest.raises(TaskOptionError, match=why):
        runner.task(name="work", **options)(function)
    assert "work" not in runner.tasks


async def coroutine() -> None: ...


def test_what_can_not_run_in_a_process_is_refused_at_the_registration(runner: TaskRunner) -> None:
    def closure() -> None: ...

    refused(runner, tasks.square, "pool must be 'thread' or 'process', not 'fork'", pool="fork")
    refused(runner, tasks.square, "pool must be", pool=None)
    refused(runner, coroutine, "`async def` runs on the event loop", pool="process")
    refused(runner, closure, "defined inside another function", pool="process")
    refused(runner, lambda: 1, "a lambda has no name", pool="process")
    refused(runner, functools.partial(tasks.square, 1), "no name of its own", pool="process")


def test_a_task_that_is_only_declared_may_name_any_pool(runner: TaskRunner) -> None:
    assert runner.declare("elsewhere", pool="process").options["pool"] == "process"
    with pytest.raises(TaskOptionError, match="pool must be"):
        runner.declare("nowhere", pool="fork")  # type: ignore[arg-type]


async def test_a_function_that_another_one_hides_is_refused_at_the_start(runner: TaskRunner) -> None:
    def hidden() -> None: ...

    hidden.__module__, hidden.__qualname__ = tasks.__name__, "square"
    runner.task(pool="process")(hidden)
    with pytest.raises(TaskOptionError, match=r"process_tasks\.square is in its module is .* and not this task"):
        async with runner.start():
            pass


async def in_state(job: Any, status: JobStatus) -> bool:
    return (await job.status()) is status
