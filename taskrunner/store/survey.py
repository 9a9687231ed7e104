"""A survey of all keys of a namespace on one node: SCAN, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import RedisConfigurationError
from .keys import EXPIRING, KINDS, PartitionKeys
from .links import Link
from .scripts import RELEASE, VACATE

HELD = ("unique:", "next:")
"""Beginnings of the names of keys that a job holds."""
RUNNING = ("workflow:", "workflow-nodes:", "workflow-jobs:")
"""Beginnings of the names of keys that expire when their workflow has ended."""
LEASES = 200
"""Leases that are looked at per round trip: a few milliseconds, if each is long."""
PAGE = 1_000
"""Keys that the server looks at per round trip: a fraction of a millisecond."""
MOST_PAGES = 1_000
"""Pages after which a look is enough; a repair goes on to the end."""
NAMED = 5


@dataclass(slots=True)
class Survey:
    """What stands in a namespace. ``strange``: keys that we don't write, or of another type. ``endless``: those that
    should expire and don't. ``abroad``: the numbers of all partitions with keys. ``held``: unique keys whose holder is
    gone, and places behind them whose job is. ``seats``: seats and places in line of jobs that are gone. ``unlisted``:
    workflows that run and are not among those that do. ``messages``: how many stand in outboxes, by the partition that
    they are for. ``complete``: whether all keys of the server were seen; None: the user may not ask."""

    total: int = 0
    strange: list[str] = field(default_factory=list[str])
    endless: list[str] = field(default_factory=list[str])
    abroad: set[int] = field(default_factory=set[int])
    held: int = 0
    seats: int = 0
    unlisted: int = 0
    messages: dict[int, int] = field(default_factory=dict[int, int])
    complete: bool | None = True


async def survey(link: Link, partitions: Sequence[PartitionKeys], known: Survey, *, repair: bool = False) -> None:
    """Adds what the node of these partitions has to ``known``; ``repair`` frees what jobs hold that are gone.
    Raises RedisError."""
    beginning = partitions[0].prefix.rpartition(".")[0] + "."
    ours = re.compile(re.escape(beginning) + r"(\d+)\}:(.*)", re.DOTALL)
    mine = {partition.number: partition for partition in partitions}
    cursor, pages = b"0", 0
    while pages == 0 or cursor != b"0":
        if pages == MOST_PAGES and not repair:
            known.complete = False
            return
        try:
            cursor, found = await link.call(b"SCAN", cursor, b"MATCH", beginning + "*", b"COUNT", PAGE)
        except RedisConfigurationError:
            known.complete = None
            return
        pages += 1
        names = [match for key in found if (match := ours.fullmatch(key.decode("utf-8", "replace")))]
        running = await _judge(link, names, known)
        await _look_at_workflows(link, running, mine, known, repair)
        for number, partition in mine.items():
            held = [match[0] for match in names if int(match[1]) == number and match[2].startswith(HELD)]
            if held:
                known.held += int(await link.run(RELEASE, [partition.live, *held], [int(repair)]))
            leases = [match[0] for match in names if int(match[1]) == number and match[2].startswith("lease:")]
            for start in range(0, len(leases), LEASES):
                keys = [partition.live, partition.queues, partition.janitor, *leases[start : start + LEASES]]
                known.seats += int(await link.run(VACATE, keys, [int(repair), partition.prefix, partition.wake]))
        known.abroad |= {int(match[1]) for match in names}
    for partition in partitions:
        await _look_at_locks(link, partition, known, repair)


async def _look_at_workflows(
    link: Link, endless: Sequence[re.Match[str]], mine: dict[int, PartitionKeys], known: Survey, repair: bool
) -> None:
    """Those of which nothing expires: they run, and then they are among those that do."""
    found = [(mine[int(one[1])], one, one[2].partition(":")[2]) for one in endless if int(one[1]) in mine]
    if not found:
        return
    scores = await link.exchange([(b"ZSCORE", keys.workflows, id) for keys, _, id in found])
    for (keys, match, id), score in zip(found, scores, strict=True):
        if score is not None:  # nor of a list that is a stranger's: nothing can be put into it
            continue
        hash = keys.workflow(id)[0]
        if not await link.call(b"HEXISTS", hash, b"left"):
            known.endless.append(match[0])
            continue
        if match[0] != hash:
            continue
        known.unlisted += 1
        if repair:  # should it end in this instant, the audit of workflows takes it from the list
            seconds, _ = await link.call(b"TIME")
            await link.call(b"ZADD", keys.workflows, b"NX", int(seconds) * 1000, id)


async def _count_messages(link: Link, match: re.Match[str], known: Survey) -> None:
    to, length = match[2].removeprefix("outbox:"), await link.call(b"XLEN", match[0])
    if length and to.isdigit():
        known.messages[int(to)] = known.messages.get(int(to), 0) + int(length)


async def _look_at_locks(link: Link, partition: PartitionKeys, known: Survey, repair: bool) -> None:
    """The locks that have no lease, as one job wants each of them alone."""
    if await link.call(b"TYPE", partition.alone) != b"hash":
        return
    cursor = b"0"
    while True:
        cursor, rows = await link.call(b"HSCAN", partition.alone, cursor, b"COUNT", LEASES)
        keys = [partition.live, partition.queues, partition.janitor]
        for start in range(0, len(rows), 2 * LEASES):  # a small hash comes whole, whatever is asked for
            arguments = [int(repair), partition.prefix, partition.wake, *rows[start : start + 2 * LEASES : 2]]
            known.seats += int(await link.run(VACATE, keys, arguments))
        if cursor == b"0":
            return


async def _judge(link: Link, names: Sequence[re.Match[str]], known: Survey) -> list[re.Match[str]]:
    """Returns the keys of workflows that don't expire."""
    running: list[re.Match[str]] = []
    if not names:
        return running
    known.total += len(names)
    commands: list[tuple[bytes, str]] = [(b"TYPE", match[0]) for match in names]
    commands += [(b"PTTL", match[0]) for match in names]
    replies = await link.ask(commands)
    for match, kind, left in zip(names, replies[: len(names)], replies[len(names) :], strict=True):
        name = match[2]
        wanted = next((KINDS[row] for row in KINDS if _fits(name, row)), None)
        if kind == b"none":
            continue  # it has ended meanwhile
        if kind.decode() != wanted:
            known.strange.append(match[0])
        elif left == -1 and name.startswith(RUNNING):
            running.append(match)
        elif left == -1 and name.startswith(EXPIRING):
            known.endless.append(match[0])
        elif name.startswith("outbox:"):
            await _count_messages(link, match, known)
    return running


def _fits(name: str, row: str) -> bool:
    return name.startswith(row) if row.endswith(":") else name == row


def named(keys: Sequence[str]) -> str:
    """The first few of them, for people."""
    return ", ".join(keys[:NAMED]) + (", ..." if len(keys) > NAMED else "")
