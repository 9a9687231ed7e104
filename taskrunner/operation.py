"""Operation: what people do who look after queues. Nothing here is on a job's way."""

from __future__ import annotations

from typing import Any

from .errors import TaskOptionError
from .job import JobInfo, JobStatus, info_of
from .options import name, whole
from .session import Session

STATES = tuple(status.value for status in JobStatus)


class Operation:
    """What operators ask of a runner, and what they tell it to do."""

    async def opened(self) -> Session:
        """The session, connected. Raises RedisError."""
        raise NotImplementedError

    async def count(self, queue: str | None = None, task: str | None = None, state: str = "queued") -> int:
        """How many jobs are in a state: of a queue (None: of all), of one task (None: of all).

        ``state`` is a ``JobStatus`` or its name: queued is ready and not started, scheduled waits for its time. Those
        that failed are counted as long as they are dead letters; those that succeeded, were cancelled or expired as
        long as they are known (``result_ttl``), and only the latest 1,000 of a queue. What waits for its turn in a
        workflow is no job yet and in no queue: it counts when its turn has come. Raises TaskOptionError.

            waiting = await runner.count("mail", task="send")
        """
        chosen, of_queue = _state(state), _queue(queue)
        session = await self.opened()
        return await session.read(lambda inspection: inspection.listing.count(chosen, of_queue, _task(task)))

    async def jobs(self, state: str, queue: str | None = None, limit: int = 100) -> list[JobInfo]:
        """Up to ``limit`` jobs in a state, of a queue or of all. States as for ``count``.

        Those that wait come first in, or next due, first; those that have ended newest first. Jobs go on meanwhile, so
        what is listed may be elsewhere when it is looked at. Raises TaskOptionError.

            for job in await runner.jobs("running"):
                print(job.id, job.task, job.worker)
        """
        chosen, of_queue, most = _state(state), _queue(queue), whole(limit, "limit", 1)
        session = await self.opened()
        listed = await session.read(lambda inspection: inspection.listing.jobs(chosen, of_queue, most))
        return [info_of(one, chosen) for one in listed]

    async def pause(self, queue: str | None = None) -> None:
        """Pauses a queue, or all queues (None): no worker starts a job of it until it is resumed.

        When this returns it is written, and all workers that can be reached have obeyed: what is dispatched from now on
        does not start. One that does not answer within a second (frozen, cut off) obeys when it hears of it, 5 s after
        it is back at the latest. What runs goes on. Dispatching, due times and retries go on too, so jobs gather. Lasts
        until ``resume``, through restarts of workers. Raises TaskOptionError, RedisError.

            await runner.pause("mail")
        """
        chosen = _queue(queue) or "*"
        await (await self.opened()).pause(chosen)

    async def resume(self, queue: str | None = None) -> None:
        """Ends the pause of a queue; without one, all pauses. A queue's own ``resume`` doesn't end a pause of all.

        Raises TaskOptionError, RedisError.
        """
        chosen = _queue(queue) or "*"
        await (await self.opened()).resume(chosen)

    async def delete(self, id: str) -> bool:
        """Removes a job and all that is known of it: outcome, saved value, progress, dead letter. False: it is unknown.

        One that has not ended is cancelled, without a record: its run is cut, its unique key is free, and whoever waits
        for it gets JobNotFound. Raises RedisUnavailable.

            await runner.delete("import-2026-11-23")
        """
        return await (await self.opened()).delete(id)

    async def delete_result(self, id: str) -> bool:
        """Removes what is known of the outcome of a job that has ended: its record, saved value and progress, and its
        line in ``runner.jobs``. False: it has not ended, or nothing is known of it; so a second time.

        A live job is left alone, and so is the dead letter of one that failed (``runner.dead_letters``). Whoever asks
        for the result from now on gets JobNotFound, and an ``id`` of yours is free again. Raises RedisUnavailable.

            report = await job.result()
            await runner.delete_result(job.id)  # it was large, or nobody else's business
        """
        return await (await self.opened()).delete_result(id)

    async def purge(self, queue: str) -> int:
        """Cancels all jobs of a queue that wait: ready, for their time, for a retry, for another job. Returns how many.

        What runs goes on, what comes in meanwhile stays, and so do dead letters. A workflow ends as if its job had been
        cancelled; what waits for its turn in one is in no queue yet. Whoever waits for a job gets JobCancelled;
        ``on_cancel`` hooks are not called. Raises TaskOptionError for a wrong name, RedisUnavailable.

            print(await runner.purge("mail"), "mails will not be sent")
        """
        return await (await self.opened()).purge(name(queue, "queue"))


def _state(value: Any) -> str:
    if value not in STATES:
        raise TaskOptionError(f"state must be one of {', '.join(STATES)}, not {value!r}")
    return JobStatus(value).value


def _queue(value: str | None) -> str | None:
    return None if value is None else name(value, "queue")


def _task(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TaskOptionError(f"task must be the name of a task, not {value!r}")
    return value
