"""Ids, tokens and the making of drafts."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from taskrunner import PayloadError, TaskOptionError
from taskrunner.envelope import KEPT, TRACKED, Draft, Extra, Lease, new_id
from taskrunner.features import DEFAULTS, choose
from taskrunner.features.unique import digest
from taskrunner.payload import JSON, Packer
from taskrunner.plan import Plan


def test_a_hundred_thousand_ids_are_different_and_sorted() -> None:
    ids = [new_id() for _ in range(100_000)]
    assert len(set(ids)) == 100_000
    by_time = [id[:16] for id in ids]
    assert by_time == sorted(by_time), "by the time they were made, fractions of a millisecond included"


def test_an_id_is_a_uuid_of_version_7_with_its_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    for id in ids:
        parsed = uuid.UUID(hex=id)
        assert (parsed.version, parsed.variant, parsed.hex) == (7, uuid.RFC_4122, id)
        assert before <= int(id[:12], 16) <= after


def plan(base: dict[str, Any] | None = None, **given: Any) -> Plan:
    options = choose(DEFAULTS, base or {}, "task 'task'", dispatch=False)
    return Plan("task", "default", options, Packer("task", None, JSON(), 1000), given)


def draft_of(plan: Plan, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, now: int = 0) -> Draft:
    return plan.draft(args, kwargs or {}, now)


def test_a_plain_draft_has_no_extras() -> None:
    draft = draft_of(plan(), (1,), {"b": 2}, 5000)
    envelope = draft.envelope
    assert (envelope.task, envelope.enqueued_at, envelope.flags, envelope.attempt) == ("task", 5000, TRACKED | KEPT, 1)
    assert envelope.payload == b'[[1],{"b":2}]'
    assert envelope.extras == {}
    assert (draft.queue, draft.delay, draft.due, draft.custom_id, draft.leases) == ("default", 0.0, 0, False, ())


def test_two_drafts_of_a_plan_share_nothing_that_changes() -> None:
    one = plan(headers={"a": "b"}, max_retry=5)
    first, second = draft_of(one), draft_of(one)
    assert first.envelope.id != second.envelope.id
    first.envelope.extras["mine"] = 1
    assert second.envelope.extras == {Extra.HEADERS: {"a": "b"}, Extra.OPTIONS: {"max_retry": 5}}


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ({}, TRACKED | KEPT),
        ({"ignore_result": True}, 0),
        ({"ignore_result": True, "unique": True}, TRACKED),
        ({"ignore_result": True, "id": "mine"}, TRACKED),
        ({"unique_for": 5, "ignore_result": True}, TRACKED),
    ],
    ids=str,
)
def test_a_record_is_kept_for_those_that_need_one(given: dict[str, Any], flags: int) -> None:
    assert draft_of(plan(**given)).envelope.flags == flags


def test_the_leases_of_a_unique_job_are_on_the_digest_of_its_key() -> None:
    draft = draft_of(plan({"unique": True, "unique_for": 9}, unique_key="k"))
    name = digest("task", b"k")
    assert draft.leases == (Lease(name, hold=True), Lease(name, hold=False, seconds=9.0))
    assert draft.envelope.extras == {Extra.UNIQUE: name}


def test_digests_tell_tasks_and_keys_apart_however_they_join() -> None:
    pairs = [("a", b"bc"), ("ab", b"c"), ("abc", b""), ("1:a", b"b"), ("a", b"1:b")]
    assert len({digest(*pair) for pair in pairs}) == len(pairs)
    assert all(len(digest(*pair)) == 32 for pair in pairs)


def test_an_expiry_is_counted_from_the_dispatch_by_the_servers_clock() -> None:
    assert draft_of(plan(expires=2.5), now=5000).envelope.extras == {Extra.EXPIRES: 7500}


def test_a_reservation_of_the_tasks_own_travels() -> None:
    assert draft_of(plan({"reservation_timeout": 0.5})).envelope.extras == {Extra.RESERVATION: 500}


def test_a_payload_that_can_not_be_sent_makes_no_draft() -> None:
    with pytest.raises(PayloadError, match="argument 'number 2' of task 'task'"):
        draft_of(plan(), (1, b"raw"))


@pytest.mark.parametrize("given", [{"id": ""}, {"queue": "a b"}, {"delay": -1}, {"at": 5}, {"headers": 5}, {"lock": 1}])
def test_a_wrong_option_of_a_dispatch_names_task_and_option(given: dict[str, Any]) -> None:
    with pytest.raises(TaskOptionError, match=f"dispatch of task 'task'.*{next(iter(given))}"):
        plan(**given)
