"""What was read in the source of other task queues as a danger to jobs, and that it is none here.

``HAZARDS`` names for each the test that shows it as a user would meet it, here or beside, and then those that go to the
bottom of it, with real kills, outages and clocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import (
    Backoff,
    JobContext,
    JobFailed,
    JobNotFound,
    ResultNotKept,
    TaskRunner,
)
from taskrunner.store.keys import PartitionKeys
from taskrunner.store.store import PROMOTED, Store
from taskrunner.worker import executor
from tests.faults.fixtures import own_server
from tests.guide.references import every, is_there
from tests.programs import Program
from tests.servers import Server
from tests.waiting import eventually

__all__ = ["own_server"]

MakeRunner = Callable[..., TaskRunner]
RESERVATION = 0.8

HERE = "guide/test_hazards.py::"
RESERVATIONS = "guide/test_hazards_of_reservations.py::"
WORKFLOWS = "guide/test_hazards_of_workflows.py::"

HAZARDS: dict[str, tuple[str, ...]] = {
    "1 heartbeats on the event loop: a call that blocks it runs the task twice": (
        RESERVATIONS + "test_hazard_1_a_call_that_blocks_the_event_loop_beyond_the_reservation_runs_once",
        "worker/test_long_jobs.py::test_a_handler_that_blocks_the_loop_for_three_reservations_runs_once_and_so_do_its_bystanders",
        "worker/test_long_jobs.py::test_a_wedged_loop_loses_its_jobs_and_changes_nothing_when_it_comes_back",
    ),
    "2 one renewal per period: a single missed beat loses the task": (
        RESERVATIONS + "test_hazard_2_every_other_heartbeat_may_be_lost_without_anybody_noticing",
        "faults/test_incidents.py::test_heartbeats_survive_cut_connections_and_keep_their_jobs",
        "worker/test_heartbeats.py::test_however_long_the_server_is_away_no_beat_is_put_off_for_longer_than_its_period",
    ),
    "3 what was fetched and has not started is not renewed, and its owner not checked at the start": (
        RESERVATIONS + "test_hazard_3_what_was_fetched_and_has_not_started_is_kept_alive_too",
        "worker/test_long_jobs.py::test_a_thousand_jobs_in_one_workers_hands_outlive_their_reservation_and_run_once",
        "worker/test_stale_starts.py::test_a_job_that_has_lain_here_without_a_confirmed_beat_is_left_to_others",
        "faults/test_stopped_workers.py::test_a_stopped_worker_does_not_start_what_it_had_fetched_and_lost",
    ),
    "4 renewal ends when a stop begins": (
        RESERVATIONS + "test_hazard_4_a_stop_that_drains_for_longer_than_the_reservation_repeats_nothing",
        "worker/test_stop.py::test_a_job_is_kept_alive_until_its_worker_has_stopped",
    ),
    "5 completion is not fenced": (
        RESERVATIONS + "test_hazard_5_the_end_of_a_run_that_has_lost_its_job_is_refused",
        "faults/test_stopped_workers.py::test_the_late_result_of_a_stopped_worker_is_refused_and_counted",
        "store/test_settle_script.py::test_a_stale_token_changes_nothing",
    ),
    "6 completion in two steps": (
        HERE + "test_hazard_6_a_job_is_in_exactly_one_place_at_any_instant",
        WORKFLOWS + "test_hazard_6_of_a_chain_one_job_is_there_at_any_instant",
        "faults/test_failpoints.py::test_a_worker_that_dies_at_any_point_leaves_nothing_undone_and_nothing_behind",
        "store/test_batches.py::test_a_settle_whose_reply_was_lost_records_nothing_twice",
        "features/test_callback_jobs.py::test_a_job_that_runs_again_makes_the_same_follow_up_and_no_second",
    ),
    "7 what a job needs has a short life of its own": (
        HERE + "test_hazard_7_nothing_that_a_waiting_job_needs_ends_before_it",
        HERE + "test_hazard_7_what_is_handed_on_is_there_however_long_its_receiver_waits",
        WORKFLOWS + "test_hazard_7_what_is_handed_on_outlives_every_ttl_while_somebody_waits_for_it",
        "features/test_callback_jobs.py::test_what_was_handed_on_outlives_retries_and_waits",
        "faults/test_incidents.py::test_a_job_that_waits_for_longer_than_a_reservation_runs_once",
    ),
    "8 waiting for something that has ended and was not kept": (
        HERE + "test_hazard_8_waiting_for_what_has_ended_and_was_not_kept_ends_at_once",
        WORKFLOWS + "test_hazard_8_waiting_for_jobs_that_have_ended_and_kept_nothing_ends",
        WORKFLOWS + "test_hazard_8_a_step_that_stands_for_a_job_that_has_ended_before_goes_on_at_once",
        "features/test_results.py::test_a_job_is_unknown_when_its_result_ttl_is_over",
    ),
    "9 all due tasks promoted in one call": (
        HERE + "test_hazard_9_what_is_due_at_once_is_promoted_in_pieces",
        "store/test_promote_script.py::test_a_call_moves_two_hundred_at_most_and_says_that_more_is_due",
        "features/test_large_batches.py::test_large_jobs_that_are_due_together_all_run",
    ),
    "10 an unknown name is failed or dropped": (
        HERE + "test_hazard_10_a_name_that_this_worker_does_not_know_yet_waits_for_one_that_does",
        "features/test_unknown_tasks.py::test_it_spends_no_attempt_and_keeps_its_headers",
        "features/test_unknown_tasks.py::test_after_a_day_it_is_a_dead_letter",
    ),
    "11 redelivery that never counts": (
        HERE + "test_hazard_11_a_job_that_kills_its_worker_is_given_up",
        "faults/test_killed_workers.py::test_a_job_that_kills_its_workers_ends_as_a_dead_letter_and_its_neighbours_finish",
        "worker/test_stop.py::test_a_job_that_is_handed_back_keeps_the_count_of_its_crashes",
    ),
    "12 a group that begins at the end, or trimming as clean-up": (
        HERE + "test_hazard_12_jobs_from_before_the_first_worker_are_all_there_and_nothing_is_trimmed",
        "store/test_join_script.py::test_what_was_dispatched_before_is_read",
        "store/test_trim_script.py::test_nothing_at_or_after_an_entry_that_is_still_running_goes",
    ),
    "13 only lost connections count as an outage": (
        HERE + "test_hazard_13_any_refusal_of_the_server_is_an_outage_that_is_waited_out",
        "faults/test_refusing_servers.py::test_a_server_that_may_not_write_is_waited_for",
        "faults/test_errors.py::test_what_ends_by_itself_or_by_an_operators_hand_is_an_outage",
        "faults/test_noise.py::test_clients_that_are_unblocked_by_somebody_go_on",
    ),
}


async def test_hazard_6_a_job_is_in_exactly_one_place_at_any_instant(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    names = PartitionKeys("taskrunner", namespace, 0).queue("default")
    runner, seen = make_runner(), list[tuple[int, ...]]()

    @runner.task(max_retry=30, backoff=Backoff.constant(0.005))
    async def work(ctx: JobContext) -> None:
        if ctx.attempt < 30:
            raise ValueError

    async with runner.start():
        job = await work.with_options(delay=0.02).dispatch()
        waiting = asyncio.create_task(job.wait(timeout=20))
        while not waiting.done():
            async with redis_client.pipeline(transaction=True) as pipe:
                pipe.xlen(names.stream)
                pipe.zcard(names.due)
                pipe.hlen(names.letters)
                pipe.exists(PartitionKeys("taskrunner", namespace, 0).job(job.id))
                stream, due, letters, ended = await pipe.execute()
            assert due == letters
            seen.append((stream, due, ended))
        await waiting
    assert {sum(places) for places in seen} == {1}
    assert len(set(seen)) >= 2, "it was seen in several places"


@pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:", "live", "stream:default", "unique:")
async def test_hazard_7_nothing_that_a_waiting_job_needs_ends_before_it(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    runner = make_runner(result_ttl=0.05)
    task = runner.declare("work", unique=True)
    jobs = [await task.dispatch(1), await task.with_options(delay=1000, id="mine").dispatch(2)]
    lives = dict[str, int]()
    async for key in redis_client.scan_iter(match=f"*{namespace}*", count=1000):
        lives[key.decode().partition("}:")[2]] = await redis_client.pttl(key)
    assert {name for name, life in lives.items() if life >= 0} == {name for name in lives if name.startswith("batch:")}
    await asyncio.sleep(0.1)
    assert [str(await job.status()) for job in jobs] == ["queued", "scheduled"]


async def test_hazard_7_what_is_handed_on_is_there_however_long_its_receiver_waits(make_runner: MakeRunner) -> None:
    runner, received = make_runner(result_ttl=0.1), asyncio.Queue[Any]()

    @runner.task
    async def receive(ctx: JobContext) -> None:
        received.put_nowait(ctx.previous)

    @runner.task(on_success=receive.with_options(delay=0.5).job())
    async def hand_on() -> list[str]:
        return ["the value"]

    async with runner.start():
        job = await hand_on.dispatch()
        await eventually(lambda: _unknown(runner, job.id))
        assert await asyncio.wait_for(received.get(), 20) == ["the value"]


async def test_hazard_8_waiting_for_what_has_ended_and_was_not_kept_ends_at_once(runner: TaskRunner) -> None:
    @runner.task
    async def work() -> int:
        return 1

    async with runner.start():
        forgotten = await work.with_options(result_ttl=0.001).dispatch()
        await eventually(lambda: _unknown(runner, forgotten.id))
        with pytest.raises(JobNotFound):
            await forgotten.result(timeout=10)
        quiet = await work.with_options(ignore_result=True).dispatch()
        with pytest.raises(ResultNotKept):
            await quiet.result(timeout=10)
        with pytest.raises(JobNotFound):
            await runner.job("never was").result(timeout=10)
        await eventually(lambda: _succeeded(runner, 2))


async def _unknown(runner: TaskRunner, id: str) -> bool:
    try:
        await runner.job(id).status()
    except JobNotFound:
        return True
    return False


async def _succeeded(runner: TaskRunner, count: int) -> bool:
    return (await runner.stats()).per_task["work"].succeeded == count


async def test_hazard_9_what_is_due_at_once_is_promoted_in_pieces(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, moved = Store.promote, list[int]()

    async def promote(self: Store, *args: Any) -> Any:
        answer = await real(self, *args)
        moved.append(answer[0])
        return answer

    monkeypatch.setattr(Store, "promote", promote)
    runner, ran = make_runner(), list[int]()

    @runner.task
    async def work(n: int) -> None:
        ran.append(n)

    soon = work.with_options(delay=0.5, ignore_result=True)
    await runner.dispatch_many([soon.job(n) for n in range(1000)])
    await asyncio.sleep(0.6)
    async with runner.start():
        await eventually(lambda: len(ran) == 1000)
    assert sorted(ran) == list(range(1000))
    assert max(moved) == PROMOTED == 200


async def test_hazard_10_a_name_that_this_worker_does_not_know_yet_waits_for_one_that_does(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "UNKNOWN_WAIT", (0.05, 0.1))
    before, after = make_runner(), make_runner()

    @after.task
    async def added_by_the_deploy(n: int) -> int:
        return n

    async with before.start():
        job = await added_by_the_deploy.dispatch(7)
        await eventually(lambda: _handed_back(before))
        await asyncio.sleep(0.5)  # and again, several times
    async with after.start():
        assert await job.result(timeout=20) == 7
    assert await after.dead_letters.count() == 0


async def _handed_back(runner: TaskRunner) -> bool:
    return (await runner.stats()).scheduled == 1


@pytest.mark.crash
@pytest.mark.leaves("dead")
async def test_hazard_11_a_job_that_kills_its_worker_is_given_up(
    make_runner: MakeRunner,
    url: str,
    namespace: str,
    program: Callable[..., Program],
    redis_client: redis.asyncio.Redis,
) -> None:
    keys = PartitionKeys("taskrunner", namespace, 0)
    runner = make_runner(reservation_timeout=RESERVATION, max_deliveries=1)
    victim = program(
        f"""
        import asyncio, os, signal
        from taskrunner import TaskRunner

        runner = TaskRunner(os.environ["URL"], namespace=os.environ["NAMESPACE"], reservation_timeout={RESERVATION})

        @runner.task
        async def poison() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(runner.run())
        """,
        URL=url,
        NAMESPACE=namespace,
    )

    @runner.task
    async def poison() -> None: ...

    job = await poison.dispatch()
    assert await victim.ended() == -9
    async with runner.start():
        with pytest.raises(JobFailed) as failed:
            await job.result(timeout=20)
        await eventually(lambda: _alone(redis_client, keys))
    assert failed.value.reason == "delivery limit"


async def _alone(client: redis.asyncio.Redis, keys: PartitionKeys) -> bool:
    """Whether the dead worker has been tidied away."""
    consumers = await client.xinfo_consumers(keys.queue("default").stream, "taskrunner")
    return len(consumers) == await client.hlen(keys.worker_facts) == 1


async def test_hazard_12_jobs_from_before_the_first_worker_are_all_there_and_nothing_is_trimmed(
    make_runner: MakeRunner, redis_client: redis.asyncio.Redis, namespace: str
) -> None:
    keys = PartitionKeys("taskrunner", namespace, 0)
    stream = keys.queue("default").stream
    runner, ran = make_runner(), list[int]()

    @runner.task(ignore_result=True)
    async def work(n: int) -> None:
        ran.append(n)

    await runner.dispatch_many([work.job(n) for n in range(3000)])
    assert await redis_client.xlen(stream) == 3000
    async with runner.start():
        await eventually(lambda: len(ran) == 3000)
    assert ran == list(range(3000))
    assert await redis_client.xlen(stream) == 0, "acknowledged and deleted, one by one"
    assert await redis_client.hget(keys.janitor, "readded") is None, "nothing had to be put back"


async def no_replicas(client: redis.asyncio.Redis, stream: str) -> None:
    await client.config_set("min-replicas-to-write", 1)


async def no_group(client: redis.asyncio.Redis, stream: str) -> None:
    await client.xgroup_destroy(stream, "taskrunner")


async def unblocked(client: redis.asyncio.Redis, stream: str) -> None:
    for one in await client.client_list():
        if one["cmd"] == "xreadgroup":
            await client.execute_command("CLIENT", "UNBLOCK", one["id"], "ERROR")


async def cut_off(client: redis.asyncio.Redis, stream: str) -> None:
    await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@pytest.mark.parametrize("trouble", [no_replicas, no_group, unblocked, cut_off], ids=lambda one: one.__name__)
async def test_hazard_13_any_refusal_of_the_server_is_an_outage_that_is_waited_out(
    make_runner: MakeRunner, own_server: Server, namespace: str, trouble: Callable[..., Any]
) -> None:
    stream = PartitionKeys("taskrunner", namespace, 0).queue("default").stream
    runner, ran = make_runner(own_server.url), list[int]()

    @runner.task
    async def work(n: int) -> int:
        ran.append(n)
        return n

    async with own_server.client() as client, runner.start():
        assert await (await work.dispatch(0)).result(timeout=20) == 0
        for n in range(1, 4):
            await trouble(client, stream)
            waiting = asyncio.create_task(work.dispatch(n))
            await asyncio.sleep(0.1)
            await client.config_set("min-replicas-to-write", 0)
            assert await (await waiting).result(timeout=20) == n
        await eventually(lambda: runner.ready)
    assert ran == [0, 1, 2, 3]


@pytest.mark.parametrize("reference", every(HAZARDS))
def test_the_tests_that_are_named_here_exist(reference: str) -> None:
    assert is_there(reference)


def test_no_hazard_is_left_out() -> None:
    assert [int(line.split()[0]) for line in HAZARDS] == list(range(1, 14))
    for number, references in enumerate(HAZARDS.values(), 1):
        assert f"::test_hazard_{number}_" in references[0]
