"""A workflow of any shape becomes pieces that fit together, and come to what it says when they are played."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from taskrunner import TaskRunner
from taskrunner.blueprint import Fork, JobNode, Join
from taskrunner.weaving import weave
from tests.unit.played import Played, argument_of
from tests.unit.spelled import (
    Reading,
    Spelled,
    asides_of,
    make,
    members_of,
    names_of,
    parts_of,
    without_cancelling,
    workflows,
)

NOW = 1_700_000_000_000

runner = TaskRunner("redis://localhost", namespace="weaving")


@runner.task
async def work(n: int) -> int:
    return n


def play(spelled: Spelled, failing: set[int], random: Random) -> Played:
    played = Played(weave(make(spelled, work), "W", custom_id=False, now=NOW))
    while ready := played.open:
        number = random.choice(ready)
        node = played.nodes[number]
        assert isinstance(node, JobNode)
        played.end(number, "f" if argument_of(node) in failing else "s")
    return played


def some_of(spelled: Spelled, random: Random) -> set[int]:
    names = list(names_of(spelled))
    return set(random.sample(names, random.randint(0, min(3, len(names)))))


@given(workflows(), st.randoms(use_true_random=False))
def test_what_the_pieces_come_to_is_what_the_workflow_says(spelled: Spelled, random: Random) -> None:
    spelled = without_cancelling(spelled)
    reading = Reading(some_of(spelled, random))
    good, value = reading.read(spelled)
    played = play(spelled, reading.failing, random)
    assert played.seen == reading.seen, "who runs, once, and what each sees as previous"
    result = played.head["result"]
    assert (played.states[result] == "s", played.value(result)) == (good, value)
    assert played.failed is not good, "what follows a group aside does not count"


@given(workflows(), st.randoms(use_true_random=False))
def test_everything_comes_to_an_end_whoever_fails_and_is_cancelled(spelled: Spelled, random: Random) -> None:
    played = play(spelled, some_of(spelled, random), random)
    assert set(played.states.values()) <= set("sfcn")
    whole = play(spelled, set(), random)
    untried = {
        name for part, _ in parts_of(spelled) if part[0] in ("group", "map") and part[3] for name in names_of(part[3])
    }
    assert whole.seen.keys() == set(names_of(spelled)) - untried, "all are reached when nothing fails"


@given(workflows())
def test_the_pieces_fit_together(spelled: Spelled) -> None:
    played = Played(weave(make(spelled, work), "W", custom_id=False, now=NOW))
    assert sorted(played.nodes) == list(range(played.head["nodes"])), "each number once, and none is left out"
    told = Counter(word for words in played.words.values() for word in (words or "").split())
    for number, node in played.nodes.items():
        waits_for = told[f"{number}*"] + told[f"{number}^"]
        if isinstance(node, Join):
            assert waits_for == node.before
            assert sum(last - first + 1 for first, last in node.members) == node.before
        else:
            by_one = told[str(number)] + told[f"{number}!"] + (node.behind is not None) + (number == 0)
            assert (told[f"{number}+"], by_one) in ((node.before, 0), (0, node.before))
            assert node.behind is None or isinstance(played.nodes[node.behind], Fork)
    numbers = [number for number, node in played.nodes.items() if not isinstance(node, Join)]
    assert numbers == sorted(numbers), "in the order of their numbers, but for joins"


@given(workflows())
def test_each_node_knows_whether_it_decides_about_the_workflow_and_each_join_what_is_its_own(spelled: Spelled) -> None:
    played = Played(weave(make(spelled, work), "W", custom_id=False, now=NOW))
    numbers = {name: node.number for name, node in played.jobs.items()}
    decide = {number for first, last in played.head["jobs"] for number in range(first, last + 1)}
    for part, aside in parts_of(spelled):
        if part[0] == "job":
            number = numbers[part[1]]
            assert ("~" in (played.words[number] or "")) is aside
            assert (number in decide) is not aside
    joins = iter(sorted((number, node) for number, node in played.nodes.items() if isinstance(node, Join)))
    # Joins are numbered in the order in which the groups and graphs begin; graphs keep another one than that of adding.
    if not any(part[0] == "graph" and part[2] for part, _ in parts_of(spelled)):
        for part, aside in parts_of(spelled):
            if part[0] in ("group", "map", "graph"):
                number, join = next(joins)
                assert ("~" in (join.followers or played.words[number] or "")) is aside
                own = {numbers[name] for one in members_of(part) for name in names_of(one)}
                others = {numbers[name] for one in asides_of(part) for name in names_of(one)}
                between = set(range(number + 1, join.last + 1))
                assert own == between & set(numbers.values())
                assert not others & between
