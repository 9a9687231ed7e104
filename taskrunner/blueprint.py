"""Blueprint: a workflow as the server takes it: numbered nodes, and who follows whom.

A node is a job, a fork or a join. A *fork* lets all those behind it go, when its turn comes; a *join* ends when all
before it have ended, and its value is the list of theirs. Numbers are given on the way, so that a group of a hundred
thousand is never in memory as a whole: the pieces come in the order of their numbers, but a join and the followers of
a graph, which are known last.

Who follows a node stands there as text, one word each:

    12    the job 12, which has waited for this node alone: it starts when this one has succeeded, and gets its value
    12+   the job or fork 12, which may wait for several and reads their values: one less, when this one has succeeded
    12*   the join 12: one less, whatever this node came to
    12^   the same; and when this node did not succeed, the others before that join are cancelled
    12!   the job or fork 12: it starts when this node has failed or was cancelled, and never when it has succeeded
    ~     nobody, and what becomes of this node is not what becomes of the workflow: what follows a group aside
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from .envelope import Draft

Preceding = int | Sequence[int]
"""Whose values a job sees as ``previous``: that of one node, or a list of those of several."""
GIVEN = -1
"""In place of a node: what the workflow as a whole follows."""


@dataclass(slots=True)
class JobNode:
    """A job. ``behind`` is the fork that lets it go; None: a node, or the beginning of the workflow. ``before`` says
    for how many nodes it waits. ``preceding`` are those whose values it reads when it runs; ``handed``: the one before
    it gives it its value, in the step that ends that one. ``followers`` None: they are a piece of their own."""

    number: int
    draft: Draft
    followers: str | None = ""
    behind: int | None = None
    before: int = 1
    preceding: Preceding | None = None
    handed: bool = False


@dataclass(slots=True)
class Fork:
    """See above; it comes before those that are behind it."""

    number: int
    before: int = 1
    behind: int | None = None


@dataclass(slots=True)
class Join:
    """``members`` are the nodes whose values are its own, in order: as ranges, first and last. It waits for ``before``
    of them. ``last`` is the highest number of all that is between its fork and it: what is cancelled with it, but for
    what follows groups within aside (``spared``, ranges): who cleans up behind one of them goes on."""

    number: int
    members: Sequence[tuple[int, int]]
    before: int
    last: int
    followers: str | None = ""
    spared: Sequence[tuple[int, int]] = ()


@dataclass(slots=True)
class Followers:
    """Those of a node that came before; of a graph, whose edges are known last."""

    number: int
    followers: str


Piece = JobNode | Fork | Join | Followers


@dataclass(slots=True)
class Blueprint:
    """A workflow on its way to the server. ``pieces`` are made while they are read, once. ``head`` is filled when all
    of them have been read: ``kind``, ``nodes`` (how many), ``result`` (the node whose value is the workflow's),
    ``steps`` (ranges of the nodes that stand for what the user put in, in order), and what the handle wants to know.
    ``previous``: the result of the job that it follows as a whole, as the serializer made it; the value of GIVEN."""

    id: str
    custom_id: bool
    pieces: Iterable[Piece]
    head: dict[str, Any]
    previous: bytes = b""


@runtime_checkable
class Repeatable(Protocol):
    """A workflow that is not dispatched yet, and may be a pattern for many that are."""

    def check_repeatable(self, what: str) -> None:
        """Raises WorkflowError when it can't be dispatched again and again; ``what`` it was given as."""
