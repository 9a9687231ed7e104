"""The examination of a runner's server and namespace, for ``taskrunner doctor``. It reads; what it tries goes to keys
of its own. ``repair.py`` mends what is found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..durability import Durability
from ..errors import RedisConfigurationError
from ..priority import queue_of
from .examine_rights import examine_rights, examine_scripts
from .examine_server import examine_server
from .finding import Finding, facts, some
from .keys import PartitionKeys
from .store import Store
from .survey import Survey, named, survey

LONG = 3_600
"""Seconds after which a job that waits for others is spoken of."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined: a store that is open, and what its runner promises.

    ``certain`` is False when only a URL is known. Then nobody knows how many partitions the runner has, and whether it
    keeps finished entries; nothing is done that could be wrong.
    """

    store: Store
    durability: Durability
    certain: bool


@dataclass(slots=True)
class Crew:
    """Who reads a namespace. ``gone``: consumer → entries pending for it; ``strangers``: groups that aren't ours."""

    alive: set[str] = field(default_factory=set[str])
    gone: dict[str, int] = field(default_factory=dict[str, int])
    strangers: set[str] = field(default_factory=set[str])


async def examine(subject: Subject) -> list[Finding]:
    """All findings: of each server that has a partition, then of the namespace. Raises RedisUnavailable."""
    found: list[Finding] = []
    groups = await nodes(subject.store)
    for partitions in groups:
        link = subject.store.control(partitions[0])
        told = [finding async for finding in examine_server(link, partitions[0].live, subject.durability)]
        told.append(await examine_rights(link, subject.store.deployment, partitions[0]))
        told.append(await examine_scripts(link, partitions[0]))
        where = "" if len(groups) == 1 else f"partitions {', '.join(str(one.number) for one in partitions)}: "
        found += [replace(finding, text=where + finding.text) for finding in told]
    for check, examination in (
        ("workers", _workers(subject)),
        ("orphans", _orphans(subject)),
        ("workflows", _workflows(subject)),
        ("blocked", _blocked(subject)),
        ("keys", _keys(subject, groups)),
        ("counts", _counts(subject)),
    ):
        try:
            found += await examination
        except RedisConfigurationError as error:
            found.append(Finding(check, "unknown", str(error)))
    return found


async def nodes(store: Store) -> list[list[PartitionKeys]]:
    """The partitions, by the server that has them; each for itself where the user may not ask which one that is."""
    found: dict[str, list[PartitionKeys]] = {}
    for partition in store.partitions:
        info = await facts(store.control(partition), "server")
        id = (info or {}).get("run_id") or ("" if len(store.partitions) == 1 else partition.prefix)
        found.setdefault(id, []).append(partition)
    return list(found.values())


async def read_crew(store: Store, partition: PartitionKeys, crew: Crew) -> None:
    """Adds the workers and consumers of a partition. Raises RedisUnavailable."""
    link = store.control(partition)
    seconds, micros = await link.call(b"TIME")
    at = int(seconds) * 1000 + int(micros) // 1000
    names, queues = await link.exchange(
        [(b"ZRANGEBYSCORE", partition.workers, f"({at}", "+inf"), (b"SMEMBERS", partition.queues)]
    )
    if not isinstance(names, list) or not isinstance(queues, list):
        return  # the user may not ask, which the rights have told, or foreign data, which the keys will tell
    crew.alive |= {name.decode() for name in names}
    for queue in queues:
        stream = partition.queue(queue.decode()).stream
        groups, consumers = await link.exchange(
            [(b"XINFO", b"GROUPS", stream), (b"XINFO", b"CONSUMERS", stream, store.options.group)]
        )
        if isinstance(groups, list):
            crew.strangers |= {row[1].decode() for row in groups} - {store.options.group}
        for row in consumers if isinstance(consumers, list) else ():
            if row[1] not in names:
                name = row[1].decode("utf-8", "replace")
                crew.gone[name] = crew.gone.get(name, 0) + int(row[3])


async def _workers(subject: Subject) -> list[Finding]:
    crew = Crew()
    for partition in subject.store.partitions:
        await read_crew(subject.store, partition, crew)
    found = [_gone(crew)]
    if crew.strangers:
        text = (
            f"these streams are also read by {', '.join(sorted(crew.strangers))}: each job runs in one group only, so "
        )
        found.append(Finding("groups", "warning", text + "give all runners the same consumer_group"))
    return found


def _gone(crew: Crew) -> Finding:
    alive = some(len(crew.alive), "worker") + " alive"
    if not crew.gone:
        return Finding("workers", "ok", alive)
    pending, idle = sum(crew.gone.values()), sum(1 for held in crew.gone.values() if not held)
    text = f"{alive}, and {some(len(crew.gone), 'consumer')} of workers that are gone"
    if pending:
        text += f" with {some(pending, 'job')} in hand: a worker that reads their queue takes them over"
    if idle:
        text += f"; {idle:,} with nothing in hand: workers remove those in time, --repair at once"
    return Finding("workers", "warning", text)


async def _orphans(subject: Subject) -> list[Finding]:
    store, cut_off, lost, before = subject.store, set[tuple[str, str]](), set[tuple[str, str]](), [0, 0]
    for partition in store.partitions:
        async for page in store.auditor(partition, uncertain=not subject.certain).whole("look"):
            cut_off.update(page.readded)
            lost.update(page.orphaned)
        counts = await store.control(partition).call(b"HMGET", partition.janitor, "readded", "orphaned")
        before = [sum(pair) for pair in zip(before, (_number(text) for text in counts), strict=True)]
    so_far = f"so far {some(before[0], 'entry', 'entries')} put back, {some(before[1], 'job')} ended as orphaned"
    if not cut_off and not lost:
        return [Finding("orphans", "ok", f"none; {so_far}")]
    text = (
        f"{some(len(cut_off), 'job')} in the queue that no worker would get, {some(len(lost), 'job')} whose entry or "
    )
    text += f"letter is gone; workers mend that in time, --repair at once ({so_far})"
    return [Finding("orphans", "problem", text)]


async def _workflows(subject: Subject) -> list[Finding]:
    """Those that run, and those that can't end by themselves; nothing where there are none."""
    store, running, damaged = subject.store, 0, dict[str, None]()
    for partition in store.partitions:
        running += int(await store.control(partition).call(b"ZCARD", partition.workflows))
        async for page in store.workflow_auditor(partition).whole("look"):
            damaged |= dict.fromkeys(id for _, id in page.damages)
    if damaged:
        text = f"of {some(len(damaged), 'workflow')} a part was deleted ({named(list(damaged))}), so that it could not "
        text += "end; workers end what can't go on, in time, --repair at once"
        return [Finding("workflows", "problem", text)]
    return (
        [Finding("workflows", "ok", f"{some(running, 'workflow')} under way, none lacks anything")] if running else []
    )


async def _blocked(subject: Subject) -> list[Finding]:
    """Jobs that have been waiting for others for long; nothing where there are none."""
    store, waiting = subject.store, dict[str, int]()
    for partition in store.partitions:
        link = store.control(partition)
        seconds, _ = await link.call(b"TIME")
        before = (int(seconds) - LONG) * 1000
        for queue in await store.inspection.lanes():
            count = int(await link.call(b"ZCOUNT", f"{partition.prefix}parked:{queue}", "-inf", before))
            if count:
                waiting[queue_of(queue)] = waiting.get(queue_of(queue), 0) + count
    if not waiting:
        return []
    text = (
        f"{some(sum(waiting.values()), 'job')} in {', '.join(waiting)}: waiting for more than an hour for others that "
    )
    text += "have their lock key, their limit or their unique key; see what those do, or cancel them"
    return [Finding("blocked", "warning", text)]


def _number(text: bytes | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


async def _keys(subject: Subject, groups: list[list[PartitionKeys]]) -> list[Finding]:
    known, store = Survey(), subject.store
    for partitions in groups:
        await survey(store.control(partitions[0]), partitions, known)
    if known.complete is None:
        return [Finding("keys", "unknown", "the user may not SCAN")]
    found: list[Finding] = []
    abroad = sorted(known.abroad - {partition.number for partition in store.partitions})
    if abroad:
        who = "this runner" if subject.certain else "a runner made from a URL"
        text = f"there are keys of partition {', '.join(map(str, abroad))}, and {who} has {len(store.partitions)}: "
        text += "jobs in the others wait for ever" if subject.certain else "give MODULE:RUNNER to look at the others"
        found.append(Finding("partitions", "problem" if subject.certain else "warning", text))
    if known.held:
        text = f"{some(known.held, 'key')} of jobs that are gone; the next dispatch of the same takes it over, and "
        found.append(Finding("unique", "warning", text + "--repair frees it"))
    if known.seats:
        text = f"{some(known.seats, 'seat')} of jobs that are gone; workers free them when somebody waits for one, and "
        found.append(Finding("seats", "warning", text + "--repair frees all"))
    if known.unlisted:
        text = (
            f"{some(known.unlisted, 'workflow')} not among those that are looked after: it ends as usual, and --repair "
        )
        found.append(Finding("workflows", "warning", text + "puts it there"))
    undelivered = sum(length for number, length in known.messages.items() if number >= len(store.partitions))
    if undelivered and subject.certain:
        text = (
            f"{some(undelivered, 'message')} of workflows to partitions that this runner has not, and jobs that wait "
        )
        found.append(Finding("outbox", "problem", text + "for them: give it as many partitions as it had"))
    if known.endless:
        text = f"{some(len(known.endless), 'key')} without the expiry that we give them ({named(known.endless)}): give "
        found.append(Finding("expiry", "warning", text + "them one by EXPIRE, or delete them"))
    return [*found, _kinds(known)]


def _kinds(known: Survey) -> Finding:
    if known.strange:
        text = (
            f"{some(len(known.strange), 'key')} of no kind that we write ({named(known.strange)}): delete them, or use "
        )
        return Finding("keys", "warning", text + "another namespace or key_prefix")
    if not known.complete:
        return Finding("keys", "unknown", f"{known.total:,} seen; the server has more keys than are looked at")
    return Finding("keys", "ok", f"{some(known.total, 'key')}, all of the documented kinds")


async def _counts(subject: Subject) -> list[Finding]:
    store, wrong = subject.store, dict[str, None]()
    for queue in await store.inspection.lanes():
        for partition in store.partitions:
            try:
                counts = await store.inspection.counts(partition, queue)
            except ValueError:
                text = (
                    f"the figures of queue {queue!r} can't be read: delete its keys runs: and rates:, they begin anew"
                )
                return [Finding("counts", "warning", text)]
            if sum(counts.unsettled.values()) != counts.entries - counts.kept:
                wrong[queue] = None
    if wrong:
        text = f"the numbers of waiting jobs per task are off in {', '.join(wrong)}: somebody has deleted or added "
        return [
            Finding(
                "counts", "warning", text + "entries; they are right again when the queue is empty, --repair recounts"
            )
        ]
    return [Finding("counts", "ok", "as many jobs are counted as there are entries")]
