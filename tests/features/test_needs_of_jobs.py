"""What lock keys, limits and rates make of a draft: which seats and permits its job needs, and under which key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskrunner import JobContext, Limit, Rate, Task, TaskRunner
from taskrunner.context import Surroundings
from taskrunner.envelope import KEPT, TRACKED, Delivery, Draft, Extra
from taskrunner.needs import are_sound, digest, fence, first
from taskrunner.outcome import Released
from taskrunner.processes import Processes


@pytest.fixture
def runner() -> TaskRunner:
    return TaskRunner("redis://127.0.0.1:1")  # nothing here goes to a server


def draft(task: Any, *args: Any, **kwargs: Any) -> Draft:
    spec = task.job(*args, **kwargs)
    made = spec.draft(spec.pack(0), 0)
    assert isinstance(made, Draft)
    return made


def needs(task: Any, *args: Any, **kwargs: Any) -> list[str]:
    text = draft(task, *args, **kwargs).envelope.extras.get(Extra.NEEDS, "")
    assert not text or are_sound(text)
    return text.split(",") if text else []


def lock(key: str) -> str:
    return digest("lock", key) + ":1"


async def work(user_id: int, region: str = "eu") -> None: ...


def test_a_job_with_a_lock_key_needs_the_only_seat_of_that_key(runner: TaskRunner) -> None:
    task = runner.task(lock_key="user:{user_id}")(work)
    extras = draft(task, 7).envelope.extras
    assert extras == {Extra.LOCK: "user:7", Extra.NEEDS: lock("user:7")}
    assert draft(task, user_id=7).envelope.extras == extras


def test_a_key_is_the_same_for_all_tasks(runner: TaskRunner) -> None:
    one, two = runner.task(name="one", lock_key="{user_id}")(work), runner.declare("two", lock_key="7")
    assert needs(one, 7) == needs(two)


def test_a_lock_key_may_be_a_function_that_returns_none_for_no_lock(runner: TaskRunner) -> None:
    task = runner.task(lock_key=lambda user_id, region="eu": f"{region}-{user_id}" if user_id else None)(work)
    assert draft(task, 7).envelope.extras[Extra.LOCK] == "eu-7"
    assert draft(task, 0).envelope.extras == {}


def test_a_dispatch_may_have_another_lock_key_or_none(runner: TaskRunner) -> None:
    task = runner.task(lock_key="user:{user_id}")(work)
    assert needs(task.with_options(lock_key="{region}"), 7) == [lock("eu")]
    assert needs(task.with_options(lock_key=None), 7) == []


def test_lock_limit_and_rate_are_needed_in_this_order(runner: TaskRunner) -> None:
    task = runner.task(rate_limit=Rate(100, per=60, burst=5), limit=Limit(3), lock_key="{user_id}")(work)
    own = digest("limit of task", "work"), digest("rate of task", "work")
    assert needs(task, 7) == [lock("7"), f"{own[0]}:3", f"{own[1]}@600.000000@5"]


def test_a_limit_with_a_key_is_shared_by_the_tasks_that_name_it_and_each_job_obeys_its_own_count(
    runner: TaskRunner,
) -> None:
    one = runner.task(name="one", limit=Limit(3, key="tenant:{region}"))(work)
    two = runner.declare("two", limit=Limit(4, key=lambda: "tenant:eu"), rate_limit=Rate(1, 2, key="tenant:eu"))
    name, rate = digest("limit", "tenant:eu"), digest("rate", "tenant:eu")
    assert needs(one, 7) == [f"{name}:3"]
    assert needs(two) == [f"{name}:4", f"{rate}@2000.000000@1"]


def test_locks_limits_and_rates_of_one_key_are_different_things(runner: TaskRunner) -> None:
    task = runner.declare("all", lock_key="k", limit=Limit(1, "k"), rate_limit=Rate(1, 1, "k"))
    own = runner.declare("own", lock_key="own", limit=Limit(1), rate_limit=Rate(1, 1))
    assert len({need[:32] for need in [*needs(task), *needs(own)]}) == 6


def test_a_job_with_needs_has_a_live_record_and_its_result_may_be_ignored(runner: TaskRunner) -> None:
    for options in ({"lock_key": "k"}, {"limit": Limit(1)}, {"rate_limit": Rate(1, 1)}):
        task = runner.declare(str(options), ignore_result=True, **options)
        assert draft(task).envelope.flags == TRACKED
        assert draft(runner.declare(f"kept {options}", **options)).envelope.flags == TRACKED | KEPT
    none = runner.declare("none", ignore_result=True, lock_key=lambda: None)
    assert draft(none).envelope.flags == 0


def test_the_first_need_says_in_which_partition_a_job_is(runner: TaskRunner) -> None:
    task = runner.declare("task", lock_key="k", limit=Limit(1), unique=True)
    assert draft(task).digest == digest("lock", "k")
    assert draft(task.with_options(lock_key=None)).digest == digest("limit of task", "task")
    unique = runner.declare("unique", unique=True)
    assert draft(unique).digest == draft(unique).leases[0].digest
    assert draft(runner.declare("plain")).digest is None


def test_the_longest_key_of_the_widest_characters_travels(runner: TaskRunner) -> None:
    made = draft(runner.declare("task", lock_key="{name}"), name="\U0001f600" * 1000)
    assert made.envelope.extras[Extra.LOCK] == "\U0001f600" * 1000


# -- which jobs a handler serves -----------------------------------------------------------------------------------


def recipe(runner: TaskRunner, task: Task[..., Any]) -> Any:
    return task.recipe(runner.hooks, Surroundings(runner, None, 3, json.loads), Processes(1))


@pytest.mark.parametrize(
    ("mode", "locked", "plain"), [("any", True, True), ("locked", True, False), ("unlocked", False, True)]
)
def test_a_handler_hands_back_what_its_mode_does_not_serve(
    runner: TaskRunner, mode: Any, locked: bool, plain: bool
) -> None:
    task = runner.task(mode=mode, lock_key=lambda user_id, region="": region or None)(work)
    made = recipe(runner, task)
    assert made.straight is (mode == "any"), "else those with a lock and those with nothing are looked at too"
    for region, served in (("eu", locked), ("", plain)):
        delivery = Delivery(draft(task, 7, region).envelope, "default", 0, b"1-0", 1, 0.0)
        refusals = [outcome for gate in made.gates if (outcome := gate(delivery, 0)) is not None]
        if served:
            assert refusals == []
        else:
            [refusal] = refusals
            assert isinstance(refusal, Released)
            assert 1 <= refusal.delay <= 3
            assert not refusal.unknown


def test_jobs_that_are_handed_back_do_not_come_back_together(runner: TaskRunner) -> None:
    task = runner.task(mode="unlocked", lock_key="k")(work)
    delivery = Delivery(draft(task, 7).envelope, "default", 0, b"1-0", 1, 0.0)
    [gate] = [gate for gate in recipe(runner, task).gates if gate(delivery, 0) is not None]
    assert len({gate(delivery, 0).delay for _ in range(10)}) > 1


# -- in the job ----------------------------------------------------------------------------------------------------


def context(task: Any, grant: int = 0) -> JobContext:
    delivery = Delivery(draft(task, 7).envelope, "default", 0, b"1700000000000-3", 2, 0.0, grant=grant)
    return JobContext(delivery, None)  # type: ignore[arg-type]


def test_a_job_knows_its_lock_key(runner: TaskRunner) -> None:
    assert context(runner.task(name="locked", lock_key="{user_id}")(work)).lock_key == "7"
    assert context(runner.task(name="plain")(work)).lock_key is None


def test_a_fence_is_made_of_the_grant_and_grows_with_it(runner: TaskRunner) -> None:
    task = runner.task(lock_key="{user_id}")(work)
    grants = [1_700_000_000_000_000 + n for n in (0, 1, 999, 1000, 1001, 10**9)]
    fences = [context(task, grant).fence for grant in grants]
    assert fences == [fence(grant) for grant in grants] == sorted(set(fences))
    assert 0 < fences[0] < fences[-1] < 2**63
    assert context(task).fence == 1700000000000 << 22 | 3 << 8 | 2, "without a grant it is that of the delivery"


def test_what_travels_to_a_process_has_key_and_grant(runner: TaskRunner) -> None:
    there = JobContext(context(runner.task(lock_key="{user_id}")(work), 5_000_000).alone(), None)  # type: ignore[arg-type]
    assert (there.lock_key, there.fence) == ("7", fence(5_000_000))


def test_the_digest_of_the_first_need_is_what_stands_first() -> None:
    name = digest("lock", "k")
    assert first(f"{name}:1,{digest('rate', 'k')}@5@1") == name
