"""TaskLocker, the Go limiter whose users should feel at home here: what it promises, and which test shows it for us.

``PROMISES`` goes through its behaviours one by one, ``WEAKNESSES`` through what goes wrong in it and must not here. Its
``AcquireLock(ctx, client, prefix, postfix, allowed, timeout)`` is ``runner.limiter(prefix, limit=allowed,
timeout=timeout).acquire(postfix)``, its ``ReleaseLock`` is ``release``. Where the two differ on purpose, the line says
how ours is.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from taskrunner import Limiter, RedisUnavailable, TaskRunner
from taskrunner.needs import digest
from taskrunner.store.keys import Keyspace
from tests.faults.fixtures import own_server
from tests.guide.references import every, is_there
from tests.servers import Server

__all__ = ["own_server"]

MakeRunner = Callable[..., TaskRunner]
HERE = "guide/test_tasklocker_checklist.py::"
ACQUIRE = "limiter/test_acquire.py::"
SLOT = "limiter/test_slot.py::"
WAITING = "limiter/test_waiting.py::"
CRASHES = "limiter/test_crashes.py::"
BAD = "limiter/test_bad_input.py::"
RACE = "limiter/test_race.py::"

PROMISES: dict[str, tuple[str, ...]] = {
    "1 acquiring and releasing are one call each, and say yes or no": (
        HERE + "test_the_example_of_its_readme",
        ACQUIRE + "test_after_a_release_one_more_is_let_in",
    ),
    "2 yes while fewer than the limit are alive, else no, which is no error": (
        HERE + "test_the_example_of_its_readme",
        ACQUIRE + "test_as_many_as_the_limit_acquire_a_slot_and_the_others_are_refused_at_once",
    ),
    "3 of six callers at the same time exactly three get one": (
        HERE + "test_six_callers_at_the_same_time_in_six_processes_are_three",
        ACQUIRE + "test_as_many_as_the_limit_acquire_a_slot_and_the_others_are_refused_at_once",
    ),
    "4 acquiring never waits; here, who wants to wait uses a slot": (
        HERE + "test_acquiring_asks_the_server_once",
        SLOT + "test_no_wait_is_no_wait",
        SLOT + "test_a_wait_that_is_over_is_told_and_leaves_the_line",
    ),
    "5 who never releases is out after the timeout": (
        ACQUIRE + "test_a_slot_ends_by_itself_after_its_timeout_by_the_servers_clock",
        CRASHES + "test_the_slot_of_a_killed_holder_goes_to_the_next_in_line_when_it_expires",
    ),
    "6 after a release or an expiry one more gets in": (
        ACQUIRE + "test_after_a_release_one_more_is_let_in",
        ACQUIRE + "test_a_slot_ends_by_itself_after_its_timeout_by_the_servers_clock",
    ),
    "7 each name counts for itself": (ACQUIRE + "test_limiters_of_different_names_do_not_concern_each_other",),
    "8 a release frees what this holder has and nothing else; without a hold it is no error": (
        ACQUIRE + "test_releasing_what_is_not_held_is_no_error_and_frees_nothing",
        ACQUIRE + "test_only_the_holder_can_release_or_renew_and_nobody_else_changes_anything",
    ),
    "9 a limit of nothing lets nobody in; here it is refused before anything is written": (
        BAD + "test_a_limit_that_can_not_be_is_refused",
    ),
    "10 another limit holds from the next call on": (ACQUIRE + "test_another_limit_holds_from_the_next_call_on",),
    "11 an id that holds a slot is refused, below the limit too; here it is renewed by renew": (
        ACQUIRE + "test_an_id_that_holds_a_slot_is_refused_another_one_here_and_elsewhere",
        ACQUIRE + "test_renewing_extends_a_slot_from_now_on",
    ),
    "12 that an id holds one already is seen before the limit, and its expiry stays; who holds can be listed": (
        ACQUIRE + "test_a_second_acquire_of_the_same_id_does_not_extend_the_first",
        ACQUIRE + "test_the_holders_are_told_with_their_expiry_oldest_first",
    ),
    "13 here each holder has an expiry of its own": (
        ACQUIRE + "test_the_keys_of_holders_end_with_the_last_of_them",
        HERE + "test_an_acquire_does_not_extend_the_others",
    ),
    "14 a server that fails is an error and no yes": (HERE + "test_a_server_that_is_away_is_an_error_and_no_answer",),
}

WEAKNESSES: dict[str, tuple[str, ...]] = {
    "W1 counting and taking were two steps, so racing callers all came in": (
        RACE + "test_two_hundred_acquirers_in_four_processes_are_never_four_at_once_and_never_fewer_than_three",
        RACE + "test_many_at_the_limit_from_one_process_are_exact_to_the_last_slot",
    ),
    "W2 it searched all keys of the server, and signs in a name meant something": (
        HERE + "test_no_call_searches_the_keys_of_the_server",
        ACQUIRE + "test_a_name_with_signs_that_mean_something_to_redis_is_just_a_name",
    ),
    "W3 anybody released anybody, and who was late the next holder": (
        ACQUIRE + "test_only_the_holder_can_release_or_renew_and_nobody_else_changes_anything",
        ACQUIRE + "test_who_lost_a_slot_does_not_free_that_of_the_next_holder_of_the_same_id",
        CRASHES + "test_a_holder_that_stood_still_for_longer_than_its_timeout_has_lost_its_slot_and_hears_of_it",
    ),
    "W4 longer work exceeded the limit in silence, and nothing told old holders from new ones": (
        SLOT + "test_a_slot_renews_itself",
        SLOT + "test_a_body_whose_slot_is_gone_is_cancelled_and_slot_lost_raised_in_its_place",
        SLOT + "test_the_fence_grows_with_every_hand_over",
    ),
    "W5 a timeout was whole seconds, and none was an error of the server": (
        ACQUIRE + "test_a_timeout_of_fifty_milliseconds_is_fifty_milliseconds",
        BAD + "test_a_timeout_that_can_not_be_is_refused",
    ),
    "W6 not for a cluster, and an error ended the process": (
        HERE + "test_all_keys_of_a_limiter_are_in_one_slot_of_a_cluster",
        ACQUIRE + "test_a_limiter_works_over_several_partitions",
        HERE + "test_a_server_that_is_away_is_an_error_and_no_answer",
    ),
}


async def test_the_example_of_its_readme(runner: TaskRunner) -> None:
    limiter = runner.limiter("google_places", limit=3, timeout=60)
    assert [await limiter.acquire(f"request {n}") for n in range(6)] == [True, True, True, False, False, False]
    assert await limiter.release("request 0") is True
    assert await limiter.release("request 0") is False
    assert await limiter.acquire("request 3") is True


async def test_six_callers_at_the_same_time_in_six_processes_are_three(make_runner: MakeRunner) -> None:
    limiters = [make_runner().limiter("google_places", limit=3, timeout=60) for _ in range(6)]
    taken = await asyncio.gather(*(one.acquire(f"request {n}") for n, one in enumerate(limiters)))
    assert sum(taken) == 3


async def test_acquiring_asks_the_server_once(own_server: Server) -> None:
    async with own_server.client() as client, TaskRunner(own_server.url, namespace="x") as runner:
        limiter = runner.limiter("places", limit=1, timeout=60)
        await limiter.acquire("one")
        await client.config_resetstat()
        assert not await limiter.acquire("two")
        stats = await client.info("commandstats")
        assert stats["cmdstat_evalsha"]["calls"] == 1
        assert "cmdstat_eval" not in stats


async def test_an_acquire_does_not_extend_the_others(runner: TaskRunner) -> None:
    limiter = runner.limiter("places", limit=3, timeout=60)
    await limiter.acquire("one")
    [before] = await limiter.holders()
    await limiter.acquire("two")
    await limiter.release("two")
    assert await limiter.holders() == [before]


async def test_a_server_that_is_away_is_an_error_and_no_answer(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.store.slots.PATIENCE", 0.2)
    async with TaskRunner(own_server.url, namespace="x") as runner:
        limiter = runner.limiter("places", limit=1, timeout=60)
        own_server.kill()
        for call in (limiter.acquire("one"), limiter.release("one"), limiter.renew("one")):
            with pytest.raises(RedisUnavailable, match="can't be used now"):
                await call
        with pytest.raises(RedisUnavailable, match="can't be used now"):
            async with limiter.slot("one"):
                pytest.fail("it has no slot")
        await own_server.start()
        assert await limiter.acquire("one")


async def test_no_call_searches_the_keys_of_the_server(own_server: Server) -> None:
    async with own_server.client() as client, TaskRunner(own_server.url, namespace="x") as runner:
        limiter = runner.limiter("places*", limit=1, timeout=60)
        await client.config_resetstat()
        await limiter.acquire("one")
        await limiter.renew("one")
        await limiter.holders()
        await limiter.release("one")
        async with limiter.slot("two"):
            pass
        used = set(await client.info("commandstats"))
        assert "cmdstat_zadd" in used
        assert not used & {"cmdstat_keys", "cmdstat_scan"}


@given(st.text(st.sampled_from("ab.{}:*?[] "), min_size=1, max_size=8))
def test_all_keys_of_a_limiter_are_in_one_slot_of_a_cluster(name: str) -> None:
    [keys] = Keyspace("taskrunner", "x", 1).partitions
    found = {key_slot(key.encode()) for key in (*keys.slots(digest("limiter", name)), keys.janitor, keys.batch("c"))}
    assert len(found) == 1


def test_every_method_explains_itself() -> None:
    for name in ("acquire", "release", "renew", "holders", "slot"):
        assert inspect.getdoc(getattr(Limiter, name))


@pytest.mark.parametrize("reference", every(PROMISES, WEAKNESSES))
def test_the_tests_that_are_named_here_exist(reference: str) -> None:
    assert is_there(reference)


def test_no_promise_is_left_out() -> None:
    assert {int(line.split()[0]) for line in PROMISES} == set(range(1, 15))
    assert {line.split()[0] for line in WEAKNESSES} == {f"W{n}" for n in range(1, 7)}
