"""Tasks are registered and declared once, with options that exist, and are found by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from taskrunner import DuplicateTask, JobContext, Task, TaskOptionError, TaskRunner, UnknownTask

MakeRunner = Callable[..., TaskRunner]


async def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


async def test_the_decorated_function_stays_callable_as_it_was(runner: TaskRunner) -> None:
    task = runner.task(add)
    assert isinstance(task, Task)
    assert await task(1) == 3
    assert await task(1, b=5) == 6
    assert (task.__name__, task.__doc__, task.__wrapped__) == ("add", "Adds.", add)
    assert (task.name, task.queue) == ("add", "default")


def test_a_plain_function_stays_callable_as_it_was(runner: TaskRunner) -> None:
    @runner.task
    def double(ctx: JobContext | None, n: int) -> int:
        return 2 * n

    assert double(None, 4) == 8  # type: ignore[call-arg]


def test_a_declared_task_can_not_be_called_and_says_so(runner: TaskRunner) -> None:
    with pytest.raises(TypeError, match="only declared here"):
        runner.declare("elsewhere")()


def test_the_name_is_the_functions_unless_another_is_given(runner: TaskRunner) -> None:
    assert runner.task(name="sum of two")(add).name == "sum of two"
    assert set(runner.tasks) == {"sum of two"}


@pytest.mark.parametrize("second", ["task", "declare"])
def test_a_name_registered_twice_is_refused(runner: TaskRunner, second: str) -> None:
    runner.task(add)
    with pytest.raises(DuplicateTask, match="there is a task 'add' already; give one of them another name="):
        runner.task(add) if second == "task" else runner.declare("add")


async def test_one_function_can_be_two_tasks_and_tasks_of_two_runners(make_runner: MakeRunner) -> None:
    one, two = make_runner(), make_runner()
    one.task(add)
    one.task(name="again")(add)
    two.task(add)
    async with one.start():
        assert await (await two.dispatch("add", 1)).result(timeout=10) == 3
        assert await (await one.dispatch("again", 2)).result(timeout=10) == 4


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\x00", 7], ids=ascii)
def test_a_name_must_be_printable_and_of_at_most_200_characters(runner: TaskRunner, name: Any) -> None:
    with pytest.raises(TaskOptionError, match="name"):
        runner.declare(name)


@pytest.mark.parametrize(
    "name", ["mail.send", "a b", "é漢", "{x}:*?", "x" * 200], ids=["dot", "space", "é", "keys", "long"]
)
async def test_any_other_name_works(runner: TaskRunner, name: str) -> None:
    runner.task(name=name)(add)
    async with runner.start():
        job = await runner.dispatch(name, 1)
        assert await job.result(timeout=10) == 3
        assert (await job.info()).task == name
        assert (await runner.stats()).per_task[name].succeeded == 1


def test_something_without_a_name_needs_one(runner: TaskRunner) -> None:
    with pytest.raises(TaskOptionError, match="give the task one with name="):
        runner.task(functools.partial(add, 1))


async def test_a_partial_of_a_coroutine_function_is_a_task(runner: TaskRunner) -> None:
    task = runner.task(name="three")(functools.partial(add, 1))
    async with runner.start():
        assert await (await task.dispatch()).result(timeout=10) == 3


@pytest.mark.parametrize("what", ["name", 5, None])
def test_a_name_in_place_of_the_function_is_explained(runner: TaskRunner, what: Any) -> None:
    if what is None:
        assert callable(runner.task())
        return
    with pytest.raises(TaskOptionError, match="a name goes into name="):
        runner.task(what)


@pytest.mark.parametrize("option", ["max_retries", "lock_keys", "delay", "id", "prio", "headers"])
def test_an_option_that_a_task_can_not_have_is_refused_with_those_it_can(runner: TaskRunner, option: str) -> None:
    with pytest.raises(TaskOptionError, match=rf"'{option}' here; there are .*max_retry.*unique_key"):
        runner.task(**{option: 1})(add)  # type: ignore[call-overload]
    assert runner.tasks == {}


@pytest.mark.parametrize("option", ["max_retries", "retry_on", "on_success", "reservation_timeout", "prio"])
def test_an_option_that_a_dispatch_can_not_have_is_refused(runner: TaskRunner, option: str) -> None:
    task = runner.task(add)
    with pytest.raises(TaskOptionError, match=f"dispatch of task 'add': there is no option '{option}' here"):
        task.with_options(**{option: 1})


@pytest.mark.parametrize("queue", ["", "a b", "a:b", "{x}", "x" * 65, 7], ids=ascii)
def test_a_queue_must_have_a_plain_name(runner: TaskRunner, queue: Any) -> None:
    with pytest.raises(TaskOptionError, match="queue must be 1 to 64"):
        runner.declare("work", queue=queue)
    with pytest.raises(TaskOptionError, match="queue must be 1 to 64"):
        runner.declare("other").with_options(queue=queue)


# -- dispatch by name -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dispatcher", ["runner", "with_options"])
async def test_a_name_that_nobody_registered_is_refused_with_the_nearest(runner: TaskRunner, dispatcher: str) -> None:
    runner.declare("send_mail")
    by = runner if dispatcher == "runner" else runner.with_options(delay=1)
    with pytest.raises(
        UnknownTask, match=r"no task 'send_mial' is registered or declared here; did you mean 'send_mail'\?"
    ):
        await by.dispatch("send_mial")
    with pytest.raises(UnknownTask, match=r"no task 'xyz' is registered or declared here$"):
        await by.dispatch("xyz")


async def test_a_task_that_lives_elsewhere_is_declared_and_dispatched_by_name(make_runner: MakeRunner) -> None:
    producer, worker = make_runner(), make_runner()
    producer.declare("add", max_retry=0)
    worker.task(add)
    async with worker.start():
        assert await (await producer.dispatch("add", 1, b=3)).result(timeout=10) == 4


async def test_a_producer_consumes_nothing_for_a_task_that_it_only_declares(make_runner: MakeRunner) -> None:
    producer, worker = make_runner(), make_runner()
    producer.declare("add", queue="sums")
    worker.task(queue="sums")(add)
    async with producer.start():
        job = await producer.dispatch("add", 1)
        async with worker.start():
            assert await job.result(timeout=10) == 3


async def test_options_of_a_dispatch_do_not_stick_to_the_task(runner: TaskRunner) -> None:
    task = runner.task(add)
    bound = task.with_options(id="one", max_retry=0)
    async with runner.start():
        assert (await bound.dispatch(1)).id == "one"
        assert (await task.dispatch(1)).id != "one"
        by_name = await runner.with_options(id="two").dispatch("add", 1)
        assert by_name.id == "two"
        for id in ("one", "two"):
            assert await runner.job(id).result(timeout=10) == 3
    assert task.options["max_retry"] == 3


@pytest.mark.parametrize(
    "setting",
    [
        {"namespace": "a b"},
        {"queue": ""},
        {"key_prefix": "{"},
        {"num_workers": 0},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"reservation_timeout": 0},
        {"reservation_timeout": 0.05},
        {"replication_factor": 0},
        {"result_ttl": 0},
        {"shutdown_timeout": -1},
        {"max_deliveries": 0},
        {"max_payload": 0},
        {"partitions": 0},
        {"delete_on_ack": 1},
        {"serializer": object()},
        {"long_queue_threshold": -1},
        {"long_queue_hook": 5},
        {"failed_task_handler": "tell"},
        {"consumer_group": "a:b"},
        {"consumers_prefix": ""},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_a_wrong_setting_of_a_runner_is_refused_by_its_name(setting: dict[str, Any]) -> None:
    with pytest.raises(TaskOptionError, match=next(iter(setting))):
        TaskRunner("redis://127.0.0.1:1", **setting)
