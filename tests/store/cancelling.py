"""What tests of cancelling share: a job in every state, and a look at what is left of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import ResponseError

from taskrunner.envelope import Extra, Lease
from taskrunner.outcome import Again, Failure
from taskrunner.store.cancellation import Removed
from taskrunner.store.keys import PERMANENT
from taskrunner.store.wire import Ended
from tests.store.conftest import Place

HOLD = Lease("digest", hold=True)
DEBOUNCE = Lease("digest", hold=True, turn="debounce")
LATEST = Lease("digest", hold=True, turn="latest")
AGAIN = Again(50.0, Failure("ValueError", "bad"))
PATIENCE = 5.0


def leased(place: Place, id: str = "job", lease: Lease = HOLD, **options: Any) -> Any:
    """A draft that holds the unique key ``digest``, and says so in its letter."""
    extras = {Extra.UNIQUE: lease.digest} | options.pop("extras", {})
    return place.draft(id, leases=(lease,), extras=extras, **options)


async def scheduled(place: Place, **options: Any) -> None:
    await place.dispatch(leased(place, delay=100, **options))


async def debounced(place: Place, **options: Any) -> None:
    await place.dispatch(leased(place, lease=DEBOUNCE, delay=100, **options))


async def retrying(place: Place, **options: Any) -> None:
    await place.dispatch(leased(place, **options))
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, AGAIN))


async def queued(place: Place, **options: Any) -> None:
    await place.store()
    await place.dispatch(leased(place, **options))


async def queued_without_a_worker(place: Place, **options: Any) -> None:
    await place.dispatch(leased(place, **options))
    await place.client.xgroup_destroy(place.names.stream, "group")


async def running(place: Place, **options: Any) -> None:
    await place.dispatch(leased(place, **options))
    await place.fetch()


async def taken_over(place: Place, **options: Any) -> None:
    await running(place, **options)
    await place.store("two")
    [[entry, *_]] = await place.pending()
    await place.client.xclaim(place.names.stream, "group", "two", 0, [entry])


STATES: dict[str, Callable[..., Awaitable[None]]] = {
    function.__name__: function
    for function in (scheduled, debounced, retrying, queued, queued_without_a_worker, running, taken_over)
}
RUNNING = {"running", "taken_over"}


async def cancel(place: Place, id: str = "job", worker: str = "one", **options: Any) -> Removed | None:
    store = await place.store(worker, **options)
    return await store.cancellation.cancel(id, 0, PATIENCE, letter=True)


async def delete(place: Place, id: str = "job") -> Removed | None:
    return await (await place.store()).cancellation.delete(id, PATIENCE, letter=True)


async def purge(place: Place, queue: str = "default") -> int:
    return await (await place.store()).cancellation.purge(queue, PATIENCE)


async def record(place: Place, id: str = "job") -> Ended:
    seen = await (await place.store()).inspection.look(place.keys, id)
    assert isinstance(seen, Ended)
    return seen


async def left(place: Place) -> dict[str, Any]:
    """What stands there beyond what stays after any drain: no job, no lease, no count."""
    found = await place.everything()
    rest = {name: value for name, value in found.items() if not name.startswith((*PERMANENT, "batch:"))}
    for name, value in found.items():
        if name.startswith("stream:") and value:
            rest[name] = value
        if name.startswith("waiting:") and set(value.values()) > {b"0"}:
            rest[name] = value
    if held := await pending(place):
        rest["pending"] = held
    return rest


async def pending(place: Place) -> list[tuple[str, str, int]]:
    """As the place tells it; nothing where there is no group."""
    try:
        return await place.pending()
    except ResponseError:
        return []
