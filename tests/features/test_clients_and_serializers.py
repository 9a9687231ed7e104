"""What a runner may be given: a ready client, and a serializer."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from taskrunner import Backoff, JobFailed, PayloadError, PayloadTooLarge, TaskRunner

MakeRunner = Callable[..., TaskRunner]


@pytest.mark.parametrize(
    "options", [{}, {"decode_responses": True}, {"protocol": 3}, {"retry_on_timeout": True}], ids=str
)
async def test_a_borrowed_client_is_used_as_it_is_and_never_closed(
    make_runner: MakeRunner, url: str, options: dict[str, Any]
) -> None:
    client = redis.asyncio.Redis.from_url(url, **options)
    try:
        runner = make_runner(client)

        @runner.task(unique=True)
        async def work(text: str) -> str:
            return text + "!"

        for _ in range(2):
            async with runner.start():
                assert await (await work.dispatch("é")).result(timeout=10) == "é!"
        await runner.aclose()
        assert await client.ping()
        assert client.connection_pool.connection_kwargs.get("decode_responses", False) is options.get(
            "decode_responses", False
        )
    finally:
        await client.aclose()


async def test_a_client_that_is_closed_does_not_stop_the_runner(make_runner: MakeRunner, url: str) -> None:
    client = redis.asyncio.Redis.from_url(url)
    runner = make_runner(client)

    @runner.task
    async def work() -> int:
        return 1

    async with runner.start():
        await client.aclose()
        assert await (await work.dispatch()).result(timeout=10) == 1


class Pickle:
    """Everything that pickle can do, newlines and zero bytes included."""

    def dumps(self, value: Any) -> bytes:
        return b"\n\x00" + pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        assert data.startswith(b"\n\x00")
        return pickle.loads(data[2:])


async def test_a_serializer_of_ones_own_carries_arguments_and_results(make_runner: MakeRunner) -> None:
    runner = make_runner(serializer=Pickle())

    @runner.task(backoff=Backoff.constant(0))
    async def work(data: bytes, *, numbers: set[int]) -> Any:
        return data, numbers

    async with runner.start():
        job = await work.dispatch(b"\x00\n\xff", numbers={1, 2**100})
        assert await job.result(timeout=10) == (b"\x00\n\xff", {1, 2**100})
        again = await work.with_options(delay=0.01).dispatch(b"", numbers=set())
        assert await again.result(timeout=10) == (b"", set())


async def test_unique_keys_work_with_it(make_runner: MakeRunner) -> None:
    runner = make_runner(serializer=Pickle())

    @runner.task(unique=True)
    async def work(a: bytes, b: int = 2) -> None: ...

    first = await work.dispatch(b"x")
    assert (await work.dispatch(a=b"x", b=2)).id == first.id
    assert (await work.dispatch(b"y")).id != first.id
    async with runner.start():
        await first.result(timeout=10)
        await (await work.dispatch(b"y")).result(timeout=10)


async def test_what_it_can_not_write_is_a_payload_error_that_names_the_argument(make_runner: MakeRunner) -> None:
    runner = make_runner(serializer=Pickle(), max_payload=1000)
    task = runner.declare("work")
    with pytest.raises(PayloadError, match="argument 'second'"):
        await task.dispatch(1, second=lambda: None)
    with pytest.raises(PayloadTooLarge):
        await task.dispatch(b"x" * 1001)


@pytest.mark.leaves("dead")
async def test_a_worker_with_another_serializer_fails_the_job_and_keeps_its_bytes(make_runner: MakeRunner) -> None:
    producer, worker = make_runner(serializer=Pickle()), make_runner()

    @worker.task
    async def work(n: int) -> None: ...

    async with worker.start():
        job = await producer.declare("work").dispatch(1)
        with pytest.raises(JobFailed) as failed:
            await worker.job(job.id).result(timeout=10)
    assert failed.value.reason == "its arguments can't be read"
    letter = await worker.dead_letters.get(job.id)
    assert letter is not None
    assert letter.raw == [Pickle().dumps([(1,)])]
