"""Session: what a runner has open in one event loop: the store, the producer, and those who wait for outcomes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from .admission import Admission
from .envelope import Delivery
from .errors import RedisUnavailable
from .producer import Producer
from .store import progress, saved
from .store.cancellation import Removed
from .store.deployment import Deployment
from .store.inspect import Inspection, Sight
from .store.keys import PartitionKeys
from .store.listen import Listener
from .store.persist import persist
from .store.store import Store
from .store.wire import Ended
from .store.workflows import Value, View

LOOK_AGAIN = (1.0, 5.0)
"""Seconds after which a waiter looks although it heard nothing: at first, and at most. A notice can be lost."""
NEWS = (0.5, 2.0)
"""The same for who follows a job, of which also the start is news; and that nobody announces."""
PATIENCE = 30.0
ANSWER = 1.0
"""Seconds that a pause waits for the answers of workers: they take some milliseconds."""

T = TypeVar("T")
Tell = Callable[[Delivery], Awaitable[None]]


class Session:
    """Opened lazily by the first dispatch, or by ``start()``; bound to the loop that opened it."""

    def __init__(
        self, store: Store, deployment: Deployment, client_id: str, replication_factor: int | None = None
    ) -> None:
        self.store = store
        self.producer = Producer(store)
        self.admission = Admission(self._drain_time)
        self._client_id = client_id
        self._replication_factor = replication_factor
        self._listener = Listener(deployment, store.partitions[0].prefix, self._heard, self._gap)
        self._listening: asyncio.Task[None] | None = None
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._opening: asyncio.Task[None] | None = None
        self.hearers: dict[str, Callable[[str], None]] = {}
        """Who hears notices, by their first word; an empty one says that some may have been lost."""
        self.on_notice: Callable[[str, bytes], None] | None = None
        self.on_gap: Callable[[], None] | None = None
        self.cancel_teller: Callable[[], Tell | None] = lambda: None
        """Gives what tells the hooks of jobs that are cancelled from here while they wait; None when nobody listens."""

    @property
    def listener(self) -> Listener:
        return self._listener

    async def open(self) -> None:
        """Connects, unless that is done; tries for a while when the server is away. Raises RedisError."""
        if self.store.clock.known:
            return
        # One task and not a lock, which would let a thousand first dispatches through one by one, in small batches.
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(persist(self.store.open, PATIENCE), name="taskrunner-open")
        opening = self._opening
        await asyncio.wait([opening])
        if opening.cancelled():
            raise RedisUnavailable("the runner was closed before it was connected")
        if error := opening.exception():
            # One exception per caller: a shared one would collect the tracebacks of all of them.
            raise type(error)(*error.args)

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        await self.admission.close()
        await self.producer.close()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        await self.store.close()

    def listen(self) -> None:
        """Subscribes, in the background, to what this runner wants to hear."""
        if self._listening is None:
            partitions = self.store.partitions
            channels = {p.wake for p in partitions} | {p.channel(self._client_id) for p in partitions}
            self._listening = asyncio.create_task(self._listener.listen(channels), name="taskrunner-listener")

    async def read(self, question: Callable[[Inspection], Awaitable[T]]) -> T:
        """The server's answer to a question; asks for a while when the server is away, or a connection has died since
        it was last used. Raises RedisError."""
        await self.open()
        return await persist(lambda: question(self.store.inspection), PATIENCE)

    async def _drain_time(self, queue: str) -> float:
        stats = await self.read(lambda inspection: inspection.stats(queue, self._replication_factor))
        return stats.drain_time

    # -- saved values ----------------------------------------------------------------------------------------

    async def save(self, delivery: Delivery, data: bytes) -> bool:
        """Keeps an interim value of a job; False when the job is not that run's any more. Raises RedisError."""
        keys, options = self.store.partitions[delivery.partition], self.store.options
        link = self.store.control(keys)
        return await persist(lambda: saved.save(link, keys, options.group, options.worker_id, delivery, data), PATIENCE)

    async def saved(self, partition: int, id: str) -> bytes | None:
        """The interim value of a job, if there is one. Raises RedisError."""
        keys = self.store.partitions[partition]
        return await persist(lambda: saved.read(self.store.control(keys), keys, id), PATIENCE)

    async def remains(self, partition: int, id: str) -> tuple[bytes | None, bytes | None]:
        """The interim value of a job and how far it is, if there are any. Raises RedisError."""
        keys = self.store.partitions[partition]
        return await persist(lambda: saved.read_all(self.store.control(keys), keys, id), PATIENCE)

    async def workflow(self, partition: int, id: str) -> View | None:
        """How a workflow stands; None when it is unknown. Raises RedisError."""
        return await persist(lambda: self.store.workflows.view(partition, id), PATIENCE)

    async def value(self, partition: int, workflow: str, node: int) -> Value:
        """What a node of a workflow came to. Raises RedisError."""
        return await persist(lambda: self.store.workflows.value(partition, workflow, node), PATIENCE)

    # -- ending jobs -----------------------------------------------------------------------------------------

    async def cancel(self, id: str, partition: int | None) -> bool:
        """Cancels a job; False when it has ended or is unknown. Raises RedisError."""
        await self.open()
        tell = self.cancel_teller()
        removed = await self.store.cancellation.cancel(id, partition, PATIENCE, letter=tell is not None)
        return await _told(removed, tell)

    async def delete(self, id: str) -> bool:
        """Removes a job and all that is known of it; False when nothing is. Raises RedisError."""
        await self.open()
        tell = self.cancel_teller()
        removed = await self.store.cancellation.delete(id, PATIENCE, letter=tell is not None)
        return await _told(removed, tell)

    async def delete_result(self, id: str) -> bool:
        """Removes the outcome of a job that has ended; False when nothing is known of one. Raises RedisError."""
        await self.open()
        return await self.store.cancellation.delete_result(id, PATIENCE)

    async def purge(self, queue: str) -> int:
        """Cancels the jobs of a queue that wait, and tells how many. Raises RedisError."""
        await self.open()
        return await self.store.cancellation.purge(queue, PATIENCE)

    # -- pauses ----------------------------------------------------------------------------------------------

    async def pause(self, queue: str) -> None:
        """Pauses a queue (``*``: all), and waits until all workers that live have obeyed; not for long for those that
        don't answer. Raises RedisError."""
        await self.open()
        self.listen()
        await self._listener.ready(ANSWER)
        word, obeyed = secrets.token_hex(8), dict[str, asyncio.Event]()
        try:
            for keys in self.store.partitions:
                for worker in await persist(partial(self.store.living, keys), PATIENCE):
                    text = f"{word} {keys.number} {worker}"
                    obeyed[text] = asyncio.Event()
                    self._waiters[text] = {obeyed[text]}
                answer = f"{keys.channel(self._client_id)} {word}"
                await persist(partial(self.store.pause, keys, queue, paused=True, answer=answer), PATIENCE)
            async with asyncio.timeout(ANSWER):
                for event in obeyed.values():
                    await event.wait()
        except TimeoutError:
            pass  # dead, frozen or cut off: when it hears of it, it obeys too
        finally:
            for text in obeyed:
                del self._waiters[text]

    async def resume(self, queue: str) -> None:
        """Ends the pause of a queue (``*``: all pauses). Raises RedisError."""
        await self.open()
        for keys in self.store.partitions:
            # Sent again after a lost reply it changes nothing more.
            await persist(partial(self.store.pause, keys, queue, paused=False), PATIENCE)

    # -- outcomes --------------------------------------------------------------------------------------------

    async def find(self, id: str, partition: int | None) -> tuple[PartitionKeys, Ended | Sight] | None:
        return await self.read(lambda inspection: inspection.find(id, partition))

    async def outcome(self, id: str, partition: int | None) -> Ended | None:
        """The outcome of a job, when there is one; None when the job is unknown."""
        found = await self.find(id, partition)
        if found is None:
            return None
        keys, seen = found
        if isinstance(seen, Ended):
            return seen
        return await self.watch(id, keys, lambda channel: self.store.inspection.watch(keys, id, channel))

    async def follow(
        self, id: str, keys: PartitionKeys, news: Callable[[Ended | Sight, bytes | None], T | bool]
    ) -> T | None:
        """What ``news`` makes, in the end, of what is known of a job and of how far it is; True: nothing. None when the
        job is unknown."""

        async def look(channel: str) -> T | bool:
            seen = await self.store.inspection.observe(keys, id, channel)
            return seen is not None and news(*seen)

        return await self.watch(id, keys, look, progress.notice(id))

    async def watch(
        self, id: str, keys: PartitionKeys, look: Callable[[str], Awaitable[T | bool]], further: str = ""
    ) -> T | None:
        """What ``look`` finds in the end. It is called with the channel that is to hear of the id, at once and after
        each notice, and now and then without one. It gives True when there may be something later, False when there
        will be nothing; then this gives None. ``further``: a notice besides the id, for who looks more often."""
        self.listen()
        await self._listener.ready(1.0)
        heard, texts = asyncio.Event(), (id, further) if further else (id,)
        for text in texts:
            self._waiters.setdefault(text, set()).add(heard)
        try:
            look_here, pauses = partial(look, keys.channel(self._client_id)), NEWS if further else LOOK_AGAIN
            return await self._watch(heard, look_here, *pauses)
        finally:
            for text in texts:
                waiters = self._waiters[text]
                waiters.discard(heard)
                if not waiters:
                    del self._waiters[text]

    @staticmethod
    async def _watch(
        heard: asyncio.Event, look: Callable[[], Awaitable[T | bool]], shortest: float, longest: float
    ) -> T | None:
        pause = shortest
        while True:
            heard.clear()
            try:
                seen = await look()
            except RedisUnavailable:
                seen = True  # an outage is no answer
            if not isinstance(seen, bool):
                return seen
            if not seen:
                return None
            try:
                # Not wait_for: before Python 3.12 it swallows a cancellation that comes in the instant of the notice.
                async with asyncio.timeout(pause):
                    await heard.wait()
                pause = shortest
            except TimeoutError:
                pause = min(pause * 2, longest)

    def _heard(self, channel: str, data: bytes) -> None:
        text = data.decode()
        for event in self._waiters.get(text, ()):
            event.set()
        if hearer := self.hearers.get(text.partition(" ")[0]):
            hearer(text)
        if self.on_notice is not None:
            self.on_notice(channel, data)

    def _gap(self) -> None:
        for events in self._waiters.values():
            for event in events:
                event.set()
        for hearer in self.hearers.values():
            hearer("")
        if self.on_gap is not None:
            self.on_gap()


async def _told(removed: Removed | None, tell: Tell | None) -> bool:
    if removed is not None and removed.waiting is not None and tell is not None:
        await tell(removed.waiting)
    return removed is not None
