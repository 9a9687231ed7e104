"""What tests of lines, seats and permits share: jobs that need them, workers that admit and end them, a look at the
lines, and the books, which must say what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from taskrunner.envelope import KEPT, TRACKED, Delivery, Draft, Envelope, Extra, Lease, Unreadable
from taskrunner.needs import Permit, Seat, digest
from taskrunner.outcome import Outcome, Settlement, Succeeded
from taskrunner.priority import by_priority
from taskrunner.store import wire
from tests.store.conftest import NO_LOAD, PATIENCE, Place

DONE = Succeeded(b"null")
FIRST = "default/first"
LOW = "default/low"
LANES = (FIRST, "default", LOW)


def lock(key: str = "k") -> str:
    return str(Seat(digest("lock", key), 1))


def limit(count: int, key: str = "l") -> str:
    return str(Seat(digest("limit", key), count))


def rate(interval: float, burst: int = 1, key: str = "r") -> str:
    return str(Permit(digest("rate", key), interval, burst))


def lease_of(place: Place, need: str) -> str:
    return place.keys.lease(need[:32])


def needing(id: str, *needs: str, lane: str = "default", leases: tuple[Lease, ...] = (), **options: Any) -> Draft:
    """A draft of a job with these needs; a unique key that it holds is in its letter too."""
    extras: dict[str, Any] = {Extra.NEEDS: ",".join(needs)} if needs else {}
    extras |= options.pop("extras", {})
    for lease in leases:
        extras |= {Extra.UNIQUE: lease.digest} if lease.hold else {}
    flags, task = options.pop("flags", TRACKED | KEPT), options.pop("task", "work")
    envelope = Envelope(id, task, 1_000, flags, 1, extras, options.pop("payload", b"[[1]]"))
    return Draft(envelope, lane, options.pop("delay", 0.0), options.pop("due", 0), leases=leases, **options)


async def send(place: Place, *drafts: Draft, worker: str = "one") -> dict[int, str]:
    """Dispatches drafts of one lane, in batches of 200."""
    store, known = await place.store(worker), dict[int, str]()
    for start in range(0, len(drafts), 200):
        some = drafts[start : start + 200]
        known |= await store.dispatch(0, some[0].queue, some, PATIENCE)
    return known


async def fetch(place: Place, lane: str = "default", worker: str = "one", count: int = 1000) -> list[Any]:
    store = await place.store(worker)
    await store.prepare(place.keys, [lane])
    return await store.reader(place.keys).fetch([lane], count, block=None)


async def admit(place: Place, arrivals: Sequence[Any], worker: str = "one") -> list[int]:
    """The grants of arrivals of one lane, which are noted at them too."""
    if not arrivals:
        return []
    grants = await (await place.store(worker)).seating.admit(place.keys, arrivals[0].queue, arrivals)
    for one, grant in zip(arrivals, grants, strict=True):
        one.grant = grant
    return grants


async def start(place: Place, *lanes: str, worker: str = "one", count: int = 1000) -> list[Delivery]:
    """What a worker may run of all that it finds in these lanes, the most urgent first, without unreadable ones."""
    found: list[Delivery] = []
    for lane in by_priority(lanes or LANES):
        arrivals = await fetch(place, lane, worker, count)
        needy = [one for one in arrivals if isinstance(one, Delivery) and Extra.NEEDS in one.envelope.extras]
        await admit(place, needy, worker)
        found += [one for one in arrivals if isinstance(one, Delivery) and (one.grant or one not in needy)]
    return found


async def end(place: Place, *deliveries: Delivery | Unreadable, how: Outcome = DONE, worker: str = "one") -> bytes:
    """Settles deliveries of one lane."""
    store, some = await place.store(worker), [Settlement(one, how, 0.1) for one in deliveries]
    return await store.settle(0, deliveries[0].queue, some, len(some), NO_LOAD, PATIENCE)


async def lose(place: Place, id: str) -> None:
    """As an eviction or an operator does it: entry, letter and live record of a job are gone."""
    record = (await place.client.hget(place.keys.live, id)).decode().split()
    if record[0] == "q":
        stream = place.keys.queue(record[1]).stream
        await place.client.xack(stream, "group", record[2])
        await place.client.xdel(stream, record[2])
    else:
        await place.client.hdel(place.keys.queue(record[1]).letters, id)
        await place.client.zrem(place.keys.prefix + "parked:" + record[1], id)
    await place.client.hdel(place.keys.live, id)


async def promote(place: Place, *lanes: str) -> int:
    """As if the time of all that waits for its time had come."""
    store, moved = await place.store(), 0
    for lane in lanes or LANES:
        due = place.keys.queue(lane).due
        for n, id in enumerate(await place.client.zrange(due, 0, -1)):
            await place.client.zadd(due, {id: n + 1})
        moved += (await store.promote(place.keys, lane))[0]
    return moved


async def drain(place: Place, *, most: int = 100) -> list[str]:
    """Runs all that comes, and returns their ids in the order in which they ran."""
    ran: list[str] = []
    for _ in range(most):
        running = await start(place)
        for one in running:
            assert await end(place, one) == b"1"
        ran += names(running)
        if not running and not await promote(place):
            break
    return ran


def names(deliveries: Sequence[Any]) -> list[str]:
    return [one.envelope.id for one in deliveries]


# -- what stands there ----------------------------------------------------------------------------------------------


async def in_stream(place: Place, lane: str = "default") -> list[str]:
    rows = await place.client.xrange(place.keys.queue(lane).stream)
    return [wire.unseal(fields[b"t1"]).id for _, fields in rows]


async def parked(place: Place, lane: str = "default") -> list[str]:
    return [id.decode() for id in await place.client.zrange(place.keys.prefix + "parked:" + lane, 0, -1)]


async def in_lease(place: Place, need: str) -> tuple[set[str], list[str]]:
    """Who runs, and who is in line, row by row."""
    rows = await place.client.zrange(lease_of(place, need), 0, -1, withscores=True)
    only = await place.client.hget(place.keys.alone, need[:32])
    if only is not None:
        assert not rows, "a lock that one job wants alone has no lease"
        score, _, id = only.partition(b" ")
        rows = [(id, float(score))]
    return {id.decode() for id, score in rows if score < 0}, [id.decode() for id, score in rows if score > 0]


async def check_books(place: Place) -> None:
    """Every count says what is there, and every parked job has a letter and a live record."""
    live, seen = await place.live(), dict[str, str]()
    for raw in await place.client.smembers(place.keys.queues):
        lane = raw.decode()
        names = place.keys.queue(lane)
        rows = await place.client.xrange(names.stream)
        tasks = Counter(wire.unseal(fields[b"t1"]).task for _, fields in rows)
        waiting = {task.decode(): int(n) for task, n in (await place.client.hgetall(names.waiting)).items()}
        assert {task: n for task, n in waiting.items() if n} == dict(tasks), lane
        seen |= {wire.unseal(fields[b"t1"]).id: f"q {lane}" for _, fields in rows}
        aside = {id.decode() for id in await place.client.zrange(names.due, 0, -1)}
        retrying = {id.decode() for id in await place.client.zrange(names.retrying, 0, -1)}
        blocked = set(await parked(place, lane))
        letters = {id.decode(): text for id, text in (await place.client.hgetall(names.letters)).items()}
        assert set(letters) == aside | blocked, lane
        seen |= {id: f"{'r' if id in retrying else 's'} {lane}" for id in aside} | dict.fromkeys(blocked, f"b {lane}")
        states = {id: "r" if id in retrying else "s" if id in aside else "b" for id in letters}
        tallies = Counter(f"{states[id]} {text.decode().split(chr(10))[0]}" for id, text in letters.items())
        counted = {field.decode(): int(n) for field, n in (await place.client.hgetall(names.tallies)).items()}
        assert counted == dict(tallies), lane
    assert live == seen
