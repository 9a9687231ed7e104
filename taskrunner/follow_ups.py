"""Follow-ups: jobs and workflows that a worker dispatches because something happened to a job.

    @runner.task(on_success=tell.job("done"), on_failure=clean_up.job())
    async def charge(order_id: int) -> str: ...

A follow-up is dispatched before the outcome is recorded, under the id ``JOB.KIND.ATTEMPT``. So it exists when the
outcome does; and when the worker dies in between, and the job runs again, its follow-up is the same one and no second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from .envelope import TRACKED, Delivery, Dispatchable
from .errors import QueueFull, RedisUnavailable
from .outcome import Outcome, Succeeded
from .session import Session
from .store.persist import wait_before

log = logging.getLogger("taskrunner.hooks")


class Ready(NamedTuple):
    """A follow-up that can be sent, again and again until the server has it. ``id``: its own, if it has one."""

    id: str
    send: Callable[[], Awaitable[object]]


Prepare = Callable[[Session, str, bytes], Ready]
"""Makes one ready under an id, with the result of the job that it follows."""


def prepared(spec: Dispatchable) -> Prepare:
    """For a job."""

    def prepare(session: Session, id: str, previous: bytes) -> Ready:
        now = session.store.clock.now()
        draft = spec.draft(spec.pack(now), now)
        if not draft.custom_id:
            draft.envelope.id = id
            draft.custom_id = True
            draft.envelope.flags |= TRACKED  # for it is known only while there is a record of it
        draft.envelope.previous = previous
        producer = session.producer
        return Ready(draft.envelope.id, lambda: producer.submit(draft, producer.partition_of(draft)))

    return prepare


class FollowUp:
    """Dispatches one each time. Called like a hook, which contains what it raises: the outcome is recorded all the
    same."""

    def __init__(self, kind: str, session: Callable[[], Session], prepare: Prepare) -> None:
        self._kind = kind
        self._session = session
        self._prepare = prepare

    async def __call__(self, delivery: Delivery, outcome: Outcome | None) -> None:
        job = delivery.envelope
        previous = outcome.result or b"" if isinstance(outcome, Succeeded) else b""
        ready = self._prepare(self._session(), f"{job.id}.{self._kind}.{job.attempt}", previous)
        attempts = 0
        try:
            while not await _sent(ready, attempts):
                attempts += 1
                await asyncio.sleep(wait_before(attempts))
        except asyncio.CancelledError:
            log.error("%s of job %s was not dispatched: the worker stops", ready.id, job.id)
            raise


async def _sent(ready: Ready, attempts: int) -> bool:
    """Whether it went out. With the server away it is waited for, as the outcome waits too."""
    try:
        await ready.send()
    except QueueFull:
        raise  # only outcomes free memory, and this one waits for us
    except RedisUnavailable as error:
        if not attempts:
            log.warning("%s waits for the server: %s", ready.id, error)
        return False
    return True
