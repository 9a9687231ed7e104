"""The books of a worker whose queues have caps: whatever comes in, and however, no cap is exceeded."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner.envelope import KEPT, TRACKED, Delivery, Envelope
from taskrunner.outcome import Released, Settlement, Succeeded
from taskrunner.priority import queue_of
from taskrunner.worker.inventory import Inventory

CAPS = {"a": 2, "b": 1}
LANES = ("a", "a/high", "a/low", "b", "b/high", "c")


def arrival(lane: str, number: int, partition: int = 0) -> Delivery:
    envelope = Envelope(f"job-{number}", "work", 1, TRACKED | KEPT, 1, {}, b"[]")
    return Delivery(envelope, lane, partition, b"%d-1" % number, 1, 0.0)


def in_hand(inventory: Inventory, running: list[Delivery]) -> Counter[str]:
    """By queue, what waits in the inbox and what runs."""
    waiting = inventory.inbox.empty()
    for one in waiting:
        inventory.inbox.put(one)
    return Counter(queue_of(one.queue) for one in (*waiting, *running))


steps = st.lists(
    st.tuples(st.sampled_from(["take", "start", "finish", "drop", "forfeit", "empty", "bar"]), st.sampled_from(LANES)),
    max_size=60,
)


@given(steps)
def test_no_cap_is_ever_exceeded_and_nothing_is_lost(steps: list[tuple[str, str]]) -> None:
    async def play() -> None:
        inventory, running, numbers = Inventory(10, CAPS), list[Delivery](), iter(range(1000))
        for step, lane in steps:
            if step == "take":
                batch = [arrival(lane, next(numbers)) for _ in range(3)]
                inventory.take(batch)
                handed_back = {one.delivery for one in inventory.outbox if isinstance(one.outcome, Released)}
                assert inventory.held >= set(batch), "what isn't started is kept alive until it is back"
                left = inventory.inbox.empty()
                assert all((one in handed_back) != (one in left) for one in batch)
                for one in left:
                    inventory.inbox.put(one)
            elif step == "start" and (waiting := inventory.inbox.empty()):
                running.append(waiting.pop(0))  # type: ignore[arg-type]
                for one in waiting:
                    inventory.inbox.put(one)
            elif step == "finish" and running:
                inventory.finish(Settlement(running.pop(), Succeeded(None), 0.0))
            elif step == "drop" and running:
                inventory.drop(running.pop())
            elif step == "forfeit":
                inventory.forfeit(list(inventory.held)[:2])
            elif step == "empty":
                inventory.hand_back(inventory.empty_inbox())
            elif step == "bar":
                inventory.bar(0, {lane})
                inventory.bar(0, set())
            now = in_hand(inventory, running)
            assert all(now[queue] <= cap for queue, cap in CAPS.items())
            assert inventory.in_hand == sum(now.values())
            for queue, cap in CAPS.items():
                assert inventory.room(queue) == min(inventory.room(), cap - now[queue])

    asyncio.run(play())


async def test_only_the_lanes_that_are_barred_are_kept_from_starting() -> None:
    inventory = Inventory(10)
    inventory.take([arrival("a", 1), arrival("b", 2)])
    inventory.bar(0, {"a"})
    assert [one.delivery.queue for one in inventory.outbox] == ["a"]
    inventory.take([arrival("a", 3), arrival("a", 4, partition=1), arrival("b", 5)])
    assert [one.delivery.entry_id for one in inventory.outbox] == [b"1-1", b"3-1"]
    assert [(one.queue, one.partition) for one in inventory.inbox.empty()] == [("b", 0), ("a", 1), ("b", 0)]
    inventory.bar(0, set())
    inventory.take([arrival("a", 6)])
    assert [one.entry_id for one in inventory.inbox.empty()] == [b"6-1"]


async def test_who_waits_for_room_below_a_cap_is_woken_by_a_job_of_that_queue_and_by_no_other() -> None:
    inventory, woken = Inventory(10, CAPS), list[int]()
    mine, other = arrival("b", 1), arrival("c", 2)
    inventory.take([mine, other])

    async def wait() -> None:
        woken.append(await inventory.wait_for_room(lambda: bool(woken.append(-1)), "b"))

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    inventory.inbox.empty()
    looked = len(woken)
    inventory.finish(Settlement(other, Succeeded(None), 0.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(woken) == looked
    inventory.finish(Settlement(mine, Succeeded(None), 0.0))
    await waiting
    assert woken[-1] == 1


async def test_what_one_fetcher_asks_for_is_no_room_for_another() -> None:
    inventory, never = Inventory(10, CAPS), asyncio.Event()
    with inventory.asking_for(9):
        assert [await inventory.wait_for_room(never.is_set, one) for one in (None, "a")] == [1, 1]
        assert inventory.room() == 10, "what has come all the same is not sent back for it"
        with inventory.asking_for(1):
            waiting = asyncio.create_task(inventory.wait_for_room(never.is_set))
            await asyncio.sleep(0)
            assert not waiting.done()
        assert await waiting == 1
    assert [await inventory.wait_for_room(never.is_set, one) for one in (None, "a")] == [10, 2]


@pytest.mark.parametrize("capped", [None, "a"])
async def test_a_stop_need_not_wait_for_room(capped: str | None) -> None:
    inventory, stopping = Inventory(2, CAPS), asyncio.Event()
    inventory.take([arrival("a", 1), arrival("a", 2)])
    waiting = asyncio.create_task(inventory.wait_for_room(stopping.is_set, capped))
    await asyncio.sleep(0)
    stopping.set()
    inventory.end_waiting()
    assert await asyncio.wait_for(waiting, 20) <= 0
