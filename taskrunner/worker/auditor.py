"""Auditor: finds the jobs and workflows that operators, eviction and lost data have cut off, and sees to it that they
end too."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from ..store.audit import Page
from ..store.keys import PartitionKeys
from ..store.store import Store
from ..store.workflow_audit import Damage

log = logging.getLogger("taskrunner.worker")

BETWEEN_PAGES = 0.2
"""Seconds. A page takes the server half a millisecond, so a pass takes a few thousandths of it."""
AFTER_A_FIND = 0.02
"""Seconds after a page on which there was something: where one entry is cut off, a thousand may be."""
NAMED = 5
"""Jobs that are named in the log; the dead letters have all that were lost."""


class Auditor:
    """A page at a time, for one partition. The server lets one worker of the fleet do a pass."""

    def __init__(self, store: Store, partition: PartitionKeys) -> None:
        self._store = store
        self._partition = partition

    async def run(self) -> None:
        wait = self._store.options.beat
        while True:
            await asyncio.sleep(wait * random.uniform(1.0, 1.1))  # or all who wait for a turn come at once
            page = await self._store.auditor(self._partition).page("turn")
            _tell(page)
            wait = page.wait or (AFTER_A_FIND if page.readded or page.orphaned else BETWEEN_PAGES)

    async def run_workflows(self) -> None:
        """The same for what a workflow is made of."""
        auditor = self._store.workflow_auditor(self._partition)
        wait = self._store.options.beat
        while True:
            await asyncio.sleep(wait * random.uniform(1.0, 1.1))
            cursor, wait = await auditor.turn()
            if wait > 0:
                continue
            async for page in auditor.whole("mend", cursor):
                await auditor.keep(page.cursor)
                _tell_of_workflows(page.damages)
                await asyncio.sleep(AFTER_A_FIND if page.damages else BETWEEN_PAGES)
            wait = auditor.rest


def _tell(page: Page) -> None:
    if page.readded:
        log.warning("%d jobs were in no worker's hands and would have come to none: back in the queue (%s)",
                    len(page.readded), _names(page.readded))  # fmt: skip
    if page.orphaned:
        log.error("%d jobs have lost their entry or their letter, by somebody's hand or by eviction: failed (%s)",
                  len(page.orphaned), _names(page.orphaned))  # fmt: skip


def _tell_of_workflows(damages: Sequence[Damage]) -> None:
    if damages:
        ids = list(dict.fromkeys(id for _, id in damages))
        more = ", ..." if len(ids) > NAMED else ""
        log.error("of %d workflows a part was deleted, by somebody or by eviction: what can't go on has ended (%s)",
                  len(ids), ", ".join(ids[:NAMED]) + more)  # fmt: skip


def _names(found: list[tuple[str, str]]) -> str:
    more = ", ..." if len(found) > NAMED else ""
    return ", ".join(f"{queue}: {id}" for queue, id in found[:NAMED]) + more
