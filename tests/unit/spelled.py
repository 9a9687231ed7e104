"""Workflows spelled out, as plain tuples; and what they mean, read straight from them, with no node or number in sight.

("job", name)   ("chain", parts)   ("group", parts, then, on_failure, cancel_on_failure)
("map", names, then, on_failure, cancel_on_failure)   ("graph", parts, {part: parts before it})
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypothesis import strategies as st

from taskrunner import Graph, Task, chain, group
from taskrunner.workflow import Part

Spelled = tuple[Any, ...]


def make(spelled: Spelled, task: Task[[int], int]) -> Part:
    """The part itself; all its jobs are of one task, and get their name as their argument."""
    part = partial(make, task=task)
    match spelled:
        case ("job", name):
            return task.job(name)
        case ("chain", parts):
            return chain(*map(part, parts))
        case ("group" | "map" as kind, members, then, on_failure, cancels):
            aside = {"then": then and part(then), "on_failure": on_failure and part(on_failure)}
            if kind == "map":
                return group.map(task, members, **aside, cancel_on_failure=cancels)
            return group(*map(part, members), **aside, cancel_on_failure=cancels)
        case ("graph", parts, edges):
            graph = Graph()
            nodes = [graph.add(part(one)) for one in parts]
            for after, befores in edges.items():
                for before in befores:
                    graph.connect(nodes[before], nodes[after])
            return graph
        case _:
            raise AssertionError(spelled)


@dataclass
class Reading:
    """What happens when those jobs fail: ``seen``, by name, what each job that runs sees as previous."""

    failing: set[int]
    seen: dict[int, Any] = field(default_factory=dict)

    def read(self, spelled: Spelled, previous: Any = None) -> tuple[bool, Any]:
        """Whether it succeeds, and its value."""
        match spelled:
            case ("job", name):
                self.seen[name] = previous
                return (False, None) if name in self.failing else (True, name)
            case ("chain", parts):
                for part in parts:
                    good, previous = self.read(part, previous)
                    if not good:
                        return False, None
                return True, previous
            case ("group" | "map", _, then, on_failure, _):
                ends = [self.read(member, previous) for member in members_of(spelled)]
                good, values = all(one for one, _ in ends), [value for _, value in ends]
                aside = then if good else on_failure
                if aside is not None:
                    self.read(aside, values)
                return (True, values) if good else (False, None)
            case _:
                return self._graph(spelled, previous)

    def _graph(self, spelled: Spelled, previous: Any) -> tuple[bool, Any]:
        _, parts, edges = spelled
        ends: dict[int, tuple[bool, Any]] = {}
        while len(ends) < len(parts):
            for index, part in enumerate(parts):
                before = edges.get(index, [])
                if index in ends or not all(one in ends for one in before):
                    continue
                values = [ends[one][1] for one in before]
                if all(ends[one][0] for one in before):
                    ends[index] = self.read(part, previous if not before else values[0] if len(values) == 1 else values)
                else:
                    ends[index] = (False, None)
        good = all(one for one, _ in ends.values())
        return good, [ends[index][1] for index in range(len(parts))] if good else None


def members_of(spelled: Spelled) -> list[Spelled]:
    """The parts that a part is made of, without those that follow it aside."""
    match spelled:
        case ("job", _):
            return []
        case ("map", names, *_):
            return [("job", name) for name in names]
        case (_, parts, *_):
            return list(parts)
        case _:
            raise AssertionError(spelled)


def asides_of(spelled: Spelled) -> list[Spelled]:
    return [one for one in spelled[2:4] if one] if spelled[0] in ("group", "map") else []


def names_of(spelled: Spelled) -> Iterator[int]:
    """Those of all its jobs."""
    if spelled[0] == "job":
        yield spelled[1]
    for one in members_of(spelled) + asides_of(spelled):
        yield from names_of(one)


def parts_of(spelled: Spelled, aside: bool = False) -> Iterator[tuple[Spelled, bool]]:
    """All parts, and whether they follow a group aside."""
    yield spelled, aside
    for one in members_of(spelled):
        yield from parts_of(one, aside)
    for one in asides_of(spelled):
        yield from parts_of(one, aside=True)


# -- any of them ---------------------------------------------------------------------------------------------


@st.composite
def _edges(draw: st.DrawFn, size: int) -> dict[int, list[int]]:
    """Those of an acyclic graph; the order of the parts is none of their concern."""
    order = draw(st.permutations(range(size)))
    some = {order[n]: draw(st.lists(st.sampled_from(order[:n]), unique=True, max_size=3)) for n in range(1, size)}
    return {after: before for after, before in some.items() if before}


def _bigger(parts: st.SearchStrategy[Spelled]) -> st.SearchStrategy[Spelled]:
    aside = st.none() | parts
    members = st.lists(parts, max_size=4)
    chains = st.tuples(st.just("chain"), st.lists(parts, min_size=2, max_size=4))
    groups = st.tuples(st.just("group"), members, aside, aside, st.booleans())
    maps = st.tuples(st.just("map"), st.lists(st.none(), max_size=3), aside, aside, st.booleans())
    graphs = members.flatmap(lambda some: st.tuples(st.just("graph"), st.just(some), _edges(len(some))))
    return chains | groups | maps | graphs


def _named(spelled: Spelled, names: Iterator[int]) -> Spelled:
    match spelled:
        case ("job",):
            return ("job", next(names))
        case ("group" | "map" as kind, members, then, on_failure, cancels):
            own = [next(names) if kind == "map" else _named(one, names) for one in members]
            return (kind, own, *(one and _named(one, names) for one in (then, on_failure)), cancels)
        case (kind, parts, *rest):
            return (kind, [_named(part, names) for part in parts], *rest)
        case _:
            raise AssertionError(spelled)


def without_cancelling(spelled: Spelled) -> Spelled:
    """The same, where no group cancels: with that, what runs depends on who is first."""
    match spelled:
        case ("group" | "map" as kind, members, then, on_failure, _):
            own = members if kind == "map" else [without_cancelling(one) for one in members]
            return (kind, own, *(one and without_cancelling(one) for one in (then, on_failure)), False)
        case (kind, parts, *rest) if kind != "job":
            return (kind, [without_cancelling(part) for part in parts], *rest)
        case _:
            return spelled


def workflows() -> st.SearchStrategy[Spelled]:
    """Any workflow; each of its jobs has a number of its own as its name."""
    nested = st.recursive(st.just(("job",)), _bigger, max_leaves=14)
    return nested.filter(lambda one: one[0] != "job").map(lambda one: _named(one, itertools.count(1)))
