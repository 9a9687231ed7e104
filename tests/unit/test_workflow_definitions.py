"""Chains, groups and graphs as values: what they hold, and what they refuse at once, in words that help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from taskrunner import Chain, Graph, Group, TaskOptionError, TaskRunner, WorkflowError, chain, group
from taskrunner.weaving import weave
from taskrunner.workflow import Part
from taskrunner.workflow_marks import mark, unmark

runner = TaskRunner("redis://localhost", namespace="definitions")


@runner.task(name="work")
async def work(n: int = 0) -> int:
    return n


async def plain(n: int) -> int:
    return n


def numbers(steps: Chain[Any]) -> list[int]:
    return [step.args[0] for step in steps.steps if not isinstance(step, Group | Graph)]


def read(part: Any) -> None:
    for _ in weave(part, "W", custom_id=False, now=1).pieces:
        pass


# -- what they hold ------------------------------------------------------------------------------------------


def test_the_steps_of_a_chain_within_a_chain_are_its_own() -> None:
    steps = chain(work.job(1), chain(chain(work.job(2), work.job(3)), work.job(4)), work.job(5))
    assert numbers(steps) == [1, 2, 3, 4, 5]
    assert len(steps) == 5


def test_a_chain_of_one_chain_is_that_chain() -> None:
    assert numbers(chain(chain(work.job(1), work.job(2)))) == [1, 2]


def test_the_length_of_a_group_is_that_of_its_members() -> None:
    assert len(group(work.job(), work.job(), then=work.job(), on_failure=work.job())) == 2
    assert len(group()) == 0
    assert len(group.map(work, range(7))) == 7


def test_how_many_items_a_generator_has_is_not_known_before_it_is_read() -> None:
    mapped = group.map(work, (n for n in range(3)))
    with pytest.raises(TypeError, match="when they are read"):
        len(mapped)


def test_a_map_takes_a_task_with_options() -> None:
    mapped = group.map(work.with_options(delay=60), [1, 2])
    assert [spec.args for spec in mapped.members if not isinstance(spec, Chain | Group | Graph)] == [(1,), (2,)]


def test_the_length_of_a_graph_is_that_of_its_parts() -> None:
    graph = Graph()
    graph.add(group(work.job(), work.job()))
    assert len(graph) == 1


def test_a_node_knows_those_before_it_in_the_order_in_which_they_were_named() -> None:
    graph = Graph()
    a, b, c = (graph.add(work.job(n)) for n in range(3))
    d = graph.add(work.job(), after=[c, a])
    graph.connect(b, d)
    assert d.before == (c, a, b)
    assert a.after == (d,)


@pytest.mark.parametrize("part", [chain(work.job(), work.job()), group(work.job())])
def test_a_chain_or_a_group_cannot_be_changed(part: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        part.id = "another"


def test_they_show_what_they_are_however_much_they_hold() -> None:
    assert repr(chain(work.job(), work.job())) == "<Chain of 2>"
    assert repr(group(work.job())) == "<Group of 1>"
    assert repr(group.map(work, range(9))) == "<Group of work over range>"
    assert repr(Graph()) == "<Graph of 0>"


# -- what they refuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(), (work.job(),), (group(work.job(), work.job()),)])
def test_a_chain_has_at_least_two_steps(steps: tuple[Any, ...]) -> None:
    with pytest.raises(WorkflowError, match="at least two steps"):
        chain(*steps)


MAKERS: list[Callable[[Any], Any]] = [
    lambda part: chain(work.job(), part),
    lambda part: group(part),
    lambda part: group(then=part),
    lambda part: group(on_failure=part),
    lambda part: group.map(work, [], then=part),
    lambda part: Graph().add(part),
]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (work, r"write work\.job\(\.\.\.\)"),
        (work.with_options(delay=1), r"write \.job\(\.\.\.\) behind with_options"),
        (plain, r"register it with @runner\.task"),
        (Graph().add(work.job()), "write the part itself"),
        ([work.job()], r"put a \* in front"),
        ((n for n in ()), r"put a \* in front"),
        ("work", r"write task\.job"),
    ],
)
def test_what_is_no_part_of_a_workflow_is_refused_with_what_to_write(
    maker: Callable[[Any], Any], value: Any, remedy: str
) -> None:
    with pytest.raises(WorkflowError, match=remedy):
        maker(value)


def test_a_part_stands_in_a_workflow_once() -> None:
    spec = work.job()
    with pytest.raises(WorkflowError, match=r"twice; make one of its own.*task\.job"):
        chain(spec, spec)
    with pytest.raises(WorkflowError, match="twice"):
        group(spec, then=spec)
    graph = Graph()
    graph.add(spec)
    with pytest.raises(WorkflowError, match="in this graph already"):
        graph.add(spec)


def test_a_part_that_stands_in_two_places_far_apart_is_found_before_the_dispatch() -> None:
    spec = work.job()
    steps = chain(group(spec), work.job(), group(chain(spec, work.job())))
    with pytest.raises(WorkflowError, match="in the workflow twice"):
        mark(steps)
    assert not steps.mark.dispatched


def test_a_spec_may_stand_in_two_workflows() -> None:
    spec = work.job()
    mark(group(spec))
    mark(group(spec))


def test_two_jobs_of_a_workflow_cannot_have_one_id() -> None:
    named = work.with_options(id="one")
    with pytest.raises(WorkflowError, match="have the id 'one'"):
        mark(chain(named.job(1), group(named.job(2))))
    with pytest.raises(WorkflowError, match="leave the id out"):
        group.map(named, [1])


@pytest.mark.parametrize("id", ["", "x" * 201, "a\nb", 5])
def test_an_id_is_a_printable_string_as_that_of_a_job(id: Any) -> None:
    for make in (
        lambda: chain(work.job(), work.job(), id=id),
        lambda: group(id=id),
        lambda: group.map(work, [], id=id),
        lambda: Graph(id),
    ):
        with pytest.raises(TaskOptionError, match=r"the id of a (chain|group|graph) must be a printable string"):
            make()


@pytest.mark.parametrize("maker", MAKERS)
def test_only_what_is_dispatched_has_an_id(maker: Callable[[Any], Any]) -> None:
    with pytest.raises(WorkflowError, match="has the id 'inner'"):
        maker(group(id="inner"))


def test_cancel_on_failure_is_yes_or_no() -> None:
    with pytest.raises(WorkflowError, match="True or False"):
        group(work.job(), cancel_on_failure=work.job())  # type: ignore[call-overload]


@pytest.mark.parametrize(("task", "items"), [(work.job(), [1]), (plain, [1]), (work, 5)])
def test_a_map_takes_a_task_and_what_can_be_iterated(task: Any, items: Any) -> None:
    with pytest.raises(WorkflowError, match=r"group\.map"):
        group.map(task, items)


# -- graphs --------------------------------------------------------------------------------------------------


def test_a_cycle_is_refused_when_it_would_be_closed_and_the_graph_stays_as_it_was() -> None:
    graph = Graph()
    a = graph.add(work.job(1))
    b = graph.add(work.job(2), after=[a])
    c = graph.add(work.job(3), after=[b])
    for before, after in ((c, a), (b, a), (a, a)):
        with pytest.raises(WorkflowError, match="a cycle"):
            graph.connect(before, after)
    assert [node.before for node in (a, b, c)] == [(), (a,), (b,)]
    graph.connect(a, c)


def test_a_cycle_is_found_among_nodes_that_come_after_later_ones() -> None:
    graph = Graph()
    a, b, c = (graph.add(work.job(n)) for n in range(3))
    graph.connect(c, a)
    graph.connect(a, b)
    with pytest.raises(WorkflowError, match="a cycle"):
        graph.connect(b, c)
    assert list(graph.in_order()) == [c, a, b]


def test_a_node_of_another_graph_is_refused() -> None:
    graph, other = Graph(), Graph()
    own, foreign = graph.add(work.job()), other.add(work.job())
    with pytest.raises(WorkflowError, match="of another graph"):
        graph.add(work.job(), after=[foreign])
    with pytest.raises(WorkflowError, match="of another graph"):
        graph.connect(own, foreign)
    with pytest.raises(WorkflowError, match="of another graph"):
        graph.connect(foreign, own)
    assert len(graph) == 1


def test_what_was_not_added_is_no_node() -> None:
    graph = Graph()
    with pytest.raises(WorkflowError, match=r"use what graph\.add"):
        graph.add(work.job(), after=[work.job()])  # type: ignore[list-item]
    with pytest.raises(WorkflowError, match=r"write after=\[node\]"):
        graph.add(work.job(), after=graph.add(work.job()))  # type: ignore[arg-type]


def test_a_node_comes_after_another_one_once() -> None:
    graph = Graph()
    a = graph.add(work.job())
    with pytest.raises(WorkflowError, match="name each once"):
        graph.add(work.job(), after=[a, a])
    b = graph.add(work.job(), after=[a])
    with pytest.raises(WorkflowError, match="already"):
        graph.connect(a, b)


@pytest.mark.parametrize("wrap", [lambda graph: graph, lambda graph: chain(work.job(), group(then=graph))])
def test_a_graph_cannot_contain_itself(wrap: Callable[[Graph], Part]) -> None:
    graph = Graph()
    with pytest.raises(WorkflowError, match="can't contain itself"):
        graph.add(wrap(graph))


def test_two_graphs_cannot_contain_each_other() -> None:
    one, two = Graph(), Graph()
    one.add(chain(work.job(), two))
    with pytest.raises(WorkflowError, match="can't contain itself"):
        two.add(group(one))


# -- dispatched once -----------------------------------------------------------------------------------------


def test_what_is_dispatched_can_be_neither_dispatched_again_nor_used_nor_changed() -> None:
    inner = Graph()
    node = inner.add(work.job())
    whole = chain(work.job(), group(inner))
    mark(whole)
    for part in (whole, inner):
        with pytest.raises(WorkflowError, match="dispatched already"):
            mark(part)
    for maker in MAKERS:
        with pytest.raises(WorkflowError, match="dispatched already"):
            maker(inner)
    with pytest.raises(WorkflowError, match=r"make another Graph\(\)"):
        inner.add(work.job(), after=[node])
    with pytest.raises(WorkflowError, match=r"make another Graph\(\)"):
        inner.connect(node, node)


def test_what_holds_something_that_is_dispatched_later_cannot_be_dispatched() -> None:
    steps = chain(work.job(), work.job())
    longer = chain(steps, work.job())
    mark(steps)
    with pytest.raises(WorkflowError, match="dispatched already"):
        mark(longer)
    assert not longer.mark.dispatched


def test_after_a_dispatch_that_wrote_nothing_it_can_be_dispatched_again() -> None:
    whole = chain(work.job(), group.map(work, [1, 2, 3]))
    mark(whole)
    read(whole)
    unmark(whole)
    mark(whole)
    read(whole)


def test_items_that_are_spent_are_not_taken_for_none_at_all() -> None:
    whole = chain(work.job(), group.map(work, iter([1, 2, 3])))
    mark(whole)
    unmark(whole)
    mark(whole)
    read(whole)
    unmark(whole)
    with pytest.raises(WorkflowError, match=r"items .* have been read"):
        mark(whole)
