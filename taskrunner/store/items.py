"""Drafts and settlements as the items of a batch: operations, operands and keys, as the scripts' headers name them."""

from __future__ import annotations

from typing import Any

import orjson

from ..envelope import FOLLOWED, KEPT, TRACKED, Delivery, Draft, Envelope, Extra, Tick, Unreadable
from ..needs import seats
from ..outcome import Again, Expired, Failed, Outcome, Released, Settlement, Succeeded
from . import wire
from .keys import PartitionKeys

Items = list[Any]

TURNS = {"first": "u", "debounce": "w", "latest": "l"}


def add_draft(
    draft: Draft, letter: bytes, keys: list[str], leases: list[str], items: Items, partition: PartitionKeys
) -> None:
    """Appends a draft as an item for dispatch.lua; ``leases`` are keys that come after all others."""
    envelope = draft.envelope
    operations = "t" if envelope.flags & TRACKED else ""
    at = len(items)
    items += (operations, envelope.id, envelope.task, letter)
    if not (draft.custom_id or draft.leases or draft.delay or draft.due or draft.claim or envelope.extras):
        return
    if isinstance(draft.claim, Tick):
        operations += _add_tick(draft.claim, keys, items, partition)
    elif draft.claim is not None:
        operations += "b"
        keys += (*partition.queue(draft.queue).grave, partition.job(envelope.id))
        items.append(draft.claim.instant)
    if draft.custom_id:
        operations += "n"
        keys.append(partition.job(envelope.id))
    for lease in draft.leases:
        if lease.hold:
            operations += TURNS[lease.turn]
            keys.append(partition.unique(lease.digest))
            if lease.turn != "first":
                items.append(len(orjson.dumps(envelope.id)) + 2)  # of the comma after it, from 1 as Lua counts
            if lease.turn == "latest":
                keys.append(partition.next(lease.digest))
        else:
            operations += "p"
            keys.append(partition.period(lease.digest))
            items.append(max(1, round(lease.seconds * 1000)))
    if draft.due:
        operations += "a"
        items.append(draft.due)
    elif draft.delay:
        operations += "d"
        items.append(round(draft.delay * 1000))
    if Extra.RESERVATION in envelope.extras:
        operations += "r"
        items.append(envelope.extras[Extra.RESERVATION])
    if Extra.NEEDS in envelope.extras:
        operations += "e"
        needs = envelope.extras[Extra.NEEDS]
        items.append(needs)
        leases += map(partition.lease, seats(needs))
    items[at] = operations


def _add_tick(tick: Tick, keys: list[str], items: Items, partition: PartitionKeys) -> str:
    if not tick.here:
        keys.append(partition.fired)
        items += (tick.name, tick.fired)
        return "g"
    keys += (partition.ticks, partition.fired)
    following = "" if tick.following is None else tick.following
    items += (tick.member, tick.name, tick.expected, following, tick.fired)
    return "f"


class SettlementItems:
    """Builds the items for settle.lua. ``now`` is server time in ms, ``ttl`` the runner's result_ttl in seconds."""

    def __init__(self, partition: PartitionKeys, now: int, ttl: float) -> None:
        self.keys: list[str] = []
        self.leases: list[str] = []
        self.locks = False
        """Whether locks are freed that nobody else may want."""
        self.items: Items = []
        self._partition = partition
        self._now = now
        self._ttl = ttl

    def add(self, settlement: Settlement) -> None:
        delivery, outcome = settlement.delivery, settlement.outcome
        if isinstance(delivery, Unreadable):
            self._add_unreadable(delivery, outcome)
            return
        envelope = delivery.envelope
        task, micros = envelope.task, round(settlement.seconds * 1_000_000)
        if type(outcome) is Succeeded and not envelope.flags and not envelope.extras:
            self.items += (delivery.entry_id, delivery.deliveries, "s", task, micros)
            return
        if type(outcome) is Succeeded and envelope.flags & KEPT and not envelope.extras:
            self.keys.append(self._partition.job(envelope.id))
            self.items += (delivery.entry_id, delivery.deliveries, "sk", task, micros)
            self.items += (envelope.id, self._success(settlement, delivery, outcome), self._milliseconds(settlement))
            return
        if type(outcome) is Succeeded and delivery.lock and envelope.flags != TRACKED | FOLLOWED:
            self._add_locked(settlement, delivery, outcome, micros)
            return
        at = len(self.items)
        self.items += (delivery.entry_id, delivery.deliveries, "", task, micros)
        first = self._leave_seats(delivery, outcome) if Extra.NEEDS in envelope.extras else ""
        operations = self._operations(settlement, delivery, outcome)
        self.items[at + 2] = operations[0] + first + operations[1:]

    def _add_locked(self, settlement: Settlement, delivery: Delivery, outcome: Succeeded, micros: int) -> None:
        """The success of a job that has a lock, and else nothing out of the ordinary."""
        envelope = delivery.envelope
        self.locks = True
        stands = f"-{delivery.grant} {envelope.id}"
        if envelope.flags & KEPT:
            self.keys.append(self._partition.job(envelope.id))
            self.items += (delivery.entry_id, delivery.deliveries, "sok", envelope.task, micros, delivery.lock, stands)
            self.items += (envelope.id, self._success(settlement, delivery, outcome), self._milliseconds(settlement))
        else:
            self.items += (delivery.entry_id, delivery.deliveries, "sox", envelope.task, micros, delivery.lock, stands)
            self.items.append(envelope.id)

    def _leave_seats(self, delivery: Delivery, outcome: Outcome) -> str:
        """What comes first: where the job goes on, if it does, and what becomes of its seats."""
        envelope, operations = delivery.envelope, "e"
        needs = envelope.extras[Extra.NEEDS]
        self.leases += map(self._partition.lease, seats(needs))
        if delivery.home:
            self.items.append(delivery.home)
            operations = "he"
        if isinstance(outcome, Released) and not outcome.delay:
            operations = operations[:-1] + "b"
        self.items += (envelope.id, needs)
        return operations

    def _operations(self, settlement: Settlement, delivery: Delivery, outcome: Outcome) -> str:
        envelope = delivery.envelope
        if isinstance(outcome, Again):
            attempted = _carry(delivery, envelope.attempt + 1)
            return "r" + self._later(attempted, outcome.delay, "r")
        if isinstance(outcome, Released):
            carried = _carry(delivery, envelope.attempt)
            if outcome.unknown:
                carried.extras.setdefault(Extra.UNKNOWN_SINCE, self._now)
            if outcome.delay:
                return "-" + self._later(carried, outcome.delay, "s")
            return "-" + self._again(carried, paced=delivery.paced and not delivery.grant)
        tally = "s" if isinstance(outcome, Succeeded) else "f" if isinstance(outcome, Failed) else "-"
        return tally + self._ended(settlement, delivery, outcome)

    def _ended(self, settlement: Settlement, delivery: Delivery, outcome: Succeeded | Failed | Expired) -> str:
        envelope, operations = delivery.envelope, ""
        if envelope.flags & KEPT:
            self.keys.append(self._partition.job(envelope.id))
            self.items += (envelope.id, self._outcome(settlement, delivery, outcome), self._milliseconds(settlement))
            operations = "k"
        elif envelope.flags & FOLLOWED:
            self.items += (envelope.id, self._outcome(settlement, delivery, outcome))
            operations = "y"
        elif envelope.flags & TRACKED:
            self.items.append(envelope.id)
            operations = "x"
        if envelope.extras and Extra.UNIQUE in envelope.extras:
            self.keys.append(self._partition.unique(envelope.extras[Extra.UNIQUE]))
            self.items.append(envelope.id)
            operations += "u"
        if isinstance(outcome, Failed):
            self._bury(delivery, outcome)
            operations += "d"
        return operations

    def _milliseconds(self, settlement: Settlement) -> int:
        return round((self._ttl if settlement.ttl is None else settlement.ttl) * 1000) or 1

    def _outcome(self, settlement: Settlement, delivery: Delivery, outcome: Succeeded | Failed | Expired) -> bytes:
        if isinstance(outcome, Succeeded):
            return self._success(settlement, delivery, outcome)
        return wire.record(self._record(settlement, delivery, outcome))

    def _success(self, settlement: Settlement, delivery: Delivery, outcome: Succeeded) -> bytes:
        """The record of a success: the common case, without a value in between."""
        envelope = delivery.envelope
        head = ["s", envelope.task, delivery.queue, envelope.attempt, envelope.enqueued_at, self._now]
        return wire.record_of(head, settlement.seconds, outcome.result or b"")

    def _record(self, settlement: Settlement, delivery: Delivery, outcome: Failed | Expired) -> wire.Ended:
        envelope, state, error = delivery.envelope, "e", None
        if isinstance(outcome, Failed):
            failure = outcome.failure
            state, error = "f", (failure.error_type, failure.message, failure.traceback, outcome.reason)
        times = (envelope.enqueued_at, self._now, settlement.seconds)
        return wire.Ended(state, envelope.task, delivery.queue, envelope.attempt, *times, error, b"")

    def _later(self, envelope: Envelope, delay: float, state: str) -> str:
        tracked = "1" if envelope.flags & TRACKED else "0"
        self.items += (envelope.id, round(delay * 1000), state, tracked, _kept(envelope))
        return "l"

    def _again(self, envelope: Envelope, *, paced: bool) -> str:
        self.items += (envelope.id, "1" if envelope.flags & TRACKED else "0", _kept(envelope, paced=paced))
        return "a"

    def _add_unreadable(self, delivery: Unreadable, outcome: Outcome) -> None:
        """An entry that is no letter of ours: kept whole in the dead letters, or put aside for a newer worker."""
        if not delivery.raw:  # pending, but deleted from the stream by somebody: there is nothing to keep
            self.items += (delivery.entry_id, delivery.deliveries, "-", "", 0)
            return
        if isinstance(outcome, Failed):
            self.items += (delivery.entry_id, delivery.deliveries, "-d", "", 0)
            self._bury(delivery, outcome)
            return
        delay = outcome.delay if isinstance(outcome, Released) else 0.0
        self.items += (delivery.entry_id, delivery.deliveries, "-l", "", 0)
        self.items += (_stray_id(delivery), round(delay * 1000), "s", "0", _kept_stray(delivery, self._now))

    def _bury(self, delivery: Delivery | Unreadable, outcome: Failed) -> None:
        id, record = wire.bury(delivery, outcome, self._now)
        self.items += (id, delivery.envelope.task if isinstance(delivery, Delivery) else "", record)


def _carry(delivery: Delivery, attempt: int) -> Envelope:
    """The envelope as it goes on: what it was, another attempt, and the deliveries that ended in a crash."""
    envelope = delivery.envelope
    extras = dict(envelope.extras)
    crashes = delivery.deliveries - 1 + extras.get(Extra.DELIVERIES, 0)
    if crashes:
        extras[Extra.DELIVERIES] = crashes
    if delivery.saved:
        extras[Extra.SAVED] = 1
    # What it can read anew is not carried along: it may be large.
    previous = b"" if Extra.PRECEDING in extras else envelope.previous
    head = (envelope.id, envelope.task, envelope.enqueued_at, envelope.flags)
    return Envelope(*head, attempt, extras, envelope.payload, previous)


def _kept(envelope: Envelope, *, paced: bool = False) -> bytes:
    """A letter as it is kept while it waits: task, marks, version, letter; see the prelude's keep()."""
    marks, extras = list[bytes](), envelope.extras
    if reservation := extras.get(Extra.RESERVATION):
        marks.append(b"r %d" % reservation)
    if Extra.NEEDS in extras:
        marks.append(b"%b %b" % (wire.NEEDS, extras[Extra.NEEDS].encode()))
        if paced:
            marks.append(wire.PACED + b" 1")
    return b"%b\n%b\n%b\n%b" % (envelope.task.encode(), b" ".join(marks), wire.VERSION, wire.seal(envelope))


def _stray_id(delivery: Unreadable) -> str:
    return "unreadable-" + delivery.entry_id.decode()


def _kept_stray(delivery: Unreadable, now: int) -> bytes:
    """A letter of a newer version, unread, with its own marks and since when nobody could read it."""
    pairs = dict(zip(delivery.raw[2::2], delivery.raw[3::2], strict=False))
    pairs[wire.SINCE] = b"%d" % (delivery.since if 0 < delivery.since <= now else now)
    marks = b" ".join(part for pair in pairs.items() for part in pair)
    return b"\n%b\n%b\n%b" % (marks, delivery.raw[0], delivery.raw[1])
