"""What tests of the audit share: whole passes, turns, and the deeds that it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from taskrunner.envelope import Lease
from taskrunner.store import wire
from taskrunner.store.audit import Page
from tests.store.conftest import Place

HOLD = Lease("digest", hold=True)


@dataclass
class Found:
    """What all pages of a pass have found together."""

    readded: set[str] = field(default_factory=set[str])
    orphaned: set[str] = field(default_factory=set[str])
    pages: int = 0


async def audit(place: Place, how: Any = "mend", worker: str = "two", **options: Any) -> Found:
    """A whole pass of an operator."""
    auditor, found, cursor = (await place.store(worker, **options)).auditor(place.keys), Found(), ""
    while found.pages == 0 or cursor:
        page = await auditor.page(how, cursor)
        found.readded |= {id for _, id in page.readded}
        found.orphaned |= {id for _, id in page.orphaned}
        found.pages, cursor = found.pages + 1, page.cursor
        assert found.pages < 1000, "it never ends"
    return found


async def turn(place: Place, worker: str = "two") -> Page:
    return await (await place.store(worker)).auditor(place.keys).page("turn")


async def end_grace(place: Place) -> None:
    """As if the fleet had been at work for a while."""
    await place.client.hset(place.keys.janitor, mapping={"last": await place.now(), "grace": 0})


async def ids_in_stream(place: Place) -> list[str]:
    return [wire.unseal(fields[b"t1"]).id for fields in await place.entries()]


async def dead(place: Place, id: str) -> wire.DeadLetter:
    text = await place.client.hget(place.names.dead_letters, id)
    assert text is not None
    assert await place.client.zscore(place.names.dead, id)
    return wire.exhume(text)


async def outcome(place: Place, id: str) -> wire.Ended:
    text = await place.client.get(place.keys.job(id))
    assert text is not None
    assert 0 < await place.client.pttl(place.keys.job(id)) <= 60_000
    return wire.read_record(text)


async def lose_worker(place: Place, worker: str = "one") -> None:
    """What an operator does who thinks that a consumer is only a name."""
    await place.client.xgroup_delconsumer(place.names.stream, "group", worker)


async def queued(place: Place) -> None:
    """A job whose entry somebody has deleted before a worker came."""
    await place.dispatch(place.draft("lost", leases=(HOLD,)), place.draft("other"))
    await place.client.xtrim(place.names.stream, maxlen=1, approximate=False)
