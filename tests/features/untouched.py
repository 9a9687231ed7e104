"""What stands in a namespace, byte by byte, and that a refusal has changed nothing of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio


async def everything(client: redis.asyncio.Redis, namespace: str) -> dict[bytes, tuple[Any, bool]]:
    """Key → its value as Redis would move it elsewhere, and whether it ends by itself."""
    found = dict[bytes, tuple[Any, bool]]()
    async for key in client.scan_iter(match=f"*{namespace}*", count=1000):
        found[key] = (await client.dump(key), await client.pttl(key) >= 0)
    return found


@asynccontextmanager
async def untouched(client: redis.asyncio.Redis, namespace: str) -> AsyncGenerator[None]:
    """Nothing in the namespace changes inside the block."""
    before = await everything(client, namespace)
    yield
    assert await everything(client, namespace) == before


async def refused(call: Callable[[], Awaitable[Any]], error: type[Exception], *words: str) -> str:
    """Lets a call fail with this very class; the message has all these words. Returns it."""
    with pytest.raises(error) as caught:
        await call()
    assert type(caught.value) is error
    text = str(caught.value)
    assert [word for word in words if word not in text] == [], text
    return text
