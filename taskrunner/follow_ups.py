"""Follow-ups: jobs that a worker dispatches because something happened to another one.

    @runner.task(on_success=tell.job("done"), on_failure=clean_up.job())
    async def charge(order_id: int) -> str: ...

A follow-up is dispatched before the outcome is recorded, under the id ``JOB.KIND.ATTEMPT``. So it exists when the
outcome does; and when the worker dies in between, and the job runs again, its follow-up is the same one and no second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .envelope import TRACKED, Delivery, Dispatchable, Draft
from .errors import QueueFull, RedisUnavailable
from .outcome import Outcome, Succeeded
from .session import Session
from .store.persist import wait_before

log = logging.getLogger("taskrunner.hooks")


class FollowUp:
    """Dispatches a spec. Called like a hook, which contains what it raises: the outcome is recorded all the same."""

    def __init__(self, spec: Dispatchable, kind: str, session: Callable[[], Session]) -> None:
        self._spec = spec
        self._kind = kind
        self._session = session

    async def __call__(self, delivery: Delivery, outcome: Outcome | None) -> None:
        session = self._session()
        draft = self._draft(delivery, outcome, session.store.clock.now())
        attempts = 0
        try:
            while not await self._sent(session, draft, delivery, attempts):
                attempts += 1
                await asyncio.sleep(wait_before(attempts))
        except asyncio.CancelledError:
            log.error("%s of job %s was not dispatched: the worker stops", draft.envelope.id, delivery.envelope.id)
            raise

    async def _sent(self, session: Session, draft: Draft, delivery: Delivery, attempts: int) -> bool:
        """Whether it went out. With the server away it is waited for, as the outcome waits too."""
        try:
            await session.producer.submit(draft, session.producer.partition_of(draft))
        except QueueFull:
            raise  # only outcomes free memory, and this one waits for us
        except RedisUnavailable as error:
            if not attempts:
                log.warning("%s waits for the server: %s", draft.envelope.id, error)
            return False
        return True

    def _draft(self, delivery: Delivery, outcome: Outcome | None, now: int) -> Draft:
        draft = self._spec.draft(self._spec.pack(now), now)
        if not draft.custom_id:
            job = delivery.envelope
            draft.envelope.id = f"{job.id}.{self._kind}.{job.attempt}"
            draft.custom_id = True
            draft.envelope.flags |= TRACKED  # for it is known only while there is a record of it
        if isinstance(outcome, Succeeded):
            draft.envelope.previous = outcome.result or b""
        return draft
