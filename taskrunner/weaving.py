"""Weaving: a chain, a group or a graph becomes a blueprint, one piece after the other.

What a part begins with always gets the next free number: a job its own, a group or a graph a fork, and the number after
that is its join. Then come its members, one by one and each as a whole; then what follows a group aside. So what comes
after a job in a chain has the next number, and what comes after a group has the number after all that is in it.

Parts are nested as deep as the user likes: those that are begun stand on a stack of our own, not on Python's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .blueprint import GIVEN, Blueprint, Followers, Fork, JobNode, Join, Piece, Preceding
from .durability import Durability
from .envelope import FOLLOWED, KEPT, TRACKED
from .plan import Plan
from .settings import Settings
from .task import JobSpec
from .workflow import Chain, Graph, Group, Mapped, Part, walk

ASIDE = "~"


def weave(
    part: Chain[Any] | Group[Any] | Graph, id: str, custom_id: bool, now: int, previous: bytes = b""
) -> Blueprint:
    """A workflow as the server takes it, under this id; server time in ms. ``previous``: the result of a job that it
    follows, which those jobs see that follow none in it.

    The arguments of a job are packed when its piece is made: reading the pieces raises PayloadError, and whatever the
    iterable of a ``group.map`` raises. When all have been read, ``head`` has

        kind      "chain", "group" or "graph"
        nodes     how many there are
        result    the node whose value is the workflow's
        steps     the nodes that stand for the steps, the members or the parts of the graph, in order: ranges
        jobs      the jobs that decide about the status, in order: ranges
        then, on_failure   the nodes that stand for what follows the group, if anything does
    """
    head: dict[str, Any] = {}
    place = _Place(preceding=GIVEN if previous else None)
    return Blueprint(id, custom_id, _Weaver(id, now).pieces(part, place, head), head, previous)


def specs(part: Part) -> Iterator[JobSpec[Any]]:
    """The jobs of a workflow before their arguments are looked at. For all of a ``group.map`` there is one, without
    any, and its items are left alone. Raises WorkflowError when something is in it twice."""
    for one in walk(part):
        if isinstance(one, JobSpec):
            yield one
        elif isinstance(one, Group) and isinstance(one.members, Mapped):
            yield one.members.template


def terms(plans: Iterable[Plan], settings: Settings) -> tuple[Durability, float]:
    """How surely a workflow of jobs with these plans is to be kept, and for how many seconds after its end."""
    plans = list(plans)
    ttls = [plan.options["result_ttl"] for plan in plans]
    ttl = max([settings.result_ttl, *(one for one in ttls if one is not None)])
    return max((plan.durability for plan in plans), default=settings.durability), ttl


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part begins; as in JobNode. ``handed``: behind one job alone, whose value it gets if it is a job too."""

    behind: int | None = None
    before: int = 1
    preceding: Preceding | None = None
    handed: bool = False
    aside: bool = False


@dataclass(frozen=True, slots=True)
class _Ending:
    """What follows a part: words that are known; or the part that gets the next free number when this one is done; or
    ``later``, they will be a piece of their own."""

    words: tuple[str, ...] = ()
    next: Part | None = None
    later: bool = False


class _Ranges:
    """Numbers as they come, as ranges: see ``blueprint.ranges``."""

    __slots__ = ("count", "found")

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        self.count = 0

    def add(self, number: int) -> None:
        self.count += 1
        if self.found and self.found[-1][1] == number - 1:
            self.found[-1] = (self.found[-1][0], number)
        else:
            self.found.append((number, number))


@dataclass(slots=True)
class _Woven:
    """A part that is done. ``number``: the node whose value is the part's. ``words``: those of its followers that it
    knows of itself, for the piece that comes later. ``facts``: for the head."""

    number: int
    is_job: bool = False
    words: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


_Weaving: TypeAlias = "Generator[Piece | _Weaving, _Woven, _Woven]"
"""Gives pieces, and weavings of the parts within, whose outcomes it is sent."""


class _Weaver:
    def __init__(self, id: str, now: int) -> None:
        self._id = id
        self._now = now
        self._nodes = 0
        self._jobs = _Ranges()
        self._asides: list[tuple[int, int]] = []  # of the groups that are done

    def pieces(self, part: Part, place: _Place, head: dict[str, Any]) -> Iterator[Piece]:
        begun: list[_Weaving] = [self._part(part, place, _Ending())]
        done: _Woven | None = None
        while begun:
            try:
                # None begins a weaving; those that are begun wait for the outcome of one.
                one = begun[-1].send(done)  # type: ignore[arg-type]
            except StopIteration as stop:
                begun.pop()
                done = stop.value
                continue
            done = None
            if isinstance(one, Generator):
                begun.append(one)
            else:
                yield one
        assert done is not None
        head.update(kind=type(part).__name__.lower(), nodes=self._nodes, result=done.number, **done.facts)
        head["jobs"] = self._jobs.found

    def _part(self, part: Part, place: _Place, ending: _Ending) -> _Weaving:
        match part:
            case Chain():
                return self._chain(part, place, ending)
            case Group():
                return self._group(part, place, ending)
            case Graph():
                return self._graph(part, place, ending)
            case _:
                return self._job(part, place, ending)

    def _job(self, spec: JobSpec[Any], place: _Place, ending: _Ending) -> _Weaving:
        number = self._take()
        if not place.aside:
            self._jobs.add(number)
        draft = spec.draft(spec.pack(self._now), self._now)
        envelope = draft.envelope
        if not draft.custom_id:
            envelope.id = f"{self._id}.{number}"
        envelope.flags |= TRACKED if envelope.flags & KEPT else TRACKED | FOLLOWED
        yield JobNode(
            number,
            draft,
            self._followers((), ending, place, is_job=True),
            place.behind,
            place.before,
            None if place.handed else place.preceding,
            place.handed,
        )
        return _Woven(number, is_job=True)

    def _chain(self, chain: Chain[Any], place: _Place, ending: _Ending) -> _Weaving:
        steps = _Ranges()
        ahead = chain.steps
        step = next(ahead)
        while True:
            following = next(ahead, None)
            woven = yield self._part(step, place, ending if following is None else _Ending(next=following))
            steps.add(woven.number)
            if following is None:
                woven.facts = {"steps": steps.found}
                return woven
            place = _Place(preceding=woven.number, handed=woven.is_job, aside=place.aside)
            step = following

    def _group(self, group: Group[Any], place: _Place, ending: _Ending) -> _Weaving:
        fork, join = self._take(), self._take()
        yield Fork(fork, place.before, place.behind)
        known = len(self._asides)
        within = _Place(fork, preceding=place.preceding, aside=place.aside)
        ended = _Ending((f"{join}{'^' if group.cancel_on_failure else '*'}",))
        values = _Ranges()
        if isinstance(group.members, Mapped) and group.members.readable_once:
            group.mark.read = True
        for member in group.members:
            values.add((yield self._part(member, within, ended)).number)
        last = self._nodes - 1
        spared = self._asides[known:] if group.cancel_on_failure else ()
        facts: dict[str, Any] = {"steps": values.found}
        words: list[str] = []
        for name, follower, sign in (("then", group.then, "+"), ("on_failure", group.on_failure, "!")):
            if follower is not None:
                words.append(f"{self._nodes}{sign}")
                woven = yield self._part(follower, _Place(preceding=join, aside=True), _Ending())
                facts[name] = woven.number
        if self._nodes - 1 > last:
            while self._asides and self._asides[-1][0] > last:
                self._asides.pop()  # it is within this one
            self._asides.append((last + 1, self._nodes - 1))
        yield Join(join, values.found, values.count, last, self._followers(tuple(words), ending, place), spared)
        return _Woven(join, words=tuple(words), facts=facts)

    def _graph(self, graph: Graph, place: _Place, ending: _Ending) -> _Weaving:
        fork, join = self._take(), self._take()
        yield Fork(fork, place.before, place.behind)
        woven: dict[int, _Woven] = {}
        words: dict[int, list[str]] = {}
        for node in graph.in_order():
            before = [woven[one.index] for one in node.before]
            entry = _Place(fork, preceding=place.preceding, aside=place.aside)
            if before:
                numbers = [one.number for one in before]
                handed = len(before) == 1 and before[0].is_job
                preceding = numbers if len(numbers) > 1 else numbers[0]
                entry = _Place(None, len(before), preceding, handed, place.aside)
            word = self._next(node.part, entry.handed)
            for one in node.before:
                words[one.index].append(word)
            done = yield self._part(node.part, entry, _Ending(later=True))
            woven[node.index], words[node.index] = done, list(done.words)
        last = self._nodes - 1
        values = _Ranges()
        for index in range(len(woven)):
            values.add(woven[index].number)
        for index, done in woven.items():
            followers = _Ending((*words[index], f"{join}*"))
            yield Followers(done.number, self._followers((), followers, place) or "")
        yield Join(join, values.found, values.count, last, self._followers((), ending, place))
        return _Woven(join, facts={"steps": values.found})

    def _take(self) -> int:
        self._nodes += 1
        return self._nodes - 1

    def _next(self, part: Part, handed: bool) -> str:
        """The word for a part that gets the next free number: a job behind one job alone is handed its value."""
        return f"{self._nodes}" if handed and _begins_with_job(part) else f"{self._nodes}+"

    def _followers(self, words: tuple[str, ...], ending: _Ending, place: _Place, is_job: bool = False) -> str | None:
        if ending.later:
            return None
        following = () if ending.next is None else (self._next(ending.next, is_job),)
        return " ".join((*words, *ending.words, *following, *((ASIDE,) if place.aside else ())))


def _begins_with_job(part: Part) -> bool:
    while isinstance(part, Chain):
        part = part.parts[0]
    return isinstance(part, JobSpec)
