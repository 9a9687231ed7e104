"""What local tasks and pools are to a type checker. Checked by mypy and pyright, never run.

A line with ``type: ignore`` is one that must be an error: both checkers complain about an ignore that isn't needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any, assert_type

from taskrunner import Backoff
from taskrunner.local import LocalTask, PoolStats, Semaphore, StateHooks, TaskState, WorkerPool, current_task


async def fetch(url: str, tries: int = 1) -> bytes:
    return url.encode() * tries


async def nothing() -> None: ...


def resize(image: bytes, width: int) -> list[int]:
    return [width, *image]


def no_arguments() -> int:
    return 1


class Client:
    async def __call__(self, path: str) -> str:
        return path

    async def get(self, path: str) -> str:
        return path


def pending(id: str, when: datetime, attempt: int) -> None: ...


def failed(id: str, when: datetime, error: BaseException) -> None: ...


hooks = StateHooks(when_pending=pending, when_failed=failed, when_done=lambda id, when: print(id, when))
StateHooks(when_pending=failed)  # type: ignore[arg-type]
StateHooks(pending)  # type: ignore[call-arg, arg-type]


async def tasks() -> None:
    assert_type(LocalTask(fetch, "u"), LocalTask[bytes])
    assert_type(LocalTask(fetch, "u", 2), LocalTask[bytes])
    assert_type(LocalTask(resize, b"", 3), LocalTask[list[int]])
    assert_type(LocalTask(nothing), LocalTask[None])
    assert_type(LocalTask(Client(), "p"), LocalTask[str])
    assert_type(LocalTask(Client().get, "p"), LocalTask[str])
    assert_type(LocalTask(partial(fetch, tries=3), "u"), LocalTask[bytes])
    assert_type(LocalTask(lambda: fetch("u")), LocalTask[bytes])
    assert_type(LocalTask(lambda: 1.5), LocalTask[float])
    task = LocalTask(fetch, "u", id="x", hooks=hooks, delay=timedelta(seconds=1), max_duration=None, max_retries=2)
    LocalTask(fetch, "u", backoff=Backoff.linear())
    LocalTask(fetch, "u", backoff=lambda attempt: attempt * 2.0)
    assert_type(await task.start(), LocalTask[bytes])
    assert_type(await task, bytes)
    assert_type(await (await task.start()), bytes)
    assert_type(task.result(), bytes)
    assert_type(task.state, TaskState)
    assert_type(task.error, BaseException | None)
    assert_type(task.is_cancelled, bool)
    assert_type(task.attempts, int)
    assert_type(task.cancel(), bool)
    assert_type(current_task(), LocalTask[Any])

    LocalTask(fetch)  # type: ignore[call-arg, arg-type]
    LocalTask(fetch, 5)  # type: ignore[arg-type]
    LocalTask(fetch, "u", 2, 3)  # type: ignore[call-arg, arg-type]
    LocalTask(fetch, "u", retries=2)  # type: ignore[call-overload]
    LocalTask(fetch, "u", max_retries="2")  # type: ignore[call-overload]
    LocalTask(fetch("u"))  # type: ignore[call-overload]
    task.state = TaskState.DONE  # type: ignore[misc]


async def pools() -> None:
    async with WorkerPool(10, hooks=hooks, keep=100) as pool:
        assert_type(pool, WorkerPool)
        task = await pool.submit(fetch, "u", max_retries=2)
        assert_type(task, LocalTask[bytes])
        assert_type(await task, bytes)
        assert_type(await pool.submit(fetch, "u", 3), LocalTask[bytes])
        assert_type(await pool.submit(resize, b"", 3, id="r"), LocalTask[list[int]])
        assert_type(await pool.submit(no_arguments), LocalTask[int])
        assert_type(await pool.submit(lambda: fetch("u")), LocalTask[bytes])
        assert_type(await pool.submit(LocalTask(resize, b"", 3)), LocalTask[list[int]])
        assert_type(await pool.submit_batch(LocalTask(fetch, url) for url in "abc"), list[LocalTask[bytes]])
        assert_type(await pool.submit_batch([nothing, nothing]), list[LocalTask[None]])
        assert_type(await pool.submit_batch([no_arguments]), list[LocalTask[int]])
        group = await pool.submit_group([LocalTask(resize, b"", n) for n in range(3)])
        assert_type([task.result() for task in group], list[list[int]])
        assert_type(await pool.submit_group([nothing]), list[LocalTask[None]])
        both: list[LocalTask[bytes] | LocalTask[list[int]]] = [LocalTask(fetch, "u"), LocalTask(resize, b"", 3)]
        assert_type(await pool.submit_group(both), list[LocalTask[Any]])
        assert_type(await pool.submit_batch([nothing, LocalTask(resize, b"", 3)]), list[LocalTask[Any]])
        assert_type(pool.stats(), PoolStats)
        assert_type(pool.tasks(), list[LocalTask[Any]])
        assert_type(pool.available_workers, int)
        await pool.wait(timeout=5)
        await pool.stop(timeout=timedelta(seconds=5), cancel=True)

        await pool.submit(fetch)  # type: ignore[call-arg, arg-type]
        await pool.submit(fetch, 5)  # type: ignore[arg-type]
        await pool.submit(resize, b"")  # type: ignore[arg-type]
        await pool.submit(LocalTask(nothing), delay=3)  # type: ignore[call-overload]
        await pool.submit_batch([fetch])  # type: ignore[arg-type]


async def semaphores() -> None:
    semaphore = Semaphore(3)
    assert_type(await semaphore.acquire(), bool)
    assert_type(await semaphore.acquire(timeout=0.5), bool)
    assert_type(semaphore.try_acquire(), bool)
    async with semaphore as entered:
        assert_type(entered, None)
