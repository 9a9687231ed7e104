"""What is left on the server when everything is done and all workers have signed off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...store.connect import connect
from ...store.keys import PERMANENT
from ...store.links import Link


@dataclass
class Leftovers:
    """``wrong``: what should not be there, in words; ``permanent`` and ``expiring``: how many keys may be;
    ``consumers``: how many have not signed off."""

    wrong: list[str] = field(default_factory=list)
    consumers: int = 0
    permanent: int = 0
    expiring: int = 0

    def __str__(self) -> str:
        if self.wrong:
            return "; ".join(self.wrong)
        keys = f"{self.permanent} permanent keys, {self.expiring:,} that expire by themselves"
        return f"no entry, no pending entry, no consumer, no key outside the permanent set ({keys})"


async def look_for_leftovers(url: str, namespace: str) -> Leftovers:
    """Looks at every key of a namespace. Raises RedisError."""
    link, found, cursor = Link(connect(url), ""), Leftovers(), b"0"
    try:
        while True:
            cursor, keys = await link.call(b"SCAN", cursor, b"MATCH", f"*{{{namespace}.*}}:*", b"COUNT", 1000)
            for key in keys:
                await _look_at(link, key, found)
            if cursor == b"0":
                return found
    finally:
        await link.close()


async def _look_at(link: Link, key: bytes, found: Leftovers) -> None:
    name = key.decode().partition("}:")[2]
    if name.startswith("stream:"):
        await _look_into_stream(link, key, found)
    if name.startswith(PERMANENT):
        found.permanent += 1
    elif await link.call(b"PTTL", key) < 0:
        found.wrong.append(f"{name} stays for ever")
    else:
        found.expiring += 1


async def _look_into_stream(link: Link, key: bytes, found: Leftovers) -> None:
    counts: dict[str, int] = {"entries": await link.call(b"XLEN", key)}
    for row in await link.call(b"XINFO", b"GROUPS", key):
        group: dict[bytes, Any] = dict(zip(row[::2], row[1::2], strict=True))
        counts["pending entries"] = group[b"pending"]
        counts["consumers"] = group[b"consumers"]
        found.consumers += group[b"consumers"]
    found.wrong += [f"{number} {what} in {key.decode()}" for what, number in counts.items() if number]
