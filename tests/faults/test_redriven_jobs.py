"""Dead letters that are run again while replies are lost, operators die or race: each is in exactly one place."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable

import pytest
import redis.asyncio

from taskrunner import DispatchUncertain, JobContext, NotFound, TaskRunner
from taskrunner.failpoints import VARIABLE
from taskrunner.store import wire
from taskrunner.store.keys import Keyspace
from taskrunner.store.scripts import DISPATCH
from tests.faults.proxy import Proxy
from tests.programs import Program
from tests.servers import Server
from tests.waiting import eventually

MakeRunner = Callable[..., TaskRunner]

OPERATOR = """
    import asyncio, os
    from taskrunner import TaskRunner

    async def main():
        runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"])
        print("began", flush=True)
        print(await runner.dead_letters.retry_all(), flush=True)

    asyncio.run(main())
"""


class Stage:
    """A namespace with dead letters on a server of its own, and where they stand afterwards."""

    def __init__(self, server: Server, namespace: str, make_runner: MakeRunner) -> None:
        self.server, self.namespace = server, namespace
        self.fault = True
        self.runs = Counter[str]()
        self.runner = self.staffed(make_runner(server.url))
        self.ids = list[str]()

    def staffed(self, runner: TaskRunner) -> TaskRunner:
        runner.task(name="work", max_retry=0)(self._work)
        return runner

    async def _work(self, ctx: JobContext, n: int) -> int:
        self.runs[ctx.job_id] += 1
        if self.fault:
            raise ValueError(n)
        return n

    async def bury(self, count: int) -> None:
        async with self.runner.start():
            jobs = await self.runner.dispatch_many([self.runner.tasks["work"].job(n) for n in range(count)])
            for job in jobs:
                await job.wait(timeout=30)
        self.ids = [job.id for job in jobs]
        self.runs.clear()
        self.fault = False

    async def places(self) -> dict[str, int]:
        """How many places each job stands in: those of the dead letters, which must agree, and the stream."""
        [partition] = Keyspace("taskrunner", self.namespace, 1).partitions
        names = partition.queue("default")
        async with self.server.client() as client:
            dead = [id.decode() for id in await client.zrange(names.dead, 0, -1)]
            assert sorted(dead) == sorted(id.decode() for id in await client.hkeys(names.dead_letters))
            members = await client.zrange(names.dead_tasks, 0, -1)
            assert sorted(dead) == sorted(member.decode().split("\n")[2] for member in members)
            entries = [wire.unseal(fields[b"t1"]).id for _, fields in await client.xrange(names.stream)]
        return dict(Counter([*dead, *entries]))

    async def in_one_place_each(self) -> None:
        assert await self.places() == dict.fromkeys(self.ids, 1)

    async def run_all(self) -> None:
        """Lets those that are queued run, and sees to it that each ran once."""
        async with self.runner.start():
            for id in self.ids:
                await self.runner.job(id).wait(timeout=30)
        assert self.runs == Counter(self.ids)


@pytest.fixture
def stage(own_server: Server, namespace: str, make_runner: MakeRunner) -> Stage:
    return Stage(own_server, namespace, make_runner)


@pytest.mark.parametrize("lost", [1, 3])
async def test_a_dead_job_whose_redrive_gets_no_reply_is_queued_once(
    stage: Stage, proxy: Proxy, make_runner: MakeRunner, lost: int
) -> None:
    await stage.bury(3)
    operator = make_runner(proxy.url)
    loss = proxy.lose(DISPATCH.sha, times=lost)
    for id in stage.ids:
        assert (await operator.dead_letters.retry(id)).id == id
    assert loss.lost == lost
    await stage.in_one_place_each()
    assert await stage.runner.dead_letters.count() == 0
    await stage.run_all()


async def test_all_dead_jobs_whose_redrive_loses_replies_are_queued_once_and_counted_once(
    stage: Stage, proxy: Proxy, make_runner: MakeRunner
) -> None:
    await stage.bury(700)
    operator = make_runner(proxy.url)
    loss = proxy.lose(DISPATCH.sha, times=3)
    assert await operator.dead_letters.retry_all() == 700
    assert loss.lost == 3
    await stage.in_one_place_each()
    await stage.run_all()


async def test_a_redrive_without_any_answer_is_told_as_uncertain_and_can_be_done_again(
    stage: Stage, proxy: Proxy, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.bury(1)
    monkeypatch.setattr("taskrunner.producer.PATIENCE", 0.3)
    operator = make_runner(proxy.url)
    loss = proxy.lose(DISPATCH.sha, times=1000)
    with pytest.raises(DispatchUncertain) as caught:
        await operator.dead_letters.retry(stage.ids[0])
    assert caught.value.job_id == stage.ids[0]
    assert loss.lost >= 1
    await stage.in_one_place_each()
    with pytest.raises(NotFound):
        await stage.runner.dead_letters.retry(stage.ids[0])
    await stage.run_all()


@pytest.mark.parametrize("point", ["before_dispatch", "after_dispatch"])
@pytest.mark.parametrize("batch", [1, 2])
async def test_a_redrive_of_all_whose_operator_is_killed_has_lost_none_and_doubled_none(
    stage: Stage, program: Callable[..., Program], point: str, batch: int
) -> None:
    await stage.bury(700)
    place = {"URL": stage.server.url, "NAMESPACE": stage.namespace}
    operator = program(OPERATOR, **place, **{VARIABLE: f"{point}=kill@{batch}"})
    assert await operator.ended() == -signal.SIGKILL
    await stage.in_one_place_each()
    queued = 200 * (batch - (point == "before_dispatch"))
    assert await stage.runner.dead_letters.count() == 700 - queued
    assert await stage.runner.dead_letters.retry_all() == 700 - queued
    await stage.in_one_place_each()
    await stage.run_all()


async def test_a_redrive_of_all_that_is_cancelled_anywhere_has_lost_none_and_doubled_none(stage: Stage) -> None:
    await stage.bury(700)
    turns, left = 0, 700
    while left:
        turns += 1
        redrive = asyncio.create_task(stage.runner.dead_letters.retry_all())
        for _ in range(10 * turns):  # a turn of the loop later each time
            await asyncio.sleep(0)
        redrive.cancel()
        await asyncio.wait([redrive])
        await stage.in_one_place_each()
        left = await stage.runner.dead_letters.count()
    assert turns > 2
    await stage.run_all()


async def test_operators_who_run_all_again_at_once_and_one_who_deletes_share_them_out(
    stage: Stage, make_runner: MakeRunner
) -> None:
    await stage.bury(900)
    operators = [make_runner(stage.server.url) for _ in range(3)]
    again = [runner.dead_letters.retry_all() for runner in operators]
    *queued, deleted = await asyncio.gather(*again, stage.runner.dead_letters.purge())
    assert sum(queued) + deleted == 900
    places = await stage.places()
    assert len(places) == sum(queued)
    assert set(places.values()) <= {1}


async def test_while_all_are_full_and_fail_again_none_is_dropped_that_is_not_counted(
    stage: Stage, make_runner: MakeRunner
) -> None:
    runner = stage.staffed(make_runner(stage.server.url, max_dead_letters=100))
    async with runner.start():
        jobs = await runner.dispatch_many([runner.tasks["work"].job(n) for n in range(300)])
        for job in jobs:
            await job.wait(timeout=30)
        assert (await runner.dead_letters.count(), await runner.dead_letters.dropped()) == (100, 200)
        assert await runner.dead_letters.retry_all() == 100
        fresh = await runner.dispatch_many([runner.tasks["work"].job(n) for n in range(50)])
        for job in fresh:
            await job.wait(timeout=30)

        async def failed_again() -> bool:
            return await runner.dead_letters.count() + await runner.dead_letters.dropped() == 350

        await eventually(failed_again)
        assert await runner.dead_letters.count() == 100
    assert set((await stage.places()).values()) == {1}


async def test_dead_letters_survive_a_killed_server_that_has_an_append_only_file_and_run_again(
    persistent_server: Server, namespace: str, make_runner: MakeRunner
) -> None:
    stage = Stage(persistent_server, namespace, make_runner)
    await stage.bury(50)
    assert [await stage.runner.dead_letters.retry(id) for id in stage.ids[:10]]
    persistent_server.kill()
    await persistent_server.start()
    await stage.in_one_place_each()
    assert await stage.runner.dead_letters.retry_all() == 40
    await stage.run_all()


async def test_a_full_server_lets_the_dead_run_again(stage: Stage) -> None:
    await stage.bury(20)
    async with stage.server.client() as client:
        await fill(client)
        assert await stage.runner.dead_letters.retry_all() == 20
        await client.config_set("maxmemory", "0")
    await stage.in_one_place_each()
    await stage.run_all()


async def fill(client: redis.asyncio.Redis) -> None:
    await client.config_set("maxmemory", "1mb")
    with pytest.raises(redis.asyncio.RedisError, match="maxmemory"):
        await client.set("one more", "x")
