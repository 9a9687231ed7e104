"""What a drained namespace may hold."""

from __future__ import annotations

import redis.asyncio

from taskrunner.store.keys import PERMANENT


async def leftovers(client: redis.asyncio.Redis, namespace: str, allowed: tuple[str, ...] = ()) -> list[str]:
    """What of a namespace should not be there after a drain: pending entries, consumers, keys that don't end."""
    found: list[str] = []
    async for raw in client.scan_iter(match=f"*{{{namespace}.*}}:*", count=1000):
        key = raw.decode()
        name = key.partition("}:")[2]
        if name.startswith("stream:"):
            for group in await client.xinfo_groups(raw):
                if group["pending"]:
                    found.append(f"{key}: {group['pending']} pending entries")
                if group["consumers"]:
                    found.append(f"{key}: {group['consumers']} consumers")
            if await client.xlen(raw) and name not in allowed:
                found.append(f"{key}: {await client.xlen(raw)} entries")
        elif name.startswith("outbox:") and not name.startswith(allowed) and await client.xlen(raw):
            found.append(f"{key}: {await client.xlen(raw)} messages")
        elif not name.startswith((*PERMANENT, *allowed)) and await client.pttl(raw) == -1:
            found.append(f"{key}: stays for ever")
    return found
