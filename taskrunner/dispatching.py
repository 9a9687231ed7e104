"""Dispatching: how jobs and workflows are sent from a runner."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from operator import attrgetter
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from .blueprint import Blueprint
from .envelope import new_id
from .errors import DispatchUncertain, JobNotFound, WorkflowError
from .form import form_of
from .job import Job
from .options import DispatchKeywords
from .plan import CORE, Plan
from .priority import queue_of
from .registry import Registry
from .session import PATIENCE, Session
from .store.workflows import View
from .task import BoundTask, JobSpec, Task
from .weaving import specs, terms, weave
from .workflow import Chain, Graph, Group
from .workflow_job import AnyWorkflowJob, ChainJob, GraphJob, GroupJob, handle
from .workflow_marks import mark, unmark
from .workflow_reach import Reach

P = ParamSpec("P")
R = TypeVar("R")
Workflow = Chain[Any] | Group[Any] | Graph


class Dispatching(Registry):
    """What dispatches."""

    @overload
    async def dispatch(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def dispatch(self, task: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...
    @overload
    async def dispatch(self, part: JobSpec[R], /) -> Job[R]: ...
    @overload
    async def dispatch(self, part: Chain[R], /) -> ChainJob[R]: ...
    @overload
    async def dispatch(self, part: Group[R], /) -> GroupJob[R]: ...
    @overload
    async def dispatch(self, part: Graph, /) -> GraphJob: ...

    async def dispatch(self, part: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Dispatches a job of a task, given as such or by its name, as ``Task.dispatch``; a job that ``task.job(...)``
        has made; or a workflow: a ``chain``, a ``group`` or a ``Graph``. Raises UnknownTask.

            job = await runner.dispatch("greet", "Ann")
            chain_job = await runner.dispatch(chain(fetch.job(url), parse.job(), store.job()))

        All of a workflow is accepted, or nothing: it begins when the last of it has arrived. It is known for the
        longest ``result_ttl`` among the runner's and those of its jobs after the last of it has ended, and is as
        durable as the most durable of its jobs. Besides what ``Task.dispatch`` raises, raises WorkflowError when it, or
        something in it, was dispatched before or stands in it twice, and when its id is that of a workflow of another
        kind. Whatever is raised but DispatchUncertain, nothing was written, and it can be dispatched again.
        """
        if isinstance(part, Chain | Group | Graph):
            if args or kwargs:
                raise WorkflowError(f"{part!r} takes no arguments: those of its jobs go into task.job(...)")
            return await self._dispatch_workflow(part)
        if isinstance(part, JobSpec):
            if args or kwargs:
                raise WorkflowError(f"{part!r} has its arguments already: give them to task.job(...)")
            return await self.find(part.plan.task).send(part.plan, part.origin, part.args, part.kwargs)
        return await self.find(part).dispatch(*args, **kwargs)

    def with_options(self, **options: Unpack[DispatchKeywords]) -> Dispatcher:
        """``runner.with_options(delay=60).dispatch("task", ...)``: other options for the jobs dispatched through it."""
        return Dispatcher(self.find, dict(options))

    async def dispatch_many(self, specs: Sequence[JobSpec[R]]) -> list[Job[R]]:
        """Dispatches many jobs, 200 (or a megabyte) per round trip, each on its own. Returns their handles in order.

        Raises PayloadError, or QueueBusy for a ``max_wait`` among them, before anything is written; RedisUnavailable
        when the server went away in the middle, or QueueFull: then some of the jobs were accepted; DispatchUncertain
        when that is not known of those in its ``job_ids``.
        """
        session = await self.opened()
        now = session.store.clock.now()
        # All arguments are packed before the first is sent; the rest of a draft is made when its chunk is. A draft
        # with a key of the user's making is made at once, as that can fail too.
        packed = [spec.pack(now) for spec in specs]
        await _admit(session, map(attrgetter("plan"), specs))
        drafts = (spec.draft(done, now) for spec, done in zip(specs, packed, strict=True))
        accepted = await session.producer.dispatch_many(drafts)
        return [Job(id, one.origin, place, known) for one, (id, place, known) in zip(specs, accepted, strict=True)]

    async def workflow(self, id: str) -> AnyWorkflowJob:
        """The handle of a workflow by its id: a ChainJob, GroupJob or GraphJob. What its jobs return is given as plain
        data, since their types are not known here. Raises JobNotFound for an id that is unknown, or past its
        ``result_ttl``.

            group_job = await runner.workflow("thumbnails-2026-11-23")
            print(await group_job.status())
        """
        session, id = await self.opened(), CORE["id"](id, "the id of a workflow")
        partition = session.store.keyspace.partition_of(id)
        view = await session.workflow(partition, id)
        if view is None:
            raise JobNotFound(f"workflow {id} is unknown: it never was, or its result_ttl is over")
        return handle(self._reach(id, partition, view.head, view.names))

    # -- workflows -------------------------------------------------------------------------------------------

    async def _dispatch_workflow(self, part: Workflow) -> AnyWorkflowJob:
        with _marked(part):
            plans = dict.fromkeys(spec.plan for spec in specs(part))
            for plan in plans:
                self.find(plan.task)
            session = await self.opened()
            await _admit(session, plans)
            id = part.id or new_id()
            blueprint = weave(part, id, part.id is not None, session.store.clock.now())
            partition = session.store.keyspace.partition_of(id)
            if await session.store.workflows.begin(partition, blueprint, *terms(plans, self.settings), PATIENCE):
                return handle(self._known(part, self._reach(id, partition, blueprint.head, {})))
            return await self._earlier(part, partition, session, blueprint)

    async def _earlier(self, part: Workflow, partition: int, session: Session, blueprint: Blueprint) -> AnyWorkflowJob:
        """The handle of the workflow that has the id already."""
        id = blueprint.id
        view: View | None = await session.workflow(partition, id)
        if view is None:  # its time ran out in this instant
            return handle(self._known(part, self._reach(id, partition, blueprint.head, {})), deduplicated=True)
        if (kind := view.head["kind"]) != blueprint.head["kind"]:
            what = f"a {blueprint.head['kind']} can't have the id {id!r}"
            raise WorkflowError(f"{what}: that is the id of a {kind}, which is known still; choose another one")
        return handle(self._known(part, self._reach(id, partition, view.head, view.names)), deduplicated=True)

    def _reach(self, id: str, partition: int, head: Any, names: Any) -> Reach:
        return Reach(id, head["kind"], self.session, self.settings.serializer.loads, partition, head, names)

    @staticmethod
    def _known(part: Workflow, reach: Reach) -> Reach:
        """With what the part says of its values."""
        steps, aside = [], {}
        if isinstance(part, Chain):
            steps = [form_of(step) for step in part.steps]
        elif isinstance(part, Group):
            named = (("then", part.then), ("on_failure", part.on_failure))
            aside = {name: form_of(one) for name, one in named if one is not None}
        form = steps[-1] if steps else form_of(part)
        graph = part if isinstance(part, Graph) else None
        return reach.knowing(form, steps, aside, graph)


@contextlib.contextmanager
def _marked(part: Workflow) -> Generator[None]:
    """Inside, the workflow is marked as dispatched; and afterwards, unless nothing of it was written."""
    mark(part)
    try:
        yield
    except (DispatchUncertain, asyncio.CancelledError):  # it may have begun
        if part.id is not None:  # dispatched again it is the same one
            unmark(part)
        raise
    except BaseException:
        unmark(part)
        raise


async def _admit(session: Session, plans: Iterable[Plan]) -> None:
    """Raises QueueBusy if a queue would let one of these wait too long."""
    for plan in dict.fromkeys(plans):
        if plan.max_wait is not None:
            await session.admission.admit(queue_of(plan.lane), plan.max_wait)


class Dispatcher:
    """What ``runner.with_options(...)`` returns."""

    def __init__(self, find: Callable[[Any], Task[..., Any]], options: dict[str, Any]) -> None:
        self._find = find
        self._options = options

    @overload
    async def dispatch(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def dispatch(self, task: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...

    async def dispatch(self, task: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As ``TaskRunner.dispatch``, for a task."""
        if isinstance(task, JobSpec | Chain | Group | Graph):
            raise WorkflowError(f"{task!r} has its options already: give them to task.with_options(...).job(...)")
        bound: BoundTask[..., Any] = self._find(task).with_options(**self._options)
        return await bound.dispatch(*args, **kwargs)
