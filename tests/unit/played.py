"""A workflow as a server would play it, small enough to be read at once: what the words of a blueprint come to.

Every job is ended by whoever plays, in any order. The value of a job is its own argument, so that what a job has seen
as ``previous`` tells where it stood.
"""

from __future__ import annotations

from typing import Any

from taskrunner.blueprint import Blueprint, Followers, Fork, JobNode, Join, Preceding
from taskrunner.payload import JSON, arguments


def argument_of(node: JobNode) -> Any:
    [args, _] = arguments(JSON().loads(node.draft.envelope.payload))
    return args[0]


class Played:
    """``states``: w waits, o open, s f c ended so, n never ran. ``seen``: by argument, what a job saw as previous."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.nodes: dict[int, JobNode | Fork | Join] = {}
        self.words: dict[int, str | None] = {}
        for piece in blueprint.pieces:
            if isinstance(piece, Followers):
                assert self.words[piece.number] is None, "followers come once"
            else:
                assert piece.number not in self.nodes, "each number once"
                self.nodes[piece.number] = piece
            self.words[piece.number] = "" if isinstance(piece, Fork) else piece.followers
        self.head = blueprint.head
        self.jobs = {argument_of(node): node for node in self.nodes.values() if isinstance(node, JobNode)}
        self.states = dict.fromkeys(self.nodes, "w")
        self.left = {number: node.before for number, node in self.nodes.items()}
        self.causes: set[int] = set()
        self.cut: set[int] = set()
        self.values: dict[int, Any] = {}
        self.seen: dict[Any, Any] = {}
        self.failed = False
        self.go(0)

    @property
    def open(self) -> list[int]:
        return [number for number, state in self.states.items() if state == "o"]

    def end(self, number: int, how: str) -> None:
        """What a worker does."""
        assert self.states[number] == "o", "a job ends once"
        node = self.nodes[number]
        assert isinstance(node, JobNode)
        self.ended(number, how, argument_of(node))
        for one in sorted(self.cut):
            if self.states[one] == "o":
                self.ended(one, "c")

    def go(self, number: int, handed: Any = None) -> None:
        node = self.nodes[number]
        if number in self.cut:
            return self.never(number)
        if self.states[number] != "w":
            assert self.states[number] == "n", "nobody is let go twice"
            return None
        match node:
            case JobNode():
                assert argument_of(node) not in self.seen, "a job runs once"
                self.states[number] = "o"
                assert (handed is not None) == node.handed
                self.seen[argument_of(node)] = handed if node.handed else self.previous(node.preceding)
            case Fork():
                self.states[number] = "s"
                self.behind(number)
            case Join():
                raise AssertionError("a join is told, and not let go")
        return None

    def never(self, number: int) -> None:
        if self.states[number] != "w":
            return
        if isinstance(self.nodes[number], JobNode):
            self.ended(number, "n")
        else:
            self.states[number] = "n"
            self.behind(number)

    def behind(self, fork: int) -> None:
        for number, node in list(self.nodes.items()):
            if not isinstance(node, Join) and node.behind == fork:
                (self.go if self.states[fork] == "s" else self.never)(number)
        join = self.nodes[fork + 1]
        assert isinstance(join, Join)
        if not join.before:
            self.ended(fork + 1, self.states[fork])

    def ended(self, number: int, how: str, value: Any = None) -> None:
        if self.states[number] not in "wo":
            return
        self.states[number] = how
        if how == "s":
            self.values[number] = value
        words = self.words[number]
        assert words is not None, "somebody follows, or it is said that nobody does"
        if how in "fc" and "~" not in words:
            self.failed = True
        for word in words.replace("~", "").split():
            self.tell(word, how, value)

    def tell(self, word: str, how: str, value: Any) -> None:
        match int(word.rstrip("+*^!")), word[-1]:
            case follower, "*" | "^" as mark:
                join = self.nodes[follower]
                assert isinstance(join, Join)
                if how != "s":
                    self.causes.add(follower)
                    if mark == "^":
                        spared = {one for first, last in join.spared for one in range(first, last + 1)}
                        cut = set(range(follower + 1, join.last + 1)) - spared
                        self.cut |= cut
                        for one in sorted(cut):
                            if not isinstance(self.nodes[one], Join):
                                self.never(one)
                self.left[follower] -= 1
                assert self.left[follower] >= 0, "nobody is told more often than it waits"
                if not self.left[follower]:
                    began = self.states[follower - 1] == "s"
                    self.ended(follower, "s" if follower not in self.causes else "f" if began else "n")
            case follower, "!":
                (self.go if how in "fc" else self.never)(follower)
            case follower, _ if how != "s":
                self.never(follower)
            case follower, "+":
                self.left[follower] -= 1
                if not self.left[follower]:
                    self.go(follower)
            case follower, _:
                assert isinstance(self.nodes[follower], JobNode), "a value is handed to a job"
                self.go(follower, value)

    def previous(self, preceding: Preceding | None) -> Any:
        if preceding is None:
            return None
        if not isinstance(preceding, int):
            return [self.value(number) for number in preceding]
        node = self.nodes[preceding]
        return self.members(node) if isinstance(node, Join) else self.value(preceding)

    def value(self, number: int) -> Any:
        node = self.nodes[number]
        if self.states[number] != "s":
            return None
        return self.members(node) if isinstance(node, Join) else self.values[number]

    def members(self, join: Join) -> list[Any]:
        return [self.value(number) for first, last in join.members for number in range(first, last + 1)]
