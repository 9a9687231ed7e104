"""A workflow becomes numbered pieces: written out for the shapes that people use."""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from taskrunner import Graph, PayloadError, TaskRunner, chain, group
from taskrunner.blueprint import GIVEN, Followers, Fork, JobNode, Join, Piece
from taskrunner.envelope import FOLLOWED, KEPT, TRACKED
from taskrunner.weaving import specs, weave
from taskrunner.workflow import Part
from taskrunner.workflow_marks import mark
from tests.unit.played import argument_of

NOW = 1_700_000_000_000

runner = TaskRunner("redis://localhost", namespace="weaving")


@runner.task
async def work(n: int) -> int:
    return n


@runner.task(ignore_result=True)
async def forget(n: int) -> None: ...


def pieces_of(part: Any) -> list[Piece]:
    return list(weave(part, "W", custom_id=False, now=NOW).pieces)


def head_of(part: Any) -> dict[str, Any]:
    blueprint = weave(part, "W", custom_id=False, now=NOW)
    for _ in blueprint.pieces:
        pass
    return blueprint.head


def drawn(part: Any) -> list[str]:
    """The pieces as text: ``number kind(argument) <what it waits for: followers``."""
    return [_line(piece) for piece in pieces_of(part)]


def _line(piece: Piece) -> str:
    match piece:
        case JobNode():
            behind = f"fork {piece.behind}" if piece.behind is not None else str(piece.before)
            sees = "handed" if piece.handed else piece.preceding
            return f"{piece.number} job {argument_of(piece)} after {behind} sees {sees}: {piece.followers}"
        case Fork():
            behind = f"fork {piece.behind}" if piece.behind is not None else str(piece.before)
            return f"{piece.number} fork after {behind}"
        case Join():
            members = " ".join(f"{first}-{last}" for first, last in piece.members)
            return f"{piece.number} join of {members} before {piece.before} last {piece.last}: {piece.followers}"
        case Followers():
            return f"{piece.number}: {piece.followers}"


# -- shapes written out --------------------------------------------------------------------------------------


def test_the_steps_of_a_chain_are_handed_on_one_by_one() -> None:
    assert drawn(chain(work.job(1), work.job(2), work.job(3))) == [
        "0 job 1 after 1 sees None: 1",
        "1 job 2 after 1 sees handed: 2",
        "2 job 3 after 1 sees handed: ",
    ]


def test_a_chain_in_a_chain_is_flattened() -> None:
    flat = chain(*(work.job(n) for n in range(4)))
    nested = chain(chain(work.job(0), work.job(1)), chain(work.job(2), work.job(3)))
    assert drawn(nested) == drawn(flat)
    assert head_of(nested) == head_of(flat)


def test_a_group_is_a_fork_its_members_and_a_join() -> None:
    assert drawn(group(work.job(1), work.job(2))) == [
        "0 fork after 1",
        "2 job 1 after fork 0 sees None: 1*",
        "3 job 2 after fork 0 sees None: 1*",
        "1 join of 2-3 before 2 last 3: ",
    ]


def test_a_group_without_members_has_a_join_that_waits_for_none() -> None:
    assert drawn(group(then=work.job(1))) == [
        "0 fork after 1",
        "2 job 1 after 1 sees 1: ~",
        "1 join of  before 0 last 1: 2+",
    ]


def test_a_group_of_one_is_a_group() -> None:
    assert drawn(group(work.job(1))) == [
        "0 fork after 1",
        "2 job 1 after fork 0 sees None: 1*",
        "1 join of 2-2 before 1 last 2: ",
    ]


def test_what_follows_a_group_aside_says_so_in_all_its_nodes() -> None:
    then, on_failure = chain(work.job(2), work.job(3)), group(work.job(4))
    assert drawn(group(work.job(1), then=then, on_failure=on_failure)) == [
        "0 fork after 1",
        "2 job 1 after fork 0 sees None: 1*",
        "3 job 2 after 1 sees 1: 4 ~",
        "4 job 3 after 1 sees handed: ~",
        "5 fork after 1",
        "7 job 4 after fork 5 sees 1: 6* ~",
        "6 join of 7-7 before 1 last 7: ~",
        "1 join of 2-2 before 1 last 2: 3+ 5!",
    ]


def test_a_group_in_a_chain_passes_on_what_came_before_it_and_then_its_list() -> None:
    assert drawn(chain(work.job(1), group(work.job(2), work.job(3), then=work.job(4)), work.job(5))) == [
        "0 job 1 after 1 sees None: 1+",
        "1 fork after 1",
        "3 job 2 after fork 1 sees 0: 2*",
        "4 job 3 after fork 1 sees 0: 2*",
        "5 job 4 after 1 sees 2: ~",
        "2 join of 3-4 before 2 last 4: 5+ 6+",
        "6 job 5 after 1 sees 2: ",
    ]


def test_a_chain_in_a_group_in_a_chain_sees_what_came_before_the_group() -> None:
    assert drawn(chain(work.job(1), group(chain(work.job(2), work.job(3)), work.job(4)), work.job(5))) == [
        "0 job 1 after 1 sees None: 1+",
        "1 fork after 1",
        "3 job 2 after fork 1 sees 0: 4",
        "4 job 3 after 1 sees handed: 2*",
        "5 job 4 after fork 1 sees 0: 2*",
        "2 join of 4-5 before 2 last 5: 6+",
        "6 job 5 after 1 sees 2: ",
    ]


def test_what_a_workflow_follows_as_a_whole_is_seen_by_those_who_follow_none_in_it() -> None:
    graph = Graph()
    first = graph.add(work.job(2))
    graph.add(work.job(3), after=[first])
    part = group(chain(work.job(0), work.job(1)), graph, then=work.job(4))
    mark(part)
    blueprint = weave(part, "w", custom_id=True, now=NOW, previous=b"[1]")
    seen = {argument_of(one): one.preceding for one in blueprint.pieces if isinstance(one, JobNode) and not one.handed}
    assert blueprint.previous == b"[1]"
    assert seen == {0: GIVEN, 2: GIVEN, 4: 1}


def test_a_group_that_cancels_on_failure_says_so_in_its_own_members_alone() -> None:
    assert drawn(group(work.job(1), group(work.job(2)), cancel_on_failure=True)) == [
        "0 fork after 1",
        "2 job 1 after fork 0 sees None: 1^",
        "3 fork after fork 0",
        "5 job 2 after fork 3 sees None: 4*",
        "4 join of 5-5 before 1 last 5: 1^",
        "1 join of 2-2 4-4 before 2 last 5: ",
    ]


def test_two_groups_in_a_row_follow_each_other_by_join_and_fork() -> None:
    assert drawn(chain(group(work.job(1)), group(work.job(2)))) == [
        "0 fork after 1",
        "2 job 1 after fork 0 sees None: 1*",
        "1 join of 2-2 before 1 last 2: 3+",
        "3 fork after 1",
        "5 job 2 after fork 3 sees 1: 4*",
        "4 join of 5-5 before 1 last 5: ",
    ]


def test_the_edges_of_a_graph_come_behind_all_its_nodes() -> None:
    graph = Graph()
    a, b = graph.add(work.job(1)), graph.add(work.job(2))
    c = graph.add(work.job(3), after=[b, a])
    graph.add(work.job(4), after=[c])
    assert drawn(graph) == [
        "0 fork after 1",
        "2 job 1 after fork 0 sees None: None",
        "3 job 2 after fork 0 sees None: None",
        "4 job 3 after 2 sees [3, 2]: None",
        "5 job 4 after 1 sees handed: None",
        "2: 4+ 1*",
        "3: 4+ 1*",
        "4: 5 1*",
        "5: 1*",
        "1 join of 2-5 before 4 last 5: ",
    ]


def test_what_was_added_before_those_it_comes_after_is_numbered_behind_them() -> None:
    graph = Graph()
    late, early = graph.add(work.job(1)), graph.add(work.job(2))
    graph.connect(early, late)
    assert drawn(graph) == [
        "0 fork after 1",
        "2 job 2 after fork 0 sees None: None",
        "3 job 1 after 1 sees handed: None",
        "2: 3 1*",
        "3: 1*",
        "1 join of 3-3 2-2 before 2 last 3: ",
    ]
    assert head_of(graph)["steps"] == [(3, 3), (2, 2)], "the handle knows them in the order in which they were added"


def test_a_graph_of_groups_reads_their_lists() -> None:
    graph = Graph()
    first = graph.add(group(work.job(1), then=work.job(2)))
    graph.add(group(work.job(3)), after=[first])
    assert drawn(chain(work.job(0), graph)) == [
        "0 job 0 after 1 sees None: 1+",
        "1 fork after 1",
        "3 fork after fork 1",
        "5 job 1 after fork 3 sees 0: 4*",
        "6 job 2 after 1 sees 4: ~",
        "4 join of 5-5 before 1 last 5: None",
        "7 fork after 1",
        "9 job 3 after fork 7 sees 4: 8*",
        "8 join of 9-9 before 1 last 9: None",
        "4: 6+ 7+ 2*",
        "8: 2*",
        "2 join of 4-4 8-8 before 2 last 9: ",
    ]


def test_a_group_of_graphs_goes_on_when_all_of_them_have_ended() -> None:
    one, two = Graph(), Graph()
    one.add(work.job(1))
    assert drawn(group(one, two)) == [
        "0 fork after 1",
        "2 fork after fork 0",
        "4 job 1 after fork 2 sees None: None",
        "4: 3*",
        "3 join of 4-4 before 1 last 4: 1*",
        "5 fork after fork 0",
        "6 join of  before 0 last 6: 1*",
        "1 join of 3-3 6-6 before 2 last 6: ",
    ]


# -- the head, ids and flags ---------------------------------------------------------------------------------


def test_the_head_of_a_chain_names_the_nodes_of_its_steps() -> None:
    steps = chain(work.job(1), group(work.job(2), work.job(3), then=work.job(4)), work.job(5))
    assert head_of(steps) == {
        "kind": "chain",
        "nodes": 7,
        "result": 6,
        "steps": [(0, 0), (2, 2), (6, 6)],
        "jobs": [(0, 0), (3, 4), (6, 6)],
    }


def test_the_head_of_a_group_tells_its_jobs_from_what_follows_it_aside() -> None:
    members = chain(work.job(1), work.job(2)), work.job(3)
    follows = {"then": chain(work.job(4), work.job(5)), "on_failure": group(work.job(6))}
    assert head_of(group(*members, **follows)) == {
        "kind": "group",
        "nodes": 10,
        "result": 1,
        "steps": [(3, 4)],
        "jobs": [(2, 4)],
        "then": 6,
        "on_failure": 8,
    }


def test_the_head_of_a_graph_names_the_nodes_of_its_parts() -> None:
    graph = Graph()
    first = graph.add(chain(work.job(1), work.job(2)))
    graph.add(work.job(3), after=[first])
    assert head_of(graph) == {"kind": "graph", "nodes": 5, "result": 1, "steps": [(3, 4)], "jobs": [(2, 4)]}


def test_the_asides_of_a_group_in_a_chain_are_none_of_the_chain() -> None:
    head = head_of(chain(work.job(1), group(work.job(2), on_failure=work.job(3))))
    assert "on_failure" not in head
    assert head["jobs"] == [(0, 0), (3, 3)]


def test_a_job_has_the_id_of_its_workflow_and_its_number_unless_it_has_one_of_its_own() -> None:
    [first, second] = pieces_of(chain(work.job(1), work.with_options(id="mine").job(2)))
    assert isinstance(first, JobNode)
    assert isinstance(second, JobNode)
    assert (first.draft.envelope.id, second.draft.envelope.id) == ("W.0", "mine")


def test_the_value_of_a_job_that_ignores_its_result_is_kept_for_those_behind_it() -> None:
    [kept, followed] = pieces_of(chain(work.job(1), forget.job(2)))
    assert isinstance(kept, JobNode)
    assert isinstance(followed, JobNode)
    assert kept.draft.envelope.flags == TRACKED | KEPT
    assert followed.draft.envelope.flags == TRACKED | FOLLOWED


def test_an_argument_that_cannot_travel_is_found_when_its_piece_is_made() -> None:
    pieces = weave(chain(work.job(1), work.job(object())), "W", custom_id=False, now=NOW).pieces  # type: ignore[arg-type]
    reader = iter(pieces)
    next(reader)
    with pytest.raises(PayloadError, match="work"):
        next(reader)


# -- sizes ---------------------------------------------------------------------------------------------------


def test_the_items_of_a_map_are_read_one_by_one_while_the_pieces_are() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for n in range(3):
            read.append(n)
            yield n

    pieces = weave(group.map(work, items()), "W", custom_id=False, now=NOW).pieces
    seen = [(type(piece).__name__, len(read)) for piece in pieces]
    assert seen == [("Fork", 0), ("JobNode", 1), ("JobNode", 2), ("JobNode", 3), ("Join", 3)]


def test_a_map_of_a_hundred_thousand_is_never_in_memory_as_a_whole() -> None:
    blueprint = weave(group.map(work, iter(range(100_000))), "W", custom_id=False, now=NOW)
    tracemalloc.start()
    try:
        pieces = iter(blueprint.pieces)
        for _ in range(1000):
            next(pieces)
        before = tracemalloc.get_traced_memory()[0]
        [join] = deque(pieces, maxlen=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before < 100_000, "bytes: what is there after a thousand is what is there at the end"
    assert isinstance(join, Join)
    assert (join.members, join.before) == ([(2, 100_001)], 100_000)


def test_the_specs_of_a_map_are_one_and_leave_its_items_alone() -> None:
    items = iter(range(3))
    found = list(specs(chain(work.job(1), group.map(forget, items, then=work.job(2)))))
    assert [spec.plan.task.rpartition(".")[2] for spec in found] == ["work", "forget", "work"]
    assert next(items) == 0


def test_a_chain_of_a_thousand_steps_is_woven() -> None:
    pieces = pieces_of(chain(*(work.job(n) for n in range(1000))))
    assert [piece.number for piece in pieces] == list(range(1000))


def deep(levels: int) -> Part:
    part: Part = work.job(0)
    for level in range(1, levels + 1):
        match level % 4:
            case 0:
                part = chain(work.job(level), part)
            case 1:
                part = group(part)
            case 2:
                graph = Graph()
                graph.add(part)
                part = graph
            case _:
                part = group(work.job(level), then=part)
    return part


@pytest.mark.parametrize("levels", [200, 1600])
def test_nesting_may_be_deeper_than_the_stack_of_python(levels: int) -> None:
    part = deep(levels)
    mark(part)
    assert len(list(specs(part))) == 1 + levels // 2
    assert head_of(part)["nodes"] == 1 + levels // 4 * (1 + 2 + 2 + 3)
