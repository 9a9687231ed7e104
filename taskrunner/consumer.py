"""Consumer: a runner's worker, from the tasks and hooks to the running roles, and its stop."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from . import features, hooks
from .context import Surroundings
from .dead_letters import failed_job
from .envelope import Arrival, Delivery, Extra
from .feature import Recipe
from .hooking import Hooking
from .outcome import Failed
from .predecessors import Predecessors
from .priority import lane
from .processes import Processes
from .progress import ProgressReports
from .saved import SavedValues
from .scheduling import Scheduling
from .session import Session
from .store.deployment import Deployment
from .store.heart import Heart
from .task import Task
from .worker.runs import has_lapsed
from .worker.worker import Worker, WorkerOptions
from .workflow_follow_up import WorkflowFollowUps

log = logging.getLogger("taskrunner.worker")


class Home(Scheduling, Hooking):
    """What a consumer needs of its runner: the tasks, the hooks, the settings and the state for tasks."""

    state: Any


def _told(task: asyncio.Task[None]) -> None:
    """A worker that ends by a bug of ours is told of at once, and not only when somebody stops the runner."""
    if not task.cancelled() and task.exception() is not None:
        log.critical("the worker of this runner ended, and consumes no more", exc_info=task.exception())


class Consumer:
    """The worker of one runner, while it consumes."""

    def __init__(
        self,
        home: Home,
        session: Session,
        deployment: Deployment,
        queues: Sequence[str] | None = None,
        prune_schedules: bool = False,
    ) -> None:
        self._home = home
        settings = home.settings
        self._processes = Processes(settings.num_workers)
        self._saved = SavedValues(session, settings.serializer, settings.max_payload)
        self._reports = ProgressReports(session)
        self._predecessors = Predecessors(session, settings.serializer)
        self._follow_ups = WorkflowFollowUps(settings)
        self._recipes = self._compile_all()
        own = [task for task in home.tasks.values() if task.function is not None]
        queues = list(dict.fromkeys([settings.queue, *(task.queue for task in own)] if queues is None else queues))
        # A queue's own lane is always there; the others come with the first job, those of our tasks before it.
        used = (lane(task.queue, task.options["priority"]) for task in own if task.queue in queues)
        reservations = [task.options["reservation_timeout"] for task in home.tasks.values()]
        options = WorkerOptions(
            queues=queues,
            lanes=list(dict.fromkeys([*queues, *used])),
            caps={queue: number for queue, number in home.concurrency.items() if queue in queues},
            recipes=self._recipes,
            lookup=self._lookup,
            bury=self._bury if settings.failed_task_handler is not None else None,
            error=self._tell_error,
            slots=settings.num_workers,
            batch_size=settings.batch_size,
            max_deliveries=settings.max_deliveries,
            shutdown_timeout=settings.shutdown_timeout,
            max_loop_block=settings.max_loop_block,
            replication_factor=settings.replication_factor,
            hooks=home.long_queue_hooks,
            schedules=home.definitions(),
            prune_schedules=prune_schedules,
        )
        store = session.store
        # A task with a short reservation of its own needs heartbeats that fit it.
        beat = min([settings.beat, *(one / 4 for one in reservations if one is not None)])
        store.options = dataclasses.replace(store.options, beat=beat)
        heart = Heart(deployment, store.keyspace, store.options, store.clock)
        self._worker = Worker(store, heart, session.listener, options)
        session.on_notice, session.on_gap = self._worker.heard, self._worker.look_again
        session.listen()
        self._task = asyncio.create_task(self._work(), name="taskrunner-worker")
        self._task.add_done_callback(_told)

    async def _work(self) -> None:
        try:
            await self._worker.run()
        finally:
            await self._reports.close()
            await self._processes.close()

    @property
    def ready(self) -> bool:
        return self._worker.ready

    def hurry(self) -> None:
        """Ends a graceful stop at once: what still runs is cancelled and handed back."""
        self._worker.hurry()

    async def stop(self) -> None:
        """Drains gracefully. Cancelled meanwhile, it hurries, and raises that when all is handed back."""
        self._worker.stop.set()
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            self._worker.hurry()
            await self._task
            raise

    def _compile_all(self) -> dict[str, Recipe]:
        tasks = (task for task in self._home.tasks.values() if task.function is not None)
        return {task.name: self._compile(task) for task in tasks}

    def _compile(self, task: Task[..., Any], sent: dict[str, Any] | None = None) -> Recipe:
        home = self._home
        options = features.arrived(task.options, sent) if sent else None
        loads = home.settings.serializer.loads
        surroundings = Surroundings(
            home,
            home.state,
            task.options["max_retry"],
            loads,
            keeper=self._saved,
            reporter=self._reports,
            recall=self._predecessors.recall,
            lapsed=partial(has_lapsed, reservation=home.settings.reservation_timeout),
            follow_ups=self._follow_ups.prepared,
        )
        return task.recipe(home.hooks, surroundings, self._processes, options)

    def _lookup(self, delivery: Delivery) -> Recipe | None:
        """The recipe for a delivery that may carry options of its own, or be of a task that came while we run."""
        task = self._home.tasks.get(delivery.envelope.task)
        if task is None or task.function is None:
            return None
        sent = delivery.envelope.extras.get(Extra.OPTIONS)
        if sent:
            return self._compile(task, sent)
        recipe = self._recipes.get(task.name)
        if recipe is None:
            recipe = self._recipes[task.name] = self._compile(task)
        return recipe

    async def _bury(self, arrival: Arrival, failed: Failed) -> None:
        settings = self._home.settings
        if settings.failed_task_handler is not None:
            job = failed_job(arrival, failed, datetime.now(UTC), settings.serializer)
            await hooks.call(settings.failed_task_handler, job)

    async def _tell_error(self, role: str, error: BaseException) -> None:
        for hook in self._home.hooks.error:
            await hooks.call(hook, role, error)
