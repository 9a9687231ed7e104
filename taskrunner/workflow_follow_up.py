"""Workflows as follow-ups: what ``on_success=chain(...)`` of a task dispatches, see follow_ups.py.

The chain, group or graph is a pattern: it is woven anew for each job that it follows.
"""

from __future__ import annotations

from typing import Any

from .follow_ups import Prepare, Ready
from .session import PATIENCE, Session
from .settings import Settings
from .weaving import specs, terms, weave
from .workflow import Chain, Graph, Group


class WorkflowFollowUps:
    """Makes them for the tasks of one runner."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepared(self, part: Chain[Any] | Group[Any] | Graph) -> Prepare:
        """For a workflow. Those of its jobs that follow none in it see the result of the job that it follows."""
        conditions = terms(dict.fromkeys(spec.plan for spec in specs(part)), self._settings)

        def prepare(session: Session, id: str, previous: bytes) -> Ready:
            workflows = session.store.workflows
            own = id if part.id is None else part.id
            partition = session.store.keyspace.partition_of(own)

            async def send() -> None:
                # It is there already when it was sent before and the answer got lost, or by an earlier run of the job.
                blueprint = weave(part, own, True, session.store.clock.now(), previous)
                await workflows.begin(partition, blueprint, *conditions, PATIENCE)

            return Ready(own, send)

        return prepare
