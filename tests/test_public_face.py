"""What ``from taskrunner import …`` gives is what is promised: complete, sorted, explained."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import taskrunner
from taskrunner import TaskRunnerError, errors

PROMISED = {
    "the runner": {
        "TaskRunner",
        "Task",
        "JobSpec",
        "Job",
        "JobStatus",
        "JobInfo",
        "JobProgress",
        "JobUpdate",
        "Backoff",
    },
    "schedules": {"Schedule"},
    "workflows": {
        *("chain", "group", "Chain", "Group", "Graph", "GraphNode", "WorkflowError"),
        *("ChainJob", "ChainInfo", "GroupJob", "GroupInfo", "GraphJob", "GraphInfo"),
    },
    "limits": {"Limit", "Rate", "Limiter", "Slot", "Holder", "LimitReached", "SlotLost"},
    "in a job": {"JobContext", "current_job", "Retry", "Snooze", "GiveUp"},
    "hooks and figures": {"JobEvent", "CallNext", "FailedJob", "QueueStats", "TaskStats"},
    "errors of the server": {
        "RedisError",
        "RedisUnavailable",
        "QueueFull",
        "DispatchUncertain",
        "RedisConfigurationError",
        "EmbeddedServerError",
    },
    "errors of use": {
        *("QueueConflict", "ScheduleError", "ScheduleExists"),
        "UsageError",
        "TaskOptionError",
        "DuplicateTask",
        "UnknownTask",
        "AlreadyStarted",
        "NotInJob",
    },
    "errors of jobs": {
        *("TaskRunnerError", "PayloadError", "PayloadTooLarge", "JobError", "JobFailed", "JobCancelled", "JobExpired"),
        *("JobNotFound", "ResultNotKept", "ResultTimeout", "JobTimeout", "ProcessCrashed"),
        *("NotFound", "UniqueConflict", "QueueBusy"),
    },
    "errors of local tasks": {"TaskInProgress", "TaskTimeout", "TaskCancelled", "RetriesExceeded", "PoolStopped"},
    "version": {"__version__"},
}
NAMES = set[str]().union(*PROMISED.values())
EXPLAINED = sorted(NAMES - {"__version__"})


def test_all_is_exactly_what_is_promised() -> None:
    assert set(taskrunner.__all__) == NAMES
    assert len(taskrunner.__all__) == len(NAMES), "each once"


def test_all_is_sorted() -> None:
    assert list(taskrunner.__all__) == sorted(taskrunner.__all__)


def test_nothing_else_is_public_but_the_rooms_of_the_house() -> None:
    others = {name for name, value in vars(taskrunner).items() if not name.startswith("_") and name not in NAMES}
    assert all(inspect.ismodule(getattr(taskrunner, name)) for name in others), others


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_name_has_a_docstring(name: str) -> None:
    thing = getattr(taskrunner, name)
    assert thing.__doc__
    assert not thing.__doc__.startswith(f"{name}("), "a dataclass without one gets its signature as docstring"
    assert len(thing.__doc__) >= 15


def public_methods() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in (
        "TaskRunner",
        "Task",
        "Job",
        "JobContext",
        "Backoff",
        "QueueStats",
        "ChainJob",
        "GroupJob",
        "GraphJob",
    ):
        kind = getattr(taskrunner, name)
        for member, value in inspect.getmembers(kind):
            if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                found.append((f"{name}.{member}", value))
    return found


OBVIOUS = {"job_id", "task", "queue", "attempt", "max_retry", "deliveries", "state", "runner"}
"""Attributes of JobContext that the docstring of the class explains together."""


@pytest.mark.parametrize(("name", "value"), public_methods(), ids=[name for name, _ in public_methods()])
def test_every_public_method_has_a_docstring(name: str, value: Any) -> None:
    owner, _, member = name.partition(".")
    if owner == "JobContext" and member in OBVIOUS:
        assert f"``{member}``" in (taskrunner.JobContext.__doc__ or "")
    elif name not in ("Task.plan", "Task.recipe", "Task.send", "Task.handle", "Task.origin"):  # between our own rooms
        assert inspect.getdoc(value), name


# -- errors -----------------------------------------------------------------------------------------------------------


def all_errors() -> dict[str, type[Exception]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }


def test_every_error_has_the_root_and_is_public() -> None:
    assert all(issubclass(kind, TaskRunnerError) for kind in all_errors().values())
    assert set(all_errors()) - NAMES == {"Signal"}, "which nobody catches or raises as such"


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    assert errors.__doc__ is not None
    parents: list[tuple[int, str]] = [(-1, "TaskRunnerError")]
    drawn: dict[str, str] = {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"([│ ]*)[├└]── (\w+)", line)
        if match:
            depth, name = len(match.group(1)), match.group(2)
            while parents[-1][0] >= depth:
                parents.pop()
            drawn[name] = parents[-1][1]
            parents.append((depth, name))
    assert drawn == {
        name: kind.__mro__[1].__name__ for name, kind in all_errors().items() if kind is not TaskRunnerError
    }


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("TaskOptionError", ValueError),
        ("PayloadError", ValueError),
        ("UnknownTask", LookupError),
        ("JobNotFound", LookupError),
        ("ResultTimeout", TimeoutError),
        ("JobTimeout", TimeoutError),
        ("TaskTimeout", TimeoutError),
    ],
)
def test_errors_are_what_python_would_raise_too(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(taskrunner, name), builtin)


# -- the package -------------------------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_project_file() -> None:
    text = (Path(taskrunner.__file__).parents[1] / "pyproject.toml").read_text()
    assert f'version = "{taskrunner.__version__}"' in text


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(taskrunner.__file__).parent / "py.typed").is_file()
