"""Workflows: their way to the server, and what it knows of them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from ..blueprint import Blueprint
from ..durability import Durability
from ..errors import DispatchUncertain, RedisError, RedisUnavailable
from ..failpoints import reach
from .batches import Batches
from .confirm import Unconfirmed
from .keys import Keyspace, PartitionKeys
from .links import Link
from .packing import Fields, Packing
from .persist import persist
from .scripts import BEGIN, HALT, STAGE, UNFOLD, VIEW
from .translate import Unanswered

log = logging.getLogger("taskrunner")

STAGED = 600
"""Seconds that a part of a workflow waits on the server for the next one."""
PAGE = 200
"""Values that are read in one call."""

Value = bytes | list["Value"]


@dataclass(frozen=True, slots=True)
class View:
    """How a workflow stands. ``states`` has a letter per node: w waits, o open, s f e c ended as a job ends, n never
    ran. ``left``: nodes that have not ended; ``failed`` and ``stopped``: those that failed or were cancelled first, -1
    for the workflow itself; ``names``: the ids of jobs that are not ``ID.NODE``."""

    head: dict[str, Any]
    states: str
    left: int
    failed: int | None
    stopped: int | None
    names: dict[int, str]


class Workflows:
    """Over the control links, and the outlets of dispatches."""

    def __init__(
        self,
        links: Sequence[Link],
        outlets: Sequence[Sequence[Batches]],
        cancels: Sequence[Batches],
        keyspace: Keyspace,
        result_ttl: float,
        reservation: float,
        delete_on_ack: bool,
    ) -> None:
        self._links = links
        self._outlets = outlets
        self._cancels = cancels
        self._keyspace = keyspace
        self._usual = round(result_ttl * 1000) or 1
        self._leave = int(delete_on_ack)
        self._reservation = round(reservation * 1000)

    # -- beginning -------------------------------------------------------------------------------------------

    async def begin(
        self, partition: int, blueprint: Blueprint, durability: Durability, ttl: float, patience: float
    ) -> bool:
        """Sends a workflow, in parts when it is large; then it begins. False when one of that id is known.

        ``ttl``: seconds that it is known after its end. Nothing begins when this, or what makes the pieces, raises:
        QueueFull, RedisConfigurationError, RedisUnavailable; but after DispatchUncertain it may have begun.
        """
        keys = self._keyspace.partitions[partition]
        packing = Packing(blueprint, self._keyspace, partition)
        token, staged, part = secrets.token_hex(16), 0, Fields()
        try:
            for following in packing.parts():
                if part:
                    await self._stage(keys, token, part, not staged, patience)
                    staged += len(part)
                    reach("after_stage")
                part = following
            head = {**blueprint.head, "at": packing.at}
            last = [*part, ("head", orjson.dumps(head)), ("result", b"%d" % head["result"])]
            last.append(("ttl", b"%d" % (round(ttl * 1000) or 1)))
            reply = await self._begin(keys, blueprint.id, token, staged, packing, last, durability, patience)
        except BaseException:
            if staged:
                await self._forget(keys, token)
            raise
        if reply == b"late":
            raise RedisUnavailable(
                f"a part of the workflow waited for the next one for over {STAGED} s; send it faster"
            )
        if reply == b"2":
            await self._go_on(keys)
        return bool(reply != b"0")

    async def _stage(self, keys: PartitionKeys, token: str, part: Fields, first: bool, patience: float) -> None:
        arguments = [STAGED, int(first), *chain.from_iterable(part)]
        link = self._links[keys.number]
        if not await persist(lambda: link.run(STAGE, [keys.staged(token)], arguments), patience):
            raise RedisUnavailable(
                f"a part of the workflow waited for the next one for over {STAGED} s; send it faster"
            )

    async def _begin(
        self,
        keys: PartitionKeys,
        id: str,
        token: str,
        staged: int,
        packing: Packing,
        fields: Fields,
        durability: Durability,
        patience: float,
    ) -> bytes:
        names = [keys.live, keys.watchers, keys.janitor, keys.queues, *keys.workflow(id), keys.workflows]
        names.append(keys.staged(token))
        arguments: list[Any] = [keys.prefix, keys.wake, id, packing.nodes, staged, len(packing.names), token]
        arguments += chain.from_iterable(packing.names)
        arguments += chain.from_iterable(fields)
        reach("before_dispatch")
        try:
            outlet = self._outlets[keys.number][durability]
            reply: bytes = await outlet.send(BEGIN, names, arguments, patience)
        except Unanswered as error:
            reply = error.reply if isinstance(error, Unconfirmed) else b""
            raise DispatchUncertain(str(error), [id]) from None
        reach("after_dispatch")
        return reply

    async def _forget(self, keys: PartitionKeys, token: str) -> None:
        try:
            await self._links[keys.number].call(b"UNLINK", keys.staged(token), timeout=1)
        except RedisUnavailable:
            pass  # it expires

    # -- looking ---------------------------------------------------------------------------------------------

    async def view(self, partition: int, id: str, channel: str = "", nodes: bool = False) -> View | None:
        """How a workflow stands; None when it is unknown. ``channel`` will hear its id when its status may have
        changed, or with ``nodes`` that of any node."""
        keys = self._keyspace.partitions[partition]
        reply = await self._links[partition].run(VIEW, [*keys.workflow(id), keys.watchers], [id, channel, int(nodes)])
        if not reply:
            return None
        head, left, failed, stopped, states, names = reply
        return View(
            orjson.loads(head),
            states.decode(),
            int(left),
            int(failed) if failed else None,
            int(stopped) if stopped else None,
            {int(names[n]): names[n + 1].decode() for n in range(0, len(names), 2)},
        )

    async def values(self, partition: int, id: str, numbers: Sequence[int]) -> list[bytes | None]:
        """What nodes came to: of those that succeeded the result, as the serializer made it; of the one that failed
        first its record. None where nothing is kept."""
        values = await self._fields(partition, id, "v", numbers)
        unknown = [n for n, one in enumerate(values) if one is None]
        records = await self._fields(partition, id, "r", [numbers[n] for n in unknown])
        for n, record in zip(unknown, records, strict=True):
            values[n] = record
        return values

    async def members(self, partition: int, id: str, number: int) -> list[tuple[int, int]]:
        """The nodes whose values are those of a join, as ranges."""
        [text] = await self._fields(partition, id, "m", [number])
        return _ranges(text or b"")

    async def value(self, partition: int, id: str, number: int) -> Value:
        """The value of a node: bytes, empty when there is none; of a join a list of those of its members, where one
        that has not succeeded, be it a job or a join, has none."""
        whole: list[Value] = [b""]
        level: list[tuple[list[Value], int, int]] = [(whole, 0, number)]  # where a value goes, and whose it is
        while level:  # one after the other, as groups may be nested deeply, and there may be many of them
            values = await self._fields(partition, id, "v", [one for _, _, one in level])
            rest: list[tuple[list[Value], int, int]] = []
            for place, value in zip(level, values, strict=True):
                if value is None:
                    rest.append(place)
                else:
                    place[0][place[1]] = value
            texts = await self._fields(partition, id, "m", [one for _, _, one in rest])
            joins = [(*place, text) for place, text in zip(rest, texts, strict=True) if text is not None]
            good = await self._succeeded(partition, id, [one for _, _, one, _ in joins if one != number])
            level = []
            for values_there, index, one, text in joins:
                if one == number or one in good:
                    numbers = [n for first, last in _ranges(text) for n in range(first, last + 1)]
                    inner: list[Value] = [b""] * len(numbers)
                    values_there[index] = inner
                    level += [(inner, n, member) for n, member in enumerate(numbers)]
        return whole[0]

    async def _succeeded(self, partition: int, id: str, numbers: Sequence[int]) -> set[int]:
        """Those of the nodes that have."""
        key, good = self._keyspace.partitions[partition].workflow(id)[1], set[int]()
        for start in range(0, len(numbers), PAGE):
            page = numbers[start : start + PAGE]
            letters = await self._links[partition].ask([(b"GETRANGE", key, number, number) for number in page])
            good.update(number for number, letter in zip(page, letters, strict=True) if letter == b"s")
        return good

    async def _fields(self, partition: int, id: str, kind: str, numbers: Sequence[int]) -> list[bytes | None]:
        key, found = self._keyspace.partitions[partition].workflow(id)[0], list[bytes | None]()
        for start in range(0, len(numbers), PAGE):
            names = [f"{kind}:{number}" for number in numbers[start : start + PAGE]]
            found += await self._links[partition].call(b"HMGET", key, *names)
        return found

    # -- going on, and ending --------------------------------------------------------------------------------

    async def cancel(self, partition: int, id: str, patience: float) -> bool:
        """Cancels what has not ended of a workflow; False when all of it has, or it is unknown."""
        keys = self._keyspace.partitions[partition]
        names = [keys.watchers, *keys.workflow(id)]
        reply = await self._cancels[partition].send(HALT, names, [keys.prefix, keys.wake, id], patience)
        if reply == b"1":
            await self._go_on(keys)
        return bool(reply == b"1")

    async def _go_on(self, keys: PartitionKeys) -> None:
        """Works off what is left over, as far as that is possible now. What was asked for has been done; should we fail
        or die meanwhile, the workers see to the rest."""
        try:
            while await self.unfold(keys) == 0:
                continue
        except RedisError as error:
            log.info("what is left over of a workflow is left to the workers: %s", error)

    async def unfold(self, keys: PartitionKeys) -> float | None:
        """Goes on with what workflows have left over. Returns seconds until there is more to do; None: nothing."""
        names = [keys.live, keys.watchers, keys.janitor, keys.queues, keys.unfolding]
        arguments = [keys.prefix, keys.wake, self._usual, self._leave, self._reservation]
        wait = await self._links[keys.number].run(UNFOLD, names, arguments)
        return None if wait < 0 else wait / 1000


def _ranges(text: bytes) -> list[tuple[int, int]]:
    pairs = (one.split(b"-") for one in text.split())
    return [(int(first), int(last)) for first, last in pairs]
