"""How a workflow stands, read from what the server keeps of it: a letter per node. Pure: asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .job import ENDED, JobStatus
from .store.workflows import View

WAITS, OPEN, NEVER = "w", "o", "n"
"""Letters of nodes that have not ended as a job does: see ``View``."""


@dataclass(frozen=True, slots=True)
class ChainInfo:
    """How a chain stands. ``status`` is running, succeeded, failed or cancelled. ``current`` is the id of the step that
    runs or waits for its turn, None when the chain has come to its end; ``finished`` are the ids of those that have
    ended, in order, with the one that failed or was cancelled. The id of a step that is a group or a graph is that of
    the place where it ends, and of no job."""

    id: str
    status: JobStatus
    current: str | None
    finished: list[str]


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """How a group stands. ``status`` is running, succeeded, failed (as soon as one has failed, though others go on) or
    cancelled; ``jobs`` has the status of each of its jobs by id, in order: blocked while they wait for others,
    cancelled when they will never run. What follows the group aside is not among them."""

    id: str
    status: JobStatus
    jobs: dict[str, JobStatus]


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """How a graph stands; ``status`` and ``jobs`` as for a group. A job behind one that failed is cancelled: it will
    never run."""

    id: str
    status: JobStatus
    jobs: dict[str, JobStatus]


def numbers_of(ranges: Iterable[Sequence[int]]) -> Iterator[int]:
    for first, last in ranges:
        yield from range(first, last + 1)


def number_at(ranges: Iterable[Sequence[int]], index: int) -> int | None:
    """The number at a place of what the ranges stand for; None when there is none."""
    for first, last in ranges:
        if index <= last - first:
            return first + index
        index -= last - first + 1
    return None


def status_of(view: View) -> JobStatus:
    """Failed as soon as one node has failed. What is not running has come to its end, and stays so."""
    if view.states[view.head["result"]] == "s":
        return JobStatus.SUCCEEDED
    if view.failed is not None:
        return JobStatus.FAILED
    return JobStatus.RUNNING if view.stopped is None else JobStatus.CANCELLED


def has_come_to_its_end(view: View) -> bool:
    """Whether its status is final."""
    return status_of(view) is not JobStatus.RUNNING


def is_over(view: View) -> bool:
    """Whether its status is final, and of a group or graph the last job has ended too."""
    if view.head["kind"] == "chain":
        return has_come_to_its_end(view)
    return view.states[view.head["result"]] not in (WAITS, OPEN)


def job_id(view: View, id: str, number: int) -> str:
    """The id of the job that stands at a node, or will."""
    return view.names.get(number) or f"{id}.{number}"


def status_at(view: View, number: int) -> JobStatus | None:
    """The status of the job at a node, as far as the node tells: None for one that has begun and not ended."""
    letter = view.states[number]
    if letter == WAITS:
        return JobStatus.BLOCKED if view.stopped != -1 else JobStatus.CANCELLED
    return JobStatus.CANCELLED if letter == NEVER else ENDED.get(letter)


def chain_info(view: View, id: str) -> ChainInfo:
    status, states = status_of(view), view.states
    steps = list(numbers_of(view.head["steps"]))
    finished = [job_id(view, id, number) for number in steps if states[number] in ENDED]
    going = (number for number in steps if states[number] in (WAITS, OPEN))
    current = next(going, None) if status is JobStatus.RUNNING else None
    return ChainInfo(id, status, None if current is None else job_id(view, id, current), finished)
