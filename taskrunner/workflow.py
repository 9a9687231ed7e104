"""Workflows as their users write them: chains, groups and graphs of jobs, nested at will.

    await runner.dispatch(chain(fetch.job(url), group(resize.job(100), resize.job(800)), publish.job()))

What stands here are values: nothing is sent, and no argument is packed, before the dispatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Generic, TypeAlias, TypeVar

from .errors import WorkflowError
from .plan import CORE
from .task import BoundTask, JobSpec, Task, Valued

R = TypeVar("R")

Part: TypeAlias = "JobSpec[Any] | Chain[Any] | Group[Any] | Graph"
"""What a workflow is made of."""


@dataclass(slots=True)
class Mark:
    """What has become of a chain, a group or a graph. ``read``: of its iterator, which can't be read again."""

    dispatched: bool = False
    read: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Chain(Valued[R]):
    """Steps that run one after the other; made by ``chain(...)``. ``len()``: how many; those of chains in it count."""

    parts: tuple[Part, ...]
    id: str | None = None
    mark: Mark = field(default_factory=Mark, init=False)

    def __post_init__(self) -> None:
        _check_id(self.id, "a chain")
        _check_parts(self.parts, "a chain")
        if len(self.parts) < 2 and not any(isinstance(part, Chain) for part in self.parts):
            raise WorkflowError(
                f"a chain has at least two steps, and this one has {len(self.parts)}; dispatch a single job as it is"
            )

    @property
    def steps(self) -> Iterator[JobSpec[Any] | Group[Any] | Graph]:
        """The steps in order; those of a chain within the chain are its own."""
        ahead: list[Iterator[Part]] = [iter(self.parts)]
        while ahead:
            for part in ahead[-1]:
                if isinstance(part, Chain):
                    ahead.append(iter(part.parts))
                    break
                yield part
            else:
                ahead.pop()

    def check_repeatable(self, what: str) -> None:
        """Raises WorkflowError when it can't be dispatched again and again; ``what`` it was given as."""
        check_repeatable(self, what)

    def __len__(self) -> int:
        return sum(1 for _ in self.steps)

    def __repr__(self) -> str:
        return f"<Chain of {len(self)}>"


@dataclass(frozen=True, slots=True)
class Mapped(Generic[R]):
    """The members of ``group.map``: a job of one task for each item."""

    template: JobSpec[R]
    items: Iterable[Any]

    @property
    def readable_once(self) -> bool:
        return iter(self.items) is self.items

    def __iter__(self) -> Iterator[JobSpec[R]]:
        plan, origin = self.template.plan, self.template.origin
        return (JobSpec(plan, origin, (item,), {}) for item in self.items)

    def __len__(self) -> int:
        if not isinstance(self.items, Sized):
            raise TypeError("how many items there are shows when they are read, at the dispatch")
        return len(self.items)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Group(Valued[list[R]], Generic[R]):
    """Members that run at once; made by ``group(...)`` or ``group.map(...)``. ``len()``: how many members, if known."""

    members: tuple[Part, ...] | Mapped[R]
    then: Part | None = None
    on_failure: Part | None = None
    cancel_on_failure: bool = False
    id: str | None = None
    mark: Mark = field(default_factory=Mark, init=False)

    def __post_init__(self) -> None:
        _check_id(self.id, "a group")
        if not isinstance(self.cancel_on_failure, bool):
            raise WorkflowError(f"cancel_on_failure of a group is True or False, not {self.cancel_on_failure!r}")
        _check_parts(children(self), "a group")

    def check_repeatable(self, what: str) -> None:
        """Raises WorkflowError when it can't be dispatched again and again; ``what`` it was given as."""
        check_repeatable(self, what)

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        if isinstance(self.members, Mapped):
            return f"<Group of {self.members.template.plan.task} over {type(self.members.items).__name__}>"
        return f"<Group of {len(self)}>"


class GraphNode(Generic[R]):
    """The place of a part in a graph; made by ``graph.add``. ``before`` are the nodes that it comes after, in order;
    ``after`` those that come after it."""

    __slots__ = ("_after", "_before", "graph", "index", "part")

    def __init__(self, graph: Graph, part: Part, index: int) -> None:
        self.graph = graph
        self.part = part
        self.index = index
        self._before: list[GraphNode[Any]] = []
        self._after: list[GraphNode[Any]] = []

    @property
    def before(self) -> tuple[GraphNode[Any], ...]:
        return tuple(self._before)

    @property
    def after(self) -> tuple[GraphNode[Any], ...]:
        return tuple(self._after)

    def follow(self, other: GraphNode[Any]) -> None:
        """Puts it after another node; ``Graph.connect`` looks first whether that can be."""
        self._before.append(other)
        other._after.append(self)

    def leads_to(self, other: GraphNode[Any]) -> bool:
        """Whether the other one is this one, or comes after it."""
        seen, ahead = {self.index}, [self]
        while ahead:
            node = ahead.pop()
            if node is other:
                return True
            new = [one for one in node._after if one.index not in seen]
            seen.update(one.index for one in new)
            ahead += new
        return False

    def __repr__(self) -> str:
        return f"<GraphNode {self.index} {self.part!r}>"


class Graph(Valued[list[Any]]):
    """Jobs, chains, groups and graphs, each of which runs when all those before it have succeeded.

        graph = Graph()
        a, b = graph.add(fetch.job(1)), graph.add(fetch.job(2))
        graph.add(merge.job(), after=[a, b])     # sees [value of a, value of b] as ctx.previous
        job = await runner.dispatch(graph)

    What comes after one node sees that node's value as ``ctx.previous``, after several a list of theirs in the order of
    ``after``; what comes after none sees what the graph itself came after. ``len()``: how many parts were added. Its
    value is the list of theirs, in the order in which they were added.

    ``id`` names the workflow: while one of that id is known, dispatching another gives the handle of the first. Raises
    TaskOptionError for an id that isn't a printable string of 1 to 200 characters.
    """

    __slots__ = ("_held", "_sorted", "id", "mark", "nodes")

    def __init__(self, id: str | None = None) -> None:
        self.id = _check_id(id, "a graph")
        self.nodes: list[GraphNode[Any]] = []
        self.mark = Mark()
        self._held: set[int] = set()
        # As long as all go from a node to one that was added later, there is no cycle, and none to look for.
        self._sorted = True

    def add(self, part: Valued[R], after: Iterable[GraphNode[Any]] = ()) -> GraphNode[R]:
        """Adds a part, which runs when all nodes in ``after`` have succeeded. Returns its place in the graph.

        Raises WorkflowError when it is in the graph already, contains the graph, or comes after a node of another one.
        """
        self._check_open()
        own = _part(part, "a graph")
        if id(own) in self._held:
            raise WorkflowError(f"{own!r} is in this graph already; {REMEDY}")
        if any(one is self for one in walk(own)):
            raise WorkflowError("a graph can't contain itself")
        if isinstance(after, GraphNode):
            raise WorkflowError("after is a list of nodes: write after=[node]")
        before = [self._own(node) for node in after]
        if len({node.index for node in before}) < len(before):
            raise WorkflowError("a node stands in after twice; name each once")
        node = GraphNode[R](self, own, len(self.nodes))
        for one in before:
            node.follow(one)
        self.nodes.append(node)
        self._held.add(id(own))
        return node

    def connect(self, before: GraphNode[Any], after: GraphNode[Any]) -> None:
        """Puts a node after another one, as the last of those that it comes after.

        Raises WorkflowError for a node of another graph, when that would be a cycle, and when it is so already.
        """
        self._check_open()
        self._own(before)
        self._own(after)
        if before in after.before:
            raise WorkflowError(f"{after!r} comes after {before!r} already")
        is_sorted = self._sorted and before.index < after.index
        if not is_sorted and after.leads_to(before):
            raise WorkflowError(f"a cycle: {after!r} can't come after {before!r}, which comes after it or is the same")
        self._sorted = is_sorted
        after.follow(before)

    def in_order(self) -> Iterator[GraphNode[Any]]:
        """The nodes, each behind those that it comes after; else in the order in which they were added."""
        waits = {node.index: len(node.before) for node in self.nodes}
        ready = [index for index, before in waits.items() if not before]
        while ready:
            node = self.nodes[heappop(ready)]
            yield node
            for one in node.after:
                waits[one.index] -= 1
                if not waits[one.index]:
                    heappush(ready, one.index)

    def _own(self, node: GraphNode[Any]) -> GraphNode[Any]:
        if not isinstance(node, GraphNode):
            raise WorkflowError(f"{node!r} is no node: use what graph.add(...) returned")
        if node.graph is not self:
            raise WorkflowError(f"{node!r} is of another graph; only nodes of one graph can come after each other")
        return node

    def _check_open(self) -> None:
        if self.mark.dispatched:
            raise WorkflowError("this graph has been dispatched and can't be changed any more; make another Graph()")

    def check_repeatable(self, what: str) -> None:
        """Raises WorkflowError when it can't be dispatched again and again; ``what`` it was given as."""
        check_repeatable(self, what)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"<Graph of {len(self)}>"


# -- what looks at them --------------------------------------------------------------------------------------

REMEDY = "make one of its own for each place, by calling task.job(...), chain(...) or group(...) again"


def children(part: Part) -> tuple[Part, ...]:
    """What a part is made of. Of a map the items are left alone."""
    match part:
        case Chain():
            return part.parts
        case Group():
            members = () if isinstance(part.members, Mapped) else part.members
            return (*members, *(one for one in (part.then, part.on_failure) if one is not None))
        case Graph():
            return tuple(node.part for node in part.nodes)
        case _:
            return ()


def walk(part: Part) -> Iterator[Part]:
    """The part and all that is in it, however deep. Raises WorkflowError when something is in it twice."""
    seen: set[int] = {id(part)}
    yield part
    ahead = [iter(children(part))]
    while ahead:
        for one in ahead[-1]:
            if id(one) in seen:
                raise WorkflowError(f"{one!r} is in the workflow twice; {REMEDY}")
            seen.add(id(one))
            yield one
            ahead.append(iter(children(one)))
            break
        else:
            ahead.pop()


def check_repeatable(part: Chain[Any] | Group[Any] | Graph, what: str) -> None:
    """Whether a workflow can be dispatched again and again, as a pattern that is not marked: what a callback does.

    Raises WorkflowError when something in it stands there twice or was dispatched, when two of its jobs have one id, or
    when the items of a ``group.map`` can be read only once.
    """
    for one in workflows(part):
        if one.mark.dispatched:
            raise WorkflowError(f"{what}: {one!r} has been dispatched already; make another one")
        if isinstance(one, Group) and isinstance(one.members, Mapped) and one.members.readable_once:
            raise WorkflowError(
                f"{what}: the items of {one!r} can be read only once, and are needed each time; give a list of them"
            )


def workflows(part: Part) -> list[Chain[Any] | Group[Any] | Graph]:
    """The chains, groups and graphs in a part. Raises WorkflowError when something in it is in it twice, or two of its
    jobs have one id."""
    found: list[Chain[Any] | Group[Any] | Graph] = []
    ids: set[str] = set()
    for one in walk(part):
        if not isinstance(one, JobSpec):
            found.append(one)
        elif (id := one.plan.id) is not None:
            if id in ids:
                raise WorkflowError(f"two jobs of the workflow have the id {id!r}; give each one of its own")
            ids.add(id)
    return found


def _check_id(value: str | None, what: str) -> str | None:
    if value is not None:
        CORE["id"](value, f"the id of {what}")
    return value


def _check_parts(parts: Iterable[object], where: str) -> None:
    """Raises WorkflowError for what can't be part of a workflow, or can't be there any more, or stands there twice."""
    seen: set[int] = set()
    for value in parts:
        part = _part(value, where)
        if id(part) in seen:
            raise WorkflowError(f"{part!r} stands in {where} twice; {REMEDY}")
        seen.add(id(part))


def _part(value: object, where: str) -> Part:
    if isinstance(value, JobSpec):
        return value
    if not isinstance(value, Chain | Group | Graph):
        raise WorkflowError(f"{value!r} can't be part of {where}; {hint(value)}")
    if value.id is not None:
        raise WorkflowError(
            f"{value!r} has the id {value.id!r}, and in {where} it is not dispatched by itself; leave it out"
        )
    if value.mark.dispatched:
        raise WorkflowError(f"{value!r} has been dispatched already; make another one for {where}")
    return value


def hint(value: object) -> str:
    """What to write in place of something that is no part of a workflow."""
    match value:
        case Task():
            return f"write {value.name}.job(...)"
        case BoundTask():
            return "write .job(...) behind with_options(...)"
        case GraphNode():
            return "write the part itself; what comes after what in a graph is said by graph.add and graph.connect"
        case list() | tuple() | set() | Iterator():
            return "put a * in front of it, or use group.map(task, items)"
        case _ if callable(value):
            return "register it with @runner.task and write task.job(...)"
        case _:
            return "write task.job(...), chain(...), group(...) or a Graph"
