"""Marks: a workflow is dispatched once, and so is all that is in it."""

from __future__ import annotations

from .errors import WorkflowError
from .task import JobSpec
from .workflow import Part, walk, workflows


def mark(part: Part) -> None:
    """Marks a workflow, and all in it, as dispatched: what the dispatch does first.

    Raises WorkflowError when something in it was dispatched before or is in it twice, when two of its jobs have one id,
    or when the items of a ``group.map`` are gone.
    """
    found = workflows(part)
    for one in found:
        if one.mark.dispatched:
            raise WorkflowError(f"{one!r} has been dispatched already; make another one for another dispatch")
        if one.mark.read:
            raise WorkflowError(f"the items of {one!r} have been read by a dispatch that failed; make another one")
    for one in found:
        one.mark.dispatched = True


def unmark(part: Part) -> None:
    """Takes the marks back, after a dispatch that has written nothing."""
    for one in walk(part):
        if not isinstance(one, JobSpec):
            one.mark.dispatched = False
