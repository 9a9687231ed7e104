"""What can't be is refused before anything is written, and said so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from taskrunner import Limiter, TaskOptionError, TaskRunner
from tests.limiter.books import Books

TEXTS: list[Any] = ["", "x" * 201, "x" * 1_000_000, "line\nfeed", "nul\0", "\ud800", None, 7, b"bytes"]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3", None, 2**60])
def test_a_limit_that_can_not_be_is_refused(limit: Any) -> None:
    with pytest.raises(TaskOptionError, match="limit must be a whole number of at least 1"):
        TaskRunner("redis://127.0.0.1:1").limiter("places", limit=limit, timeout=5)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5", None, timedelta(0)])
def test_a_timeout_that_can_not_be_is_refused(timeout: Any) -> None:
    with pytest.raises(TaskOptionError, match="timeout must be"):
        TaskRunner("redis://127.0.0.1:1").limiter("places", limit=3, timeout=timeout)


@pytest.mark.parametrize("name", TEXTS, ids=lambda text: repr(text)[:20])
def test_a_name_that_can_not_be_is_refused(name: Any) -> None:
    with pytest.raises(TaskOptionError, match="1 to 200 characters") as caught:
        TaskRunner("redis://127.0.0.1:1").limiter(name, limit=3, timeout=5)
    assert len(str(caught.value)) < 300


CALLS: dict[str, Callable[[Limiter, Any], Any]] = {
    "acquire": lambda limiter, id: limiter.acquire(id),
    "release": lambda limiter, id: limiter.release(id),
    "renew": lambda limiter, id: limiter.renew(id),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("id", TEXTS, ids=lambda text: repr(text)[:20])
async def test_an_id_that_can_not_be_is_refused_and_nothing_is_written(
    call: str, id: Any, limiter: Limiter, books: Books
) -> None:
    with pytest.raises(TaskOptionError, match="1 to 200 characters"):
        await CALLS[call](limiter, id)
    with pytest.raises(TaskOptionError, match="1 to 200 characters"):
        limiter.slot(id)
    assert [key async for key in books.client.scan_iter(match=books.partition.prefix + "*")] == []


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), True, "5"])
def test_a_wait_that_can_not_be_is_refused(wait: Any) -> None:
    limiter = TaskRunner("redis://127.0.0.1:1").limiter("places", limit=3, timeout=5)
    with pytest.raises(TaskOptionError, match="wait must be"):
        limiter.slot("id", wait=wait)


@pytest.mark.parametrize("text", ["x" * 200, " ", "ü*?[{:}]\\%", "0", "名前", "a b  c ", "😀" * 200])
async def test_any_printable_text_is_a_name_and_an_id(
    text: str, make_runner: Callable[..., TaskRunner], namespace: str
) -> None:
    limiter = make_runner().limiter(text, limit=1, timeout=timedelta(seconds=60))
    assert await limiter.acquire(text)
    assert not await limiter.acquire(text + "x" if len(text) < 200 else "x")
    assert [one.id for one in await limiter.holders()] == [text]
    assert await limiter.release(text)
    async with limiter.slot(text, wait=timedelta(seconds=20)) as slot:
        assert slot.id == text


async def test_making_a_limiter_writes_nothing_and_connects_to_nothing() -> None:
    limiter = TaskRunner("redis://127.0.0.1:1").limiter("places", limit=3, timeout=0.5)
    assert (limiter.name, limiter.limit, limiter.timeout) == ("places", 3, 0.5)
