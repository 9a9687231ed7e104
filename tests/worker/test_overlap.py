"""While the server is asked for the seats of some jobs the next ones are fetched; whatever happens meanwhile, each of
them is run once, and the room that there is for them is not taken twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from taskrunner import Job, JobContext, TaskRunner
from taskrunner.errors import RedisConfigurationError
from taskrunner.outcome import Released
from taskrunner.store.seating import Seating
from taskrunner.worker.fetcher import Fetcher
from tests.waiting import eventually
from tests.worker.entrance import Entrance, job, names, plain

NEVER = 300
"""A reservation in seconds that no test waits for."""


@pytest.fixture
async def entrance() -> Entrance:
    return Entrance()


@asynccontextmanager
async def at_work(fetcher: Fetcher) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(fetcher.run())
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def settled() -> None:
    """Whatever can go on without anybody has done so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def arrived(entrance: Entrance, count: int) -> list[str]:
    return [(await asyncio.wait_for(entrance.inventory.inbox.get(), 20)).envelope.id for _ in range(count)]  # type: ignore[union-attr]


# -- the next fetch ----------------------------------------------------------------------------------------------------


async def test_a_fetch_goes_on_while_it_is_asked_and_leaves_the_room_to_those(entrance: Entrance) -> None:
    entrance.server.go.clear()
    async with at_work(entrance.fetcher([job("a"), job("b"), job("c")])):
        await eventually(lambda: len(entrance.reader.counts) == 2)
        assert entrance.reader.counts == [10, 7]
        assert entrance.inventory.in_hand == 0
        entrance.server.go.set()
        assert await arrived(entrance, 3) == ["a", "b", "c"]


async def test_where_those_that_are_asked_for_fill_all_slots_nothing_more_is_fetched() -> None:
    entrance = Entrance(slots=2)
    entrance.server.refused = {"b"}
    entrance.server.go.clear()
    async with at_work(entrance.fetcher([job("a"), job("b")], [job("c")])):
        await eventually(lambda: entrance.server.asked)
        await settled()
        assert entrance.reader.counts == [2]
        entrance.server.go.set()
        assert sorted(await arrived(entrance, 2)) == ["a", "c"]
        assert entrance.reader.counts == [2, 1], "in the place of the one that was refused"


async def test_they_are_asked_for_one_batch_after_the_other_and_keep_their_order(entrance: Entrance) -> None:
    entrance.server.go.clear()
    async with at_work(entrance.fetcher([job("a")], [job("b"), plain("c")], [job("d")])):
        await eventually(lambda: len(entrance.reader.counts) == 2)
        await settled()
        assert [ids for *_, ids in entrance.server.asked] == [["a"]]
        entrance.server.go.set()
        assert sorted(await arrived(entrance, 4)) == ["a", "b", "c", "d"]
        assert [ids for *_, ids in entrance.server.asked] == [["a"], ["b"], ["d"]]


async def test_of_a_queue_with_a_cap_no_more_is_fetched_than_may_run() -> None:
    entrance = Entrance(caps={"default": 2})
    entrance.server.go.clear()
    async with at_work(entrance.fetcher([job("a"), job("b")], [job("c")], capped="default")):
        await eventually(lambda: entrance.server.asked)
        await settled()
        entrance.server.go.set()
        await eventually(lambda: entrance.inventory.in_hand == 2)
        await settled()
        assert entrance.reader.counts == [2]
        assert entrance.inventory.outbox == [], "nothing has to go back, with its permit spent"


async def test_what_became_old_meanwhile_is_not_started_before_a_sweep_says_that_it_is_still_ours(
    entrance: Entrance,
) -> None:
    entrance.server.go.clear()
    late = plain("late")
    async with at_work(entrance.fetcher([job("a")], [late])):
        await eventually(lambda: len(entrance.reader.counts) == 2)
        await settled()
        late.fetched_at -= 3.5 * entrance.server.options.beat  # as if the answer had taken so long
        swept = entrance.server.swept
        entrance.server.go.set()
        await eventually(lambda: entrance.server.swept > swept)
        await settled()
        assert names(entrance.inventory.inbox.empty()) == ["a"]
        assert late not in entrance.inventory.held


# -- an admission that fails -------------------------------------------------------------------------------------------


async def test_after_an_admission_that_failed_a_sweep_brings_what_it_asked_for_and_what_was_fetched_meanwhile(
    entrance: Entrance,
) -> None:
    a, b, c = job("a"), job("b"), plain("c")
    entrance.server.go.clear()
    async with at_work(entrance.fetcher([a], [b, c])):
        await eventually(lambda: len(entrance.reader.counts) == 2)
        entrance.server.pending, entrance.server.away = [a, b, c], True
        entrance.server.go.set()
        await eventually(lambda: len(entrance.server.asked) >= 2)
        entrance.server.away = False
        assert sorted(await arrived(entrance, 3)) == ["a", "b", "c"]
        await eventually(lambda: len(entrance.reader.counts) == 3)
        await settled()
        assert entrance.inventory.inbox.empty() == [], "none of them twice"
        assert (entrance.inventory.held, entrance.inventory.in_hand) == ({a, b, c}, 3)


async def test_an_admission_that_fails_ends_the_fetch_that_waits_for_jobs(entrance: Entrance) -> None:
    a = job("a")
    entrance.server.go.clear()
    async with at_work(entrance.fetcher([a])):
        await eventually(lambda: len(entrance.reader.counts) == 2)
        entrance.server.pending, entrance.server.away = [a], True
        entrance.server.go.set()
        await eventually(lambda: len(entrance.server.asked) >= 2)
        entrance.server.away = False
        assert await arrived(entrance, 1) == ["a"]


async def test_an_admission_that_is_refused_is_told_and_the_next_start_sweeps(entrance: Entrance) -> None:
    a = job("a")
    entrance.server.error = RedisConfigurationError("NOPERM")
    fetcher = entrance.fetcher([a], [plain("b")])
    with pytest.raises(RedisConfigurationError):
        await asyncio.wait_for(fetcher.run(), 20)
    entrance.server.error, entrance.server.pending = None, [a]
    async with at_work(fetcher):
        assert await arrived(entrance, 1) == ["a"]


async def test_a_fetcher_that_could_not_ask_sweeps_and_asks_again(entrance: Entrance) -> None:
    one = job("a")
    entrance.server.away, entrance.server.pending = True, [one]
    async with at_work(entrance.fetcher([one], [plain("b")])):
        await eventually(lambda: len(entrance.server.asked) >= 3)
        assert one not in entrance.inventory.held
        entrance.server.away = False
        assert "a" in await arrived(entrance, 1)
        assert one.grant


# -- a stop ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [10, 1], ids=["while it fetches", "while there is no room"])
async def test_a_stop_waits_for_the_admission_that_is_under_way(slots: int) -> None:
    entrance = Entrance(slots)
    entrance.server.go.clear()
    fetcher = entrance.fetcher([job("a")])
    async with at_work(fetcher):
        await eventually(lambda: entrance.server.asked)
        await settled()
        stopping = asyncio.create_task(fetcher.stop())
        await settled()
        assert not fetcher.done.is_set()
        entrance.server.go.set()
        await asyncio.wait_for(stopping, 20)
        assert names(entrance.inventory.empty_inbox()) == ["a"], "it is in the books, and can be handed back"


async def test_what_is_fetched_while_a_stop_waits_for_an_admission_goes_back_unasked(entrance: Entrance) -> None:
    entrance.server.go.clear()
    b = job("b")
    fetcher = entrance.fetcher([job("a")], [b])
    async with at_work(fetcher):
        await eventually(lambda: len(entrance.reader.counts) == 2)
        stopping = asyncio.create_task(fetcher.stop())
        await settled()
        entrance.server.go.set()
        await asyncio.wait_for(stopping, 20)
    assert [ids for *_, ids in entrance.server.asked] == [["a"]]
    assert [(one.delivery, one.outcome) for one in entrance.inventory.outbox] == [(b, Released())]


async def test_a_stop_ends_when_the_admission_fails_and_leaves_it_to_the_last_sweep(entrance: Entrance) -> None:
    entrance.server.go.clear()
    a = job("a")
    fetcher = entrance.fetcher([a])
    async with at_work(fetcher):
        await eventually(lambda: len(entrance.reader.counts) == 2)
        stopping = asyncio.create_task(fetcher.stop())
        await settled()
        entrance.server.away, entrance.server.pending = True, [a]
        entrance.server.go.set()
        await asyncio.wait_for(stopping, 20)
    assert await fetcher.sweep() == [a]


async def test_a_fetcher_that_is_cancelled_leaves_no_admission_behind(entrance: Entrance) -> None:
    entrance.server.go.clear()
    before = asyncio.all_tasks()
    async with at_work(entrance.fetcher([job("a")])):
        await eventually(lambda: len(entrance.reader.counts) == 2)
    await settled()
    assert asyncio.all_tasks() <= before
    assert entrance.inventory.held == set(), "a sweep would find it"


# -- with a server -----------------------------------------------------------------------------------------------------


class Admissions:
    """Admissions by the short way stand still, before or after the server has seen them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        sit = Seating.sit

        async def slow(seating: Seating, *arguments: Any) -> list[int]:
            grants = [] if when == "before" else await sit(seating, *arguments)
            self.reached.set()
            await self.go.wait()
            return grants or await sit(seating, *arguments)

        monkeypatch.setattr(Seating, "sit", slow)

    async def stand_still(self, runner: TaskRunner, work: Any) -> list[Job[int]]:
        """Three jobs: for the first the server is asked, the second is in line behind it, the third is fetched."""
        jobs = [await work.dispatch(0)]
        await asyncio.wait_for(self.reached.wait(), 20)
        jobs += [await work.dispatch(n) for n in (0, 1)]
        await eventually(lambda: are_fetched(runner, 2))
        return jobs


async def are_fetched(runner: TaskRunner, count: int) -> bool:
    store = runner.session().store
    stream = store.partitions[0].queue("default").stream
    pending = await store.control(store.partitions[0]).call("XPENDING", stream, store.options.group)
    return bool(pending[0] == count)


def counting(runner: TaskRunner, runs: list[tuple[int, int]]) -> Any:
    @runner.task(name="work", lock_key="user:{n}")
    async def work(ctx: JobContext, n: int) -> int:
        runs.append((n, ctx.deliveries))
        return n

    return work


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_comes_while_it_is_asked_is_fetched_and_runs_once(
    when: str, make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    admissions, runner, runs = Admissions(monkeypatch, when), make_runner(reservation_timeout=NEVER), list[Any]()
    work = counting(runner, runs)
    async with runner.start():
        try:
            jobs = await admissions.stand_still(runner, work)
        finally:
            admissions.go.set()
        assert [await job.result(timeout=20) for job in jobs] == [0, 0, 1]
    assert sorted(runs) == [(0, 1), (0, 1), (1, 1)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_stop_while_it_is_asked_loses_nothing_and_runs_nothing_twice(
    when: str, make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, runs = make_runner(reservation_timeout=NEVER), make_runner(reservation_timeout=NEVER), list[Any]()
    work = counting(one, runs)
    counting(other, runs)
    stop = Fetcher.stop

    async def let_go(fetcher: Fetcher) -> None:
        asyncio.get_running_loop().call_soon(admissions.go.set)
        await stop(fetcher)

    with monkeypatch.context() as patch:
        admissions = Admissions(patch, when)
        patch.setattr(Fetcher, "stop", let_go)
        async with one.start():
            try:
                jobs = await admissions.stand_still(one, work)
            except BaseException:
                admissions.go.set()
                raise
    async with other.start():
        assert [await job.result(timeout=20) for job in jobs] == [0, 0, 1]
    assert sorted(runs) == [(0, 1), (0, 1), (1, 1)]
