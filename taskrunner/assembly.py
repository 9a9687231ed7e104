"""The makers of workflows: ``chain(...)``, ``group(...)`` and ``group.map(...)``; a ``Graph`` is made by its class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar, overload

from .errors import WorkflowError
from .task import BoundTask, JobSpec, Task, Valued
from .workflow import Chain, Group, Mapped, Part, hint

R = TypeVar("R")
Item_contra = TypeVar("Item_contra", contravariant=True)


@overload
def chain(*steps: Valued[R], id: str | None = None) -> Chain[R]: ...
@overload
def chain(*steps: *tuple[*tuple[Valued[Any], ...], Valued[R]], id: str | None = None) -> Chain[R]: ...
@overload
def chain(*steps: Valued[Any], id: str | None = None) -> Chain[Any]: ...


def chain(*steps: Any, id: str | None = None) -> Chain[Any]:  # type: ignore[misc] # mypy misreads the second one
    """Steps one after the other: each starts when the one before it has succeeded, in the same atomic step.

        job = await runner.dispatch(chain(fetch.job(url), parse.job(), store.job()))
        await job.result()

    A step sees the value of the one before it as ``ctx.previous``; that of a group or a graph is a list. When a step
    fails, expires or is cancelled, those after it never exist. A chain as a step stands for its steps.

    ``id`` names the workflow: while one of that id is known, dispatching another gives the handle of the first. Raises
    WorkflowError for fewer than two steps, and for what can't be a step; TaskOptionError for an id that isn't a
    printable string of 1 to 200 characters.
    """
    return Chain(steps, id)


class Mappable(Protocol[Item_contra, R]):
    """A task, or a task with options, that can be called with one argument."""

    def job(self, item: Item_contra, /) -> JobSpec[R]: ...


class GroupMaker:
    """Members that run all at once.

        await runner.dispatch(group(resize.job(100), resize.job(800), then=publish.job(), on_failure=clean_up.job()))
        await runner.dispatch(group.map(resize, range(100_000)))

    When one has failed, so has the group, and the others go on; with ``cancel_on_failure=True`` they are cancelled.
    ``then`` starts when all have succeeded, with the list of their values in order as ``ctx.previous``. ``on_failure``
    starts when all have ended, and not all have succeeded; its list has None in place of the values that are missing.
    Both may be any part of a workflow; what becomes of them changes neither the status of the group nor its value.
    A group without members succeeds at once.

    ``id`` names the workflow: while one of that id is known, dispatching another gives the handle of the first. Raises
    WorkflowError for what can't be a member; TaskOptionError for an id that isn't a printable string of 1 to 200
    characters.
    """

    @overload
    def __call__(
        self,
        *members: Valued[R],
        then: Part | None = None,
        on_failure: Part | None = None,
        cancel_on_failure: bool = False,
        id: str | None = None,
    ) -> Group[R]: ...
    @overload
    def __call__(
        self,
        *members: Valued[Any],
        then: Part | None = None,
        on_failure: Part | None = None,
        cancel_on_failure: bool = False,
        id: str | None = None,
    ) -> Group[Any]: ...

    def __call__(
        self,
        *members: Any,
        then: Part | None = None,
        on_failure: Part | None = None,
        cancel_on_failure: bool = False,
        id: str | None = None,
    ) -> Group[Any]:
        """A group of the members given; see the class."""
        return Group(members, then, on_failure, cancel_on_failure, id)

    def map(
        self,
        task: Mappable[Item_contra, R],
        iterable: Iterable[Item_contra],
        *,
        then: Part | None = None,
        on_failure: Part | None = None,
        cancel_on_failure: bool = False,
        id: str | None = None,
    ) -> Group[R]:
        """A group with a job of one task, or a task with options, for each item, which is its only argument.

        The items are read once, when the group is dispatched, and never all in memory: a generator may make them.
        Raises WorkflowError for what is no task or can't be iterated, and for a task with an ``id``.
        """
        if not isinstance(task, Task | BoundTask):
            raise WorkflowError(f"group.map takes a task and the items, and {task!r} is no task; {hint(task)}")
        if not isinstance(iterable, Iterable):
            raise WorkflowError(f"the items of group.map must be iterable, not {iterable!r}")
        template: JobSpec[R] = task.job()
        if template.plan.id is not None:
            raise WorkflowError("all jobs of group.map would have the id of its task with options; leave the id out")
        return Group(Mapped(template, iterable), then, on_failure, cancel_on_failure, id)


group = GroupMaker()
