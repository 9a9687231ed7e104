"""Hooks are told what happens, in order and with the facts; what they do themselves changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Backoff, JobEvent, JobFailed, Snooze, TaskOptionError, TaskRunner
from taskrunner.envelope import Delivery, Envelope
from taskrunner.store.keys import Keyspace
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]
end_in_dead_letters = pytest.mark.leaves("dead")
Told = list[tuple[str, JobEvent]]


def listen(runner: TaskRunner, told: Told, *, sync: bool) -> None:
    """Registers a hook of each kind with the runner, which writes down what it is told."""
    for kind in ("start", "success", "failure", "retry"):

        def plain(event: JobEvent, kind: str = kind) -> None:
            told.append((kind, event))

        async def coroutine(event: JobEvent, kind: str = kind) -> None:
            await asyncio.sleep(0)
            told.append((kind, event))

        getattr(runner, f"on_{kind}")(plain if sync else coroutine)


@end_in_dead_letters
@pytest.mark.parametrize("sync", [True, False])
async def test_hooks_of_the_runner_are_told_of_every_run_and_its_end(runner: TaskRunner, sync: bool) -> None:
    told: Told = []
    listen(runner, told, sync=sync)

    @runner.task(max_retry=1, backoff=Backoff.constant(0))
    async def work(n: int, *, bad: bool) -> None:
        if bad:
            raise ValueError("bad")

    async with runner.start():
        good = await work.dispatch(1, bad=False)
        await good.result(timeout=10)
        bad = await work.dispatch(2, bad=True)
        with pytest.raises(JobFailed):
            await bad.result(timeout=10)
    assert [kind for kind, event in told if event.job_id == good.id] == ["start", "success"]
    assert [kind for kind, event in told if event.job_id == bad.id] == ["start", "retry", "start", "failure"]


@end_in_dead_letters
async def test_an_event_has_the_payload_the_duration_and_the_error(runner: TaskRunner) -> None:
    told: Told = []
    listen(runner, told, sync=True)

    @runner.task(max_retry=0, queue="mail")
    async def work(n: int, *, flag: bool) -> None:
        await asyncio.sleep(0.02)
        raise ValueError("bad")

    async with runner.start():
        job = await work.dispatch(7, flag=True)
        await job.wait(timeout=10)
    (_, start), (kind, failure) = told
    assert kind == "failure"
    assert (start.duration, start.error) == (0.0, None)
    assert (failure.job_id, failure.task, failure.queue, failure.attempt) == (job.id, "work", "mail", 1)
    assert failure.payload == ([7], {"flag": True})
    assert failure.duration >= 0.015
    assert failure.error is not None
    assert (failure.error.error_type, failure.error.message) == ("ValueError", "bad")


@end_in_dead_letters
async def test_on_failure_is_told_of_a_job_whose_workers_died(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis
) -> None:
    told: Told = []
    runner = make_runner(reservation_timeout=0.4, max_deliveries=1)
    listen(runner, told, sync=True)

    @runner.task
    async def work() -> None: ...

    job = await work.dispatch()
    stream = Keyspace("taskrunner", runner.settings.namespace, 1).partitions[0].queue("default").stream
    await redis_client.xgroup_create(stream, "taskrunner", "0")
    await redis_client.xreadgroup("taskrunner", "dead", {stream: ">"})

    async def gone() -> bool:
        return all(one["name"] != b"dead" for one in await redis_client.xinfo_consumers(stream, "taskrunner"))

    async with runner.start():
        with pytest.raises(JobFailed):
            await job.result(timeout=20)
        await eventually(gone)
    [(kind, event)] = told
    assert (kind, event.job_id, event.duration) == ("failure", job.id, 0.0)
    assert event.error is not None
    assert event.error.error_type == "DeliveryLimit"


@end_in_dead_letters
async def test_a_task_can_have_hooks_of_its_own(runner: TaskRunner) -> None:
    told = list[str]()

    async def on_retry(event: JobEvent) -> None:
        told.append("retry")

    @runner.task(
        max_retry=1,
        backoff=Backoff.constant(0),
        on_start=lambda event: told.append("start"),
        on_success=lambda event: told.append("success"),
        on_failure=lambda event: told.append("failure"),
        on_retry=on_retry,
    )
    async def work(bad: bool) -> None:
        if bad:
            raise ValueError

    @runner.task
    async def other() -> None: ...

    async with runner.start():
        await (await other.dispatch()).wait(timeout=10)
        await (await work.dispatch(False)).wait(timeout=10)
        assert told == ["start", "success"]
        await (await work.dispatch(True)).wait(timeout=10)
    assert told == ["start", "success", "start", "retry", "start", "failure"]


async def test_several_hooks_of_a_kind_are_called_in_the_order_of_their_registration(runner: TaskRunner) -> None:
    told = list[int]()
    for n in range(3):
        runner.on_success(lambda event, n=n: told.append(n))

    @runner.task(on_success=lambda event: told.append(99))
    async def work() -> None: ...

    async with runner.start():
        await (await work.dispatch()).wait(timeout=10)
    assert told == [0, 1, 2, 99]


async def test_a_snooze_is_neither_success_nor_failure_nor_retry(runner: TaskRunner) -> None:
    told: Told = []
    listen(runner, told, sync=True)
    runs = 0

    @runner.task
    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise Snooze(0)

    async with runner.start():
        await (await work.dispatch()).wait(timeout=10)
    assert [kind for kind, _ in told] == ["start", "start", "success"]


# -- hooks that misbehave -------------------------------------------------------------------------------------------


def failing(error: BaseException, *, sync: bool) -> Callable[..., Any]:
    def plain(*arguments: Any) -> None:
        raise error

    async def coroutine(*arguments: Any) -> None:
        await asyncio.sleep(0)
        raise error

    return plain if sync else coroutine


ERRORS = [ValueError("hook"), SystemExit(1), asyncio.CancelledError(), TimeoutError(), BaseException("bare")]


@end_in_dead_letters
@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_hook_that_fails_is_logged_and_changes_nothing(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture, error: BaseException, sync: bool
) -> None:
    runner, told = make_runner(num_workers=1), Told()
    for kind in ("start", "success", "failure", "retry"):
        getattr(runner, f"on_{kind}")(failing(error, sync=sync))
    listen(runner, told, sync=True)

    @runner.task(max_retry=1, backoff=Backoff.constant(0))
    async def work(bad: bool) -> str:
        if bad:
            raise ValueError("its own")
        return "fine"

    async with runner.start():
        assert await (await work.dispatch(False)).result(timeout=10) == "fine"
        with pytest.raises(JobFailed, match="its own") as failed:
            await (await work.dispatch(True)).result(timeout=10)
    assert failed.value.attempts == 2
    assert [kind for kind, _ in told] == ["start", "success", "start", "retry", "start", "failure"]
    records = [record for record in caplog.records if record.name == "taskrunner.hooks"]
    assert len(records) == 6
    assert all("failing" in record.message for record in records)


@pytest.mark.parametrize("sync", [True, False])
async def test_startup_and_shutdown_hooks_are_called_around_the_consuming_whatever_they_raise(
    runner: TaskRunner, sync: bool
) -> None:
    told = list[str]()
    runner.on_startup(failing(ValueError("hook"), sync=sync))
    runner.on_shutdown(failing(ValueError("hook"), sync=sync))

    @runner.on_startup
    async def startup() -> None:
        told.append(f"startup {runner.ready}")

    @runner.on_shutdown
    def shutdown() -> None:
        told.append(f"shutdown {runner.ready}")

    @runner.task
    async def work() -> None:
        told.append("work")

    async with runner.start():
        await (await work.dispatch()).wait(timeout=10)
    assert told == ["startup False", "work", "shutdown False"]


async def test_hooks_of_startup_and_shutdown_are_called_without_consuming_too(runner: TaskRunner) -> None:
    told = list[str]()
    runner.on_startup(lambda: told.append("startup"))
    runner.on_shutdown(lambda: told.append("shutdown"))
    async with runner.start(consume=False):
        assert told == ["startup"]
    assert told == ["startup", "shutdown"]


async def test_on_error_is_told_of_a_role_that_failed_and_the_role_goes_on(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskrunner.worker.promoter import Promoter

    told, original = list[tuple[str, str]](), Promoter._promote

    @runner.on_error
    async def on_error(role: str, error: BaseException) -> None:
        told.append((role, repr(error)))
        monkeypatch.setattr(Promoter, "_promote", original)

    async def broken(self: Any, queue: str) -> float:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Promoter, "_promote", broken)

    @runner.task
    async def work() -> int:
        return 1

    async with runner.start():
        await eventually(lambda: told)
        assert await (await work.with_options(delay=0.01).dispatch()).result(timeout=10) == 1
    assert told == [("promoter", "ZeroDivisionError('a bug')")]


def test_a_hook_of_a_task_must_be_a_function(runner: TaskRunner) -> None:
    with pytest.raises(TaskOptionError, match="on_success must be a function"):
        runner.declare("work", on_success="tell me")  # type: ignore[arg-type]


def test_the_decorators_give_the_function_back(runner: TaskRunner) -> None:
    def hook(*arguments: Any) -> None: ...

    names = [
        "on_start",
        "on_success",
        "on_failure",
        "on_retry",
        "on_cancel",
        "on_error",
        "on_startup",
        "on_shutdown",
        "on_long_queue",
    ]
    assert all(getattr(runner, name)(hook) is hook for name in names)
    assert runner.on_long_queue(threshold=1)(hook) is hook


async def test_a_hook_that_is_slow_does_not_hold_up_other_jobs(make_runner: MakeRunner) -> None:
    runner, go = make_runner(num_workers=2), asyncio.Event()

    async def slow(event: JobEvent) -> None:
        await go.wait()

    runner.task(name="slow", on_success=slow)(nothing)
    runner.task(name="quick")(nothing)
    async with runner.start():
        job = await runner.dispatch("slow")
        await (await runner.dispatch("quick")).result(timeout=10)
        go.set()
        await job.result(timeout=10)


async def nothing() -> None: ...


@pytest.mark.parametrize("sync", [True, False])
async def test_on_cancel_is_told_like_the_others_and_one_that_fails_is_contained(
    runner: TaskRunner, caplog: pytest.LogCaptureFixture, sync: bool
) -> None:
    told: Told = []

    def plain(event: JobEvent) -> None:
        told.append(("cancel", event))

    async def coroutine(event: JobEvent) -> None:
        plain(event)

    runner.on_cancel(failing(ValueError("hook"), sync=sync))
    runner.on_cancel(plain if sync else coroutine)
    announce = runner.hooks.announcer({}, {}, lambda delivery: ([7], {}), None)
    assert announce is not None
    envelope = Envelope("id", "work", 0, 0, 2, {}, b"[[7]]")
    await announce("cancel", Delivery(envelope, "mail", 0, b"1-0", 1, 0.0), None, 1.5)
    assert told == [("cancel", JobEvent("id", "work", "mail", 2, ([7], {}), 1.5, None))]
    assert "failing" in caplog.text
