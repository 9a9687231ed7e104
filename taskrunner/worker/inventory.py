"""What a worker holds: fetched and not started, running, finished and not settled. The roles meet only here.

    fetcher, reclaimer → inbox → executor → outbox → settler

Everything in it belongs to the event loop, except ``held``, which the keeper's thread reads.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Set
from contextlib import contextmanager

from ..envelope import Arrival, Delivery
from ..failpoints import reach
from ..forecast import Load
from ..outcome import Released, Settlement
from ..priority import queue_of

READ_AHEAD = 0.010
"""Seconds of work that may be fetched before a slot is free for it: longer than a round trip, shorter than anybody
notices that a job waits here while another worker is idle."""
OUTBOX_LIMIT = 2_000
"""Outcomes that may wait for the settler before nothing more is fetched: what a crash now would run again."""


class Meter:
    """Measures what the slots do. A handful of additions per job."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.running = 0
        self.finished = 0
        self._started_sum = 0.0  # of the running: occupied time so far = running * now - this
        self._finished_time = 0.0
        self._rate = 0.0
        self._rate_at = time.monotonic()
        self._rate_finished = 0
        self.saturated = False
        self._saturated_since = 0.0
        self._reported = (0.0, 0)

    def start(self, now: float) -> None:
        self.running += 1
        self._started_sum += now

    def finish(self, now: float, started: float) -> None:
        self.running -= 1
        self._started_sum = self._started_sum - started if self.running else 0.0
        self._finished_time += now - started
        self.finished += 1

    def rate(self, now: float) -> float:
        """Jobs finished per second, over about the last 20 ms or since the last question."""
        elapsed = now - self._rate_at
        if elapsed >= 0.02:
            self._rate = (self.finished - self._rate_finished) / elapsed
            self._rate_at, self._rate_finished = now, self.finished
        return self._rate

    def saturate(self, saturated: bool) -> None:
        """Notes whether more jobs are waiting than this worker takes; only such time says what it can do."""
        if saturated and not self.saturated:
            self._saturated_since = time.monotonic()
            self._reported = (self._occupied(self._saturated_since), self.finished)
        self.saturated = saturated

    def load(self) -> Load:
        """What was done since the last report, if jobs were waiting all the time."""
        if not self.saturated:
            return Load(0.0, 0.0, 0, self._slots)
        now = time.monotonic()
        occupied = self._occupied(now)
        before, jobs = self._reported
        load = Load(now - self._saturated_since, max(0.0, occupied - before), self.finished - jobs, self._slots)
        self._saturated_since, self._reported = now, (occupied, self.finished)
        return load

    def _occupied(self, now: float) -> float:
        return self._finished_time + self.running * now - self._started_sum


class Inbox:
    """What waits for a slot. At most one idle slot is being woken at any time: it takes what it can run without
    waiting, and wakes the next when it takes the first. An asyncio.Queue wakes one slot per job, which for short jobs
    costs more than running them.
    """

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waking = False

    def put(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        if not self._waking:
            self._wake()

    async def get(self) -> Arrival:
        while not self._arrivals:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(turn)
            try:
                await turn
            finally:
                self._waking = False
        arrival = self._arrivals.popleft()
        if self._arrivals and not self._waking:
            self._wake()
        return arrival

    def _wake(self) -> None:
        while self._idle:
            turn = self._idle.popleft()
            if not turn.done():
                self._waking = True
                turn.set_result(None)
                return

    def empty(self) -> list[Arrival]:
        """Takes out everything."""
        arrivals = list(self._arrivals)
        self._arrivals.clear()
        return arrivals


class Inventory:
    """The inbox, the outbox and the books of one worker. ``caps``: how many jobs of a queue it may have in hand."""

    def __init__(self, slots: int, caps: Mapping[str, int] | None = None) -> None:
        self.slots = slots
        self.caps = dict(caps or {})
        self._capped = dict.fromkeys(self.caps, 0)  # in hand, by queue; other queues are not counted
        self._below_cap = {queue: asyncio.Event() for queue in self.caps}
        self._barred: set[tuple[int, str]] = set()  # (partition, lane) of which nothing may start
        self.meter = Meter(slots)
        self.inbox = Inbox()
        self.outbox: list[Settlement] = []
        self.held: set[Arrival] = set()
        self.revoked: set[Arrival] = set()  # cancelled on the server, and not out of hand or not settled yet
        # Runs that hold seats and go on, although their jobs are not this worker's any more; and those that have ended.
        self.outliving: set[Arrival] = set()
        self.vacated: list[Arrival] = []
        self.seats_changed = asyncio.Event()  # one of the two has more
        self.sieve: Callable[[Iterable[Arrival]], list[Arrival]] | None = None
        """Keeps back what was cancelled on its way here; None while no such job is expected."""
        # By partition: whoever takes over or sweeps has it until the books say so too. A sweep that overlaps a takeover
        # can see a short job pending that is taken, run and settled between its two looks into the books.
        self.claims: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.in_hand = 0  # fetched and not finished
        self._asked_for = 0  # by fetchers that don't wait for it; counted only where several share the room
        self.finished = asyncio.Event()  # something is in the outbox
        self.room_made = asyncio.Event()
        self.idle = asyncio.Event()  # nothing is in hand
        self.idle.set()
        self.lost = 0  # reservations that ended before their outcome was recorded

    def room(self, capped: str | None = None) -> int:
        """How many more jobs would start at once or within the read-ahead; of a ``capped`` queue without read-ahead."""
        if len(self.outbox) >= OUTBOX_LIMIT:
            return 0
        ahead = int(self.meter.rate(time.monotonic()) * READ_AHEAD)
        room = self.slots - self.in_hand + ahead
        return room if capped is None else min(room, self.caps[capped] - self._capped[capped])

    def _room_to_ask_for(self, capped: str | None) -> int:
        """The same without what other fetchers are asking for at this moment."""
        room = self.room(capped)
        return min(room, self.room() - self._asked_for) if self._asked_for else room

    async def wait_for_room(self, stopping: Callable[[], bool], capped: str | None = None) -> int:
        """Room for more; a stop need not wait for it, as the slots may be taken for as long as they like."""
        while (room := self._room_to_ask_for(capped)) <= 0 and not stopping():
            made = self.room_made
            if capped is not None and self._capped[capped] >= self.caps[capped]:
                made = self._below_cap[capped]  # not woken by each job of the other queues
            made.clear()
            await made.wait()
        return room

    @contextmanager
    def asking_for(self, count: int) -> Generator[None]:
        """While so many are being fetched no other fetcher asks for the same room: what one of them brought too many
        would have to go back."""
        self._asked_for += count
        try:
            yield
        finally:
            self._asked_for -= count
            self.room_made.set()

    def end_waiting(self) -> None:
        """Wakes all who wait for room, to look whether there is a stop."""
        for made in (self.room_made, *self._below_cap.values()):
            made.set()

    def take(self, arrivals: Iterable[Arrival]) -> None:
        """What was fetched or reclaimed goes into the inbox, and is kept alive from now on; what may not start here and
        now goes back."""
        if self.sieve is not None:
            arrivals = self.sieve(arrivals)
        if self.caps or self._barred:
            arrivals = self._admitted(arrivals)
        put, hold = self.inbox.put, self.held.add
        n = 0
        for arrival in arrivals:
            hold(arrival)
            put(arrival)
            n += 1
        if n:
            self.in_hand += n
            self.idle.clear()
            reach("before_run")

    def _admitted(self, arrivals: Iterable[Arrival]) -> list[Arrival]:
        """Those that may start, counted; the others go back. Here, where all of them come by: whatever a sweep, a
        takeover and several fetchers bring in one instant, no cap is exceeded."""
        admitted: list[Arrival] = []
        for arrival in arrivals:
            queue = queue_of(arrival.queue)
            cap = self.caps.get(queue)
            if (arrival.partition, arrival.queue) in self._barred or (cap is not None and self._capped[queue] >= cap):
                self.hand_back((arrival,))
                continue
            if cap is not None:
                self._capped[queue] += 1
            admitted.append(arrival)
        return admitted

    def worth_asking(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those for which seats are worth asking for: what was cancelled on its way here is dropped, and what is barred
        goes back."""
        wanted = list(deliveries)
        if self.sieve is not None:
            passed = set(self.sieve(wanted))
            wanted = [one for one in wanted if one in passed]
        if self._barred:
            self.hand_back(one for one in wanted if (one.partition, one.queue) in self._barred)
            wanted = [one for one in wanted if (one.partition, one.queue) not in self._barred]
        return wanted

    def bar(self, partition: int, lanes: Set[str]) -> None:
        """From now on nothing of these lanes of a partition starts, and of no others; what waits in the inbox goes
        back."""
        self._barred = {one for one in self._barred if one[0] != partition} | {(partition, lane) for lane in lanes}
        if not lanes:
            return
        for arrival in self.inbox.empty():
            if arrival.partition == partition and arrival.queue in lanes:
                self._out_of_hand(arrival)
                self.hand_back((arrival,))
            else:
                self.inbox.put(arrival)

    def finish(self, settlement: Settlement) -> None:
        """What was run goes into the outbox."""
        self.outbox.append(settlement)
        self.finished.set()
        self._out_of_hand(settlement.delivery)

    def drop(self, arrival: Arrival) -> None:
        """What is ours no more is forgotten without an outcome; whoever holds it now will settle it."""
        self.held.discard(arrival)
        if arrival in self.revoked:
            self.revoked.discard(arrival)
        else:
            self.lost += 1
        self.vacate(arrival)
        self._out_of_hand(arrival)

    def vacate(self, arrival: Arrival) -> None:
        """A run of ours has ended, or never will begin, and no outcome of it was recorded: seats that it still holds
        are free for others."""
        if arrival.seated:
            self.outliving.discard(arrival)
            self.vacated.append(arrival)
            self.seats_changed.set()

    def _part_with(self, gone: Set[Arrival]) -> None:
        """No more heartbeats for these. Those that hold seats run on, or their outcomes are on the way."""
        seated = [one for one in gone if one.seated and one in self.held]
        if seated:
            self.outliving.update(seated)
            self.seats_changed.set()
        self.held -= gone

    def leave_running(self, arrivals: Iterable[Arrival]) -> None:
        """Runs that would not end, of jobs that nobody else may start before they do: they get no more heartbeats, and
        whoever finds them silent takes them over."""
        self._part_with(set(arrivals))

    def revoke(self, arrivals: Iterable[Arrival]) -> None:
        """What was cancelled gets no more heartbeats. What of it has not started never will; the rest is running, or
        its outcome is on the way, and will be refused."""
        gone = set(arrivals)
        self._part_with(gone)
        self.revoked |= gone
        for arrival in self.inbox.empty():
            if arrival in gone:
                self.drop(arrival)
            else:
                self.inbox.put(arrival)

    def forfeit(self, arrivals: Iterable[Arrival]) -> None:
        """What others hold now gets no more heartbeats, and what of it has not started never will here."""
        gone = set(arrivals)
        self._part_with(gone)
        for arrival in self.inbox.empty():
            if arrival in gone:
                self.lost += 1
                self.vacate(arrival)
                self._out_of_hand(arrival)
            else:
                self.inbox.put(arrival)

    def _out_of_hand(self, arrival: Arrival) -> None:
        self.in_hand -= 1
        if self.caps and (queue := queue_of(arrival.queue)) in self.caps:
            self._capped[queue] -= 1
            self._below_cap[queue].set()
        self.room_made.set()
        if not self.in_hand:
            self.idle.set()

    def hand_back(self, arrivals: Iterable[Arrival]) -> None:
        """What was fetched and won't be started here goes back to the queue; it costs the job nothing."""
        for arrival in arrivals if self.sieve is None else self.sieve(arrivals):
            self.held.add(arrival)
            self.outbox.append(Settlement(arrival, Released(), 0.0))
            self.finished.set()

    def turn_away(self, settlement: Settlement) -> None:
        """What was fetched and is not to be run here has an outcome without a run."""
        for arrival in (settlement.delivery,) if self.sieve is None else self.sieve((settlement.delivery,)):
            self.held.add(arrival)
            self.outbox.append(settlement)
            self.finished.set()

    def empty_inbox(self) -> list[Arrival]:
        """Takes out everything that has not started."""
        waiting = self.inbox.empty()
        for arrival in waiting:
            self._out_of_hand(arrival)
        return waiting
