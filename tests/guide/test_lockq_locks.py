"""lockq's locks and modes; the table is in ``test_lockq_checklist.py``."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from taskrunner import Backoff, Job, JobContext, JobStatus, TaskRunner
from taskrunner.features import locks
from tests.faults.fixtures import own_server
from tests.guide.states import forgotten, is_in, quiet, tick
from tests.programs import Program
from tests.servers import Server
from tests.waiting import eventually

__all__ = ["own_server"]

MakeRunner = Callable[..., TaskRunner]


@pytest.fixture
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a handler's mode doesn't serve comes back at once."""
    monkeypatch.setattr(locks, "AWAY", (0.005, 0.05))


class Door:
    """A task that runs from when it is told to begin until it is let go, and what became of its runs."""

    def __init__(self, runner: TaskRunner, **options: Any) -> None:
        self.ran = list[str]()
        self.go: dict[str, asyncio.Event] = {}
        self.task = runner.task(name="work", max_retry=0, **options)(self.work)

    async def work(self, name: str) -> str:
        self.ran.append(name)
        await self.go.setdefault(name, asyncio.Event()).wait()
        return name

    async def enter(self, name: str, key: str | None = "k") -> Job[str]:
        return await self.task.with_options(lock_key=key).dispatch(name)

    def open(self, *names: str) -> None:
        for name in names:
            self.go.setdefault(name, asyncio.Event()).set()


async def test_a_producer_without_a_handler_gives_a_job_a_lock_key_or_none(make_runner: MakeRunner) -> None:
    producer, worker = make_runner(), make_runner()
    declared = producer.declare("work", lock_key="{name}")
    door = Door(worker)
    locked = [await declared.dispatch(name="a") for _ in range(2)]
    free = await declared.with_options(lock_key=None).dispatch(name="b")
    assert [(await job.info()).lock_key for job in (*locked, free)] == ["a", "a", None]
    async with worker.start():
        door.open("b")
        assert await free.result(timeout=20) == "b"
        assert await locked[1].status() is JobStatus.BLOCKED
        door.open("a")
        assert [await job.result(timeout=20) for job in locked] == ["a", "a"]


# -- one at a time ---------------------------------------------------------------------------------------------------

WORKER = """
    import asyncio, os, pathlib, time
    from taskrunner import JobContext, TaskRunner

    runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], num_workers=1, reservation_timeout=1.5)
    folder = pathlib.Path(os.environ["FOLDER"])

    async def alone(ctx: JobContext, n: int) -> int:
        marker = folder / ctx.lock_key
        marker.touch(exist_ok=False)  # fails while another job of this key runs, wherever that is
        await asyncio.sleep(0.002)
        marker.unlink()
        return n

    for name in ("one", "two"):
        runner.task(name=name, max_retry=0)(alone)

    @runner.task
    async def stay(ctx: JobContext, seconds: float, blocks: bool) -> int:
        marker = folder / ctx.lock_key
        marker.touch(exist_ok=False)
        try:
            time.sleep(seconds) if blocks else await asyncio.sleep(seconds)
        finally:
            marker.unlink()
        return os.getpid()

    @runner.task
    async def meet(n: int, others: int) -> int:
        (folder / f"here {n}").touch()
        while len(list(folder.glob("here *"))) < others:
            await asyncio.sleep(0.01)
        return os.getpid()

    asyncio.run(runner.run())
"""


@pytest.fixture
def fleet_of(
    url: str, namespace: str, program: Callable[..., Program], tmp_path: Path
) -> Callable[[int], list[Program]]:
    """Starts so many workers, each a process."""
    return lambda n: [program(WORKER, URL=url, NAMESPACE=namespace, FOLDER=str(tmp_path)) for _ in range(n)]


async def ended(workers: list[Program]) -> None:
    for worker in workers:
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0


async def test_jobs_of_a_key_are_alone_over_processes_and_tasks_and_those_of_others_run_beside_them(
    runner: TaskRunner, fleet_of: Callable[[int], list[Program]]
) -> None:
    """Three processes of one slot each. Three jobs that wait for each other can only end in all of them at once."""
    one, two, meet = (runner.declare(name) for name in ("one", "two", "meet"))
    workers = fleet_of(3)
    meeting = [await meet.with_options(lock_key=f"key {n}").dispatch(n, 3) for n in range(3)]
    assert len({await job.result(timeout=30) for job in meeting}) == 3
    tasks = (one, two)
    jobs = [await tasks[n % 2].with_options(lock_key=f"user {n % 3}").dispatch(n) for n in range(90)]
    assert [await job.result(timeout=30) for job in jobs] == list(range(90))
    await ended(workers)


async def test_only_the_end_of_its_holder_frees_a_key(runner: TaskRunner) -> None:
    door = Door(runner)
    async with runner.start():
        holder, gone, deleted, last = [await door.enter(name) for name in ("holder", "gone", "deleted", "last")]
        await eventually(lambda: is_in(holder, JobStatus.RUNNING))
        assert await gone.cancel()
        assert await runner.delete(deleted.id)
        assert not await runner.delete("never was")
        door.open("other", "last")
        await (await door.enter("other", "another key")).wait(timeout=20)
        assert await last.status() is JobStatus.BLOCKED
        assert not await runner.delete(deleted.id)
        door.open("holder")
        assert await last.result(timeout=20) == "last"
    assert door.ran == ["holder", "other", "last"]


async def test_a_thousand_jobs_of_a_held_key_keep_none_of_another_key_from_running(make_runner: MakeRunner) -> None:
    runner = make_runner(num_workers=2)
    door = Door(runner)
    async with runner.start():
        holder = await door.enter("holder")
        await eventually(lambda: is_in(holder, JobStatus.RUNNING))
        locked = door.task.with_options(lock_key="k")
        await runner.dispatch_many([locked.job(f"waiting {n}") for n in range(1000)])
        door.open("free")
        assert await (await door.enter("free", "another key")).result(timeout=20) == "free"
        assert await runner.count(state=JobStatus.BLOCKED) == 1000
        assert await runner.purge("default") == 1000
        door.open("holder")
        assert await holder.result(timeout=20) == "holder"
    assert door.ran == ["holder", "free"]


async def test_a_thousand_jobs_that_wait_for_a_lock_cost_the_server_no_polling(
    make_runner: MakeRunner, own_server: Server
) -> None:
    runner = make_runner(own_server.url, reservation_timeout=30)
    door = Door(runner)
    async with own_server.client() as client, runner.start():
        holder = await door.enter("holder")
        await eventually(lambda: is_in(holder, JobStatus.RUNNING))
        locked = door.task.with_options(lock_key="k")
        await runner.dispatch_many([locked.job(f"waiting {n}") for n in range(1000)])
        await asyncio.sleep(0.3)
        before = (await client.info("stats"))["total_commands_processed"]
        await asyncio.sleep(2.5)
        sent = (await client.info("stats"))["total_commands_processed"] - before
        assert await runner.purge("default") == 1000
        door.open("holder")
        await holder.wait(timeout=20)
    assert sent < 60, "no more than without them: not even one command a second for each"


async def test_others_of_the_key_overtake_a_job_that_waits_for_its_retry(runner: TaskRunner) -> None:
    order, waits = list[str](), list[JobStatus]()
    jobs = dict[str, Job[None]]()

    @runner.task(lock_key="k", backoff=Backoff.constant(1))
    async def work(ctx: JobContext, name: str) -> None:
        order.append(name)
        if name == "first" and ctx.attempt == 1:
            raise ValueError
        if name == "second":
            waits.append(await jobs["first"].status())

    for name in ("first", "second", "third"):
        jobs[name] = await work.dispatch(name)
    async with runner.start():
        for job in jobs.values():
            await job.result(timeout=20)
    assert order == ["first", "second", "third", "first"]
    assert waits == [JobStatus.RETRYING], "it is put aside in the step that lets the next one go"


@pytest.mark.parametrize("blocks", [False, True], ids=["it awaits", "it blocks its event loop"])
async def test_a_run_of_several_reservations_keeps_its_key(
    runner: TaskRunner, fleet_of: Callable[[int], list[Program]], blocks: bool
) -> None:
    """Where lockq's lock would have expired, the job itself would have been taken over by now."""
    stay = runner.declare("stay", lock_key="k", max_retry=0)
    workers = fleet_of(2)
    jobs = [await stay.dispatch(seconds, blocks) for seconds in (3.5, 0.0)]
    pids = [await job.result(timeout=40) for job in jobs]
    assert set(pids) <= {worker.pid for worker in workers}
    assert [(await job.info()).attempts for job in jobs] == [1, 1]
    await ended(workers)


async def test_the_key_of_a_deleted_job_is_held_until_its_run_has_ended(runner: TaskRunner) -> None:
    cut, go, order = asyncio.Event(), asyncio.Event(), list[str]()

    @runner.task(lock_key="k", max_retry=0)
    async def work(name: str) -> None:
        order.append(f"{name} begins")
        try:
            if name == "stubborn":
                await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cut.set()
            await go.wait()
        order.append(f"{name} ends")

    async with runner.start():
        stubborn, following = await work.dispatch("stubborn"), await work.dispatch("following")
        await eventually(lambda: order)
        assert await runner.delete(stubborn.id)
        await asyncio.wait_for(cut.wait(), 20)
        assert await forgotten(runner, stubborn.id)
        assert await following.status() is JobStatus.BLOCKED
        go.set()
        await following.result(timeout=20)
        await eventually(lambda: quiet(runner))
    assert order == ["stubborn begins", "stubborn ends", "following begins", "following ends"]


# -- handlers and their modes ----------------------------------------------------------------------------------------


async def test_a_job_that_no_handlers_mode_serves_waits_for_one_that_does(
    make_runner: MakeRunner, soon_again: None
) -> None:
    """By default a handler serves both kinds."""
    picky, default = make_runner(), make_runner()
    doors = [Door(picky, mode="locked"), Door(default)]
    locked, free = await doors[0].enter("locked"), await doors[0].enter("free", None)
    for door in doors:
        door.open("locked", "free")
    async with picky.start():
        assert await locked.result(timeout=20) == "locked"
        await eventually(lambda: is_in(free, JobStatus.SCHEDULED))
    async with default.start():
        assert await free.result(timeout=20) == "free"
        assert await (await doors[0].enter("locked")).result(timeout=20) == "locked"
    assert [door.ran for door in doors] == [["locked"], ["free", "locked"]]


async def test_one_task_runs_as_many_jobs_at_once_as_there_are_slots_locked_or_not(make_runner: MakeRunner) -> None:
    """lockq runs two at once at most, in one process, of each kind of task: one that is locked and one that is not."""
    runner, together = make_runner(num_workers=6), asyncio.Barrier(6)

    @runner.task
    async def meet() -> None:
        await together.wait()

    async with runner.start():
        jobs = [await meet.with_options(lock_key=str(n) if n % 2 else None).dispatch() for n in range(6)]
        for job in jobs:
            await job.result(timeout=20)


# -- with schedules --------------------------------------------------------------------------------------------------


async def test_sixty_four_keys_that_repeat_never_overlap_and_jobs_beside_them_run_exactly_once(
    make_runner: MakeRunner,
) -> None:
    runners, running, ran = [make_runner() for _ in range(3)], set[str | None](), list[str]()

    async def work(ctx: JobContext) -> None:
        assert ctx.lock_key not in running, "two at once"
        running.add(ctx.lock_key)
        ran.append(ctx.job_id)
        await asyncio.sleep(0.02)
        running.discard(ctx.lock_key)

    async def single(ctx: JobContext) -> None:
        ran.append(ctx.job_id)

    tasks = [(one.task(max_retry=0)(work), one.task(single)) for one in runners]
    keys = [f"key {n}" for n in range(64)]
    async with AsyncExitStack() as stack:
        for one in runners:
            await stack.enter_async_context(one.start())
        for n, key in enumerate(keys):
            await runners[n % 3].schedule(f"repeat {key}", tasks[0][0].job(), every=0.5, lock_key=key, catch_up="all")
        jobs = await runners[0].dispatch_many([tasks[0][1].job() for _ in range(300)])
        for job in jobs:
            await job.result(timeout=30)
        await eventually(lambda: all(len(ticks_of(ran, key)) >= 3 for key in keys))
        for key in keys:
            assert await runners[0].delete_schedule(lock_key=key) == 1
        await eventually(lambda: nothing_waits(runners[0]))
    assert len(ran) == len(set(ran))
    assert {job.id for job in jobs} <= set(ran)
    for key in keys:
        found = ticks_of(ran, key)
        assert found == list(range(found[0], found[-1] + 1, 500)), "each tick once, in their order"
    assert await runners[0].count(state=JobStatus.FAILED) == 0


def ticks_of(ran: list[str], key: str) -> list[int]:
    return [tick(id) for id in ran if id.startswith(f"repeat {key}@")]


async def nothing_waits(runner: TaskRunner) -> bool:
    return await quiet(runner) and not await runner.count(state=JobStatus.BLOCKED)
