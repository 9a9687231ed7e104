"""What stands in a namespace: that a refusal has changed nothing of it, and what is left of it in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

from taskrunner.store.keys import PERMANENT


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


async def remains(client: redis.asyncio.Redis, namespace: str, deadline: float = 10.0) -> dict[str, int]:
    """Key → its lifetime in ms (-1: for ever), of all but the permanent keys, when what ends within ``deadline`` s has
    ended."""
    end = asyncio.get_running_loop().time() + deadline
    while True:
        lives = dict[str, int]()
        async for key in client.scan_iter(match=f"*{namespace}*", count=1000):
            name = key.decode().partition("}:")[2]
            if not name.startswith(PERMANENT):
                lives[name] = await client.pttl(key)
        if not lives or asyncio.get_running_loop().time() > end:
            return lives
        await asyncio.sleep(0.02)


async def refused(call: Callable[[], Awaitable[Any]], error: type[Exception], *words: str) -> str:
    """Lets a call fail with this very class; the message has all these words. Returns it."""
    with pytest.raises(error) as caught:
        await call()
    assert type(caught.value) is error
    text = str(caught.value)
    assert [word for word in words if word not in text] == [], text
    return text
