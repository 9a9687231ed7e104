"""Scheduler: fires the ticks of schedules when they are due. One runs in every worker, and none leads: whoever comes
first fires a tick, and the script refuses the others. It sleeps until the next tick, and is woken by new schedules.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence

from ..durability import Durability
from ..envelope import Draft
from ..errors import RedisConfigurationError, ScheduleError
from ..failpoints import reach
from ..schedule import Move, moves
from ..store.schedules import ITEMS, Definition, Look, Stored
from ..store.store import BATCH_BYTES, Store

log = logging.getLogger("taskrunner.worker")

LONGEST_SLEEP = 5.0
"""Seconds after which it looks anyway: a wake-up that was lost with a connection costs no more than this."""
PATIENCE = 30.0
"""Seconds that a firing is tried again while the server is away; then everything is looked at anew."""
REMEMBERED = 1_000
"""Definitions that it keeps, so that it need not read them for each tick."""

Place = tuple[int, str, Durability]
"""Partition, lane and durability: what drafts of one script call have in common."""


class Round:
    """What is decided on at one look: the drafts to send, the schedules to move on, and when to look again."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.drafts: dict[Place, list[Draft]] = {}
        self.moves: list[tuple[str, str, Move]] = []
        self.again = math.inf if look.next is None else look.next
        self.room = ITEMS
        self.bytes = 0

    @property
    def full(self) -> bool:
        return self.room <= 0 or self.bytes > BATCH_BYTES


class Scheduler:
    """Ticks → jobs. ``declared``: what this runner's decorators ask for, put in place before anything else; with
    ``prune``, what decorators asked for elsewhere or before is removed then."""

    def __init__(self, store: Store, declared: Sequence[Definition], prune: bool) -> None:
        self._store = store
        self._declared = declared
        self._prune = prune
        self._known: dict[tuple[str, str], Stored] = {}
        self._told: set[tuple[str, str]] = set()
        self._watching: int | None = None
        self._in_place = False
        self.wake = asyncio.Event()

    async def run(self) -> None:
        if not self._in_place:
            await self.declare()
        while True:
            self.wake.clear()
            pause = await self._look()
            try:
                await asyncio.wait_for(self.wake.wait(), pause)
            except TimeoutError:
                continue

    async def declare(self) -> None:
        """Puts this runner's schedules in place."""
        schedules, names = self._store.schedules, {one.name for one in self._declared}
        if self._prune:
            stray = [
                one for one in await schedules.all() if one.definition.declared and one.definition.name not in names
            ]
            gone = [one.definition.name for one in stray]
            if gone:
                await schedules.remove(*gone, revisions=[one.revision for one in stray])
                log.info("removed schedules that are declared no more: %s", ", ".join(gone))
            self._prune = False
        if self._declared:
            await schedules.put(self._declared, self._store.clock.now())
        self._in_place = True

    async def _look(self) -> float:
        """Fires what is due, up to a batch. Returns seconds to wait."""
        look = await self._store.schedules.look()
        self._store.clock.learn(look.now)
        if self._watching is None:
            self._watching = look.now
        if not look.seeded and self._declared:
            await self.declare()  # the server was emptied
            return 0.0
        if not look.due:
            return self._pause(look.next)
        known, round_ = await self._definitions(look), Round(look)
        for name, mark, tick in look.due:
            if round_.full:
                round_.again = 0
                break
            self._decide(round_, name, mark, tick, known.get((name, mark)))
            await asyncio.sleep(0)  # 200 of them can take some time
        if len(look.due) == ITEMS and (round_.drafts or round_.moves):
            round_.again = 0
        await self._fire(round_)
        return self._pause(round_.again)

    def _pause(self, again: float | None) -> float:
        if again is None:
            return LONGEST_SLEEP
        return min(max(0.0, (again - self._store.clock.now()) / 1000), LONGEST_SLEEP)

    async def _definitions(self, look: Look) -> dict[tuple[str, str], Stored]:
        """Those of what is due. A mark names one definition for ever, so what was read once is known."""
        unknown = [name for name, mark, _ in look.due if (name, mark) not in self._known]
        if unknown:
            if len(self._known) > REMEMBERED:
                self._known.clear()
            for name, found in (await self._store.schedules.read(unknown)).items():
                if isinstance(found, Stored):
                    self._known[name, found.mark] = found
                elif found is not None:
                    self._tell((name, ""), found)
        return self._known

    def _tell(self, key: tuple[str, str], error: ScheduleError) -> None:
        if key not in self._told:
            self._told.add(key)
            log.error("schedule %r is not fired here: %s", key[0], error)

    def _decide(self, round_: Round, name: str, mark: str, tick: int, stored: Stored | None) -> None:
        if stored is None:
            if (name, "") not in self._told:
                round_.moves.append((name, mark, Move(tick, None, None)))  # its definition is gone, or another one
            return
        now, watching = round_.look.now, self._watching or 0
        try:
            steps, again = moves(stored.ticks, tick, now, stored.definition.catch_up, watching)
        except ScheduleError as error:  # a time zone that is not known here
            self._tell((name, mark), error)
            return
        home = self._store.schedules.home(stored.definition)
        for step in steps:
            if step.fired is not None:
                draft = stored.fire(step, now, home == 0)
                round_.drafts.setdefault((home, draft.queue, draft.durability), []).append(draft)
                round_.bytes += len(draft.envelope.payload)
            if step.fired is None or home:
                round_.moves.append((name, mark, step))
            round_.room -= 1
            if round_.full:
                round_.again = 0
                return
        following = again if again is not None else steps[-1].following
        if following is not None:
            round_.again = min(round_.again, following)

    async def _fire(self, round_: Round) -> None:
        """Sends what was decided; then raises what an operator must mend in one of the queues."""
        refusal = None
        if round_.drafts:
            reach("before_fire")
        for (partition, lane, _), drafts in round_.drafts.items():
            try:
                await self._store.dispatch(partition, lane, drafts, PATIENCE)
            except RedisConfigurationError as error:
                refusal = error
        if round_.drafts:
            reach("after_fire")
        if refusal is not None:
            raise refusal
        if round_.moves:
            await self._store.schedules.move(round_.moves)
