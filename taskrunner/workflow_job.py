"""The handles of dispatched workflows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Generic, TypeVar

from .errors import WorkflowError
from .form import UNKNOWN
from .job import Job, JobStatus
from .node_job import NodeJob
from .workflow import GraphNode
from .workflow_reach import Reach
from .workflow_state import ChainInfo, GraphInfo, GroupInfo, chain_info, is_over, number_at, numbers_of, status_of

R = TypeVar("R")
S = TypeVar("S")


class _WorkflowJob:
    """What all handles of workflows have in common."""

    __slots__ = ("_reach", "deduplicated", "id")

    def __init__(self, reach: Reach, deduplicated: bool = False) -> None:
        self.id = reach.id
        self.deduplicated = deduplicated
        self._reach = reach

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, _WorkflowJob) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    async def status(self) -> JobStatus:
        """Running, succeeded, failed or cancelled; failed as soon as one of its jobs is. What is not running has come
        to its end, and stays what it is. Raises JobNotFound for an id that is unknown, or past its ``result_ttl``."""
        return status_of(await self._reach.seen())

    async def wait(self, timeout: float | timedelta | None = None) -> None:
        """Waits until it has ended, in whatever way: a chain until its status is final, a group or a graph until the
        last of its jobs has ended, also when one has failed long before. What follows a group aside is not waited for.

        Raises ResultTimeout after ``timeout`` seconds, and JobNotFound.
        """
        await self._reach.reached(is_over, timeout)

    async def cancel(self) -> bool:
        """Cancels what has not ended: what waits never runs, what runs is cut, on whatever machine; what has ended
        keeps its result. False when all had ended, or it is unknown. Raises RedisUnavailable: then cancel again.

        When this returns, nothing of it starts any more, and ``status()`` is cancelled, unless it had come to its end
        before: then this cancels what follows a group aside, or went on after a failure.
        """
        return await self._reach.cancel()


class ChainJob(_WorkflowJob, Generic[R]):
    """The handle of a dispatched chain: ``id``, and ``deduplicated`` (True: one of that id was known, and this is the
    handle of that one)."""

    __slots__ = ()

    async def info(self) -> ChainInfo:
        """How it stands: at which step it is, and which have ended. Raises JobNotFound like ``status``."""
        return chain_info(await self._reach.seen(), self.id)

    async def result(self, timeout: float | timedelta | None = None) -> R:
        """The value of the last step, when the chain has come to its end; of a step that is a group or a graph, a list.
        Waits for it up to ``timeout`` seconds (None: for ever).

        Raises what became of the first job that did not succeed, at once: JobFailed, JobCancelled or JobExpired. And
        ResultTimeout, JobNotFound.
        """
        return await self._reach.result(timeout)  # type: ignore[no-any-return]

    @property
    def steps(self) -> list[Job[Any]]:
        """The handles of its steps in order, also of those that have not begun: they are blocked. That of a step that
        is a group or a graph is where this ends, and its ``result()`` the list."""
        reach, forms = self._reach, self._reach.steps
        numbers = enumerate(numbers_of(reach.head["steps"]))
        return [NodeJob(reach, number, forms[n] if n < len(forms) else UNKNOWN) for n, number in numbers]


class GroupJob(_WorkflowJob, Generic[R]):
    """The handle of a dispatched group: ``id``, and ``deduplicated`` (True: one of that id was known, and this is the
    handle of that one)."""

    __slots__ = ()

    async def info(self) -> GroupInfo:
        """How it stands, and each of its jobs. Raises JobNotFound like ``status``.

        Takes a round trip per thousand jobs that have begun and not ended, and one command more for each of up to 1,000
        of a queue that are in its stream. When there are more than these, and workers hold over 10,000 jobs of the
        queue, some that run may be called queued.
        """
        return GroupInfo(self.id, *await self._reach.statuses())

    async def results(self, timeout: float | timedelta | None = None) -> list[R]:
        """The values of its members in order, when all have succeeded; waits for that up to ``timeout`` seconds (None:
        for ever). The value of a member that is a group or a graph is a list.

        Raises what became of the first job that did not succeed, at once, though others go on: JobFailed, JobCancelled
        or JobExpired. And ResultTimeout, JobNotFound.
        """
        return await self._reach.result(timeout)  # type: ignore[no-any-return]

    @property
    def members(self) -> list[Job[R]]:
        """The handles of its members in order. That of a member that is a chain is its last job; of a group or a graph
        where it ends, and its ``result()`` is the list."""
        reach, form = self._reach, self._reach.form
        return [NodeJob(reach, number, form.of(n)) for n, number in enumerate(numbers_of(reach.head["steps"]))]

    @property
    def then(self) -> Job[Any] | None:
        """What follows when all have succeeded; None when nothing does. Of a chain its last job; of a group or a graph
        where it ends, and its ``result()`` is the list."""
        return self._aside("then")

    @property
    def on_failure(self) -> Job[Any] | None:
        """What follows when all have ended, and not all have succeeded; as ``then``."""
        return self._aside("on_failure")

    def _aside(self, name: str) -> Job[Any] | None:
        number = self._reach.head.get(name)
        return None if number is None else NodeJob(self._reach, number, self._reach.aside.get(name, UNKNOWN))


class GraphJob(_WorkflowJob):
    """The handle of a dispatched graph: ``id``, and ``deduplicated`` (True: one of that id was known, and this is the
    handle of that one)."""

    __slots__ = ()

    async def info(self) -> GraphInfo:
        """How it stands, and each of its jobs; as for a group."""
        return GraphInfo(self.id, *await self._reach.statuses())

    async def results(self, timeout: float | timedelta | None = None) -> list[Any]:
        """The values of what was added to the graph, in that order; waits and raises as for a group."""
        return await self._reach.result(timeout)  # type: ignore[no-any-return]

    def job(self, node: GraphNode[S]) -> Job[S]:
        """The handle of what was added to the graph, also before it has begun: then it is blocked. Of a chain, its last
        job; of a group or a graph where that ends, and its ``result()`` is the list. Raises WorkflowError for a node of
        another graph.

            graph = Graph()
            total = graph.add(add_up.job(), after=[first, second])
            graph_job = await runner.dispatch(graph)
            print(await graph_job.job(total).result())
        """
        reach = self._reach
        number = number_at(reach.head["steps"], node.index)
        if number is None or (reach.graph is not None and node.graph is not reach.graph):
            raise WorkflowError(f"{node!r} is of another graph; use what add(...) of this one has returned")
        return NodeJob(reach, number, reach.form.of(node.index))


AnyWorkflowJob = ChainJob[Any] | GroupJob[Any] | GraphJob

KINDS: dict[str, type[ChainJob[Any]] | type[GroupJob[Any]] | type[GraphJob]] = {
    "chain": ChainJob,
    "group": GroupJob,
    "graph": GraphJob,
}


def handle(reach: Reach, deduplicated: bool = False) -> AnyWorkflowJob:
    """The handle of a workflow, by its kind."""
    return KINDS[reach.kind](reach, deduplicated)
