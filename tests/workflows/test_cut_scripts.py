"""A script that was cut in the middle, by an error or a full server, and is sent again."""

from __future__ import annotations

from typing import Any

from taskrunner import chain
from taskrunner.durability import Durability
from taskrunner.weaving import weave
from tests.waiting import eventually
from tests.workflows.tasks import Tasks


async def test_a_script_that_was_cut_in_the_middle_is_made_good_when_it_is_sent_again(tasks: Tasks) -> None:
    session = await tasks.runner.opened()
    store, now = session.store, session.store.clock.now()
    keys, sent = store.partitions[0], list[tuple[Any, ...]]()
    send = store.workflows._begin

    async def note(*arguments: Any) -> bytes:
        sent.append(arguments)
        return await send(*arguments)

    store.workflows._begin = note  # type: ignore[method-assign]
    blueprint = weave(chain(tasks.give.job(1), tasks.give.job(2)), "cut", True, now)
    assert await store.workflows.begin(0, blueprint, Durability.MEMORY, 1.0, 5.0)
    # As if the first node had not come to its turn: its letter, and its job.
    control = store.control(keys)
    letter = keys.workflow("cut")
    entry = (await control.call(b"XRANGE", keys.queue("default").stream, b"-", b"+"))[0]
    await control.call(b"XDEL", keys.queue("default").stream, entry[0])
    await control.call(b"HDEL", keys.live, "cut.0")
    await control.call(b"HDEL", keys.followers, "cut.0")
    await control.call(b"SETRANGE", letter[1], 0, "w")
    fields = dict(sent[0][5])
    await control.call(b"HSET", letter[0], "i:0", fields["i:0"])
    assert await send(*sent[0]) == b"2"
    other = (*sent[0][:2], "another token", *sent[0][3:])
    assert await send(*other) == b"0"
    async with tasks.runner.start():
        await eventually(lambda: tasks.calls == [1, 2])
