"""What strangers write where our jobs are: it is put aside whole, and the jobs go on."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis.asyncio

from taskrunner import Backoff, JobContext, JobFailed, JobStatus, RedisConfigurationError, TaskRunner
from taskrunner.store.keys import Keyspace, PartitionKeys
from taskrunner.worker import lanes
from tests.waiting import eventually

LETTERS: dict[str, list[bytes]] = {
    "a stranger's field": [b"message", b"hello"],
    "no letter in our field": [b"t1", b""],
    "a head that is not JSON": [b"t1", b"{{{\n[[]]"],
    "bytes that are not text": [b"t1", b"\x80\x04\x95\xff\x00\n[[]]"],
    "a head without a border": [b"t1", orjson.dumps(["id", "noop", 1, 3])],
    "a head of another kind": [b"t1", b'{"id": "x"}\n[[]]'],
    "a head that is a number": [b"t1", b"42\n[[]]"],
    "missing parts": [b"t1", b'["id", "noop"]\n[[]]'],
    "wrong types": [b"t1", b'[1, ["noop"], "x", null]\n[[]]'],
    "flags that are text": [b"t1", b'["id", "noop", 1, "3"]\n[[]]'],
    "a task that is a number": [b"t1", b'["id", 7, 1, 3]\n[[]]'],
    "extras that are a list": [b"t1", b'["id", "noop", 1, 3, 1, ["x"]]\n[[]]'],
    "an expiry that is text": [b"t1", b'["id", "noop", 1, 3, 1, {"x": "soon"}]\n[[]]'],
    "a unique key that is a number": [b"t1", b'["id", "noop", 1, 3, 1, {"u": 5}]\n[[]]'],
    "options that are a number": [b"t1", b'["id", "noop", 1, 3, 1, {"o": 5}]\n[[]]'],
    "headers that are a list": [b"t1", b'["id", "noop", 1, 3, 1, {"h": ["a"]}]\n[[]]'],
    "a reservation that is text": [b"t1", b'["id", "noop", 1, 3, 1, {"v": "long"}]\n[[]]'],
    "an instant of ignorance that is text": [b"t1", b'["id", "nobody", 1, 3, 1, {"k": "then"}]\n[[]]'],
    "a task of two lines": [b"t1", b'["id", "two\\nlines and more", 1, 3]\n[[]]'],
    "deeper than can be written": [b"t1", b'["id", "nobody", 1, 3, 1, {"z": ' + b"[" * 300 + b"]" * 300 + b"}]\n[[]]"],
    "crashes that are text": [b"t1", b'["id", "noop", 1, 3, 1, {"d": "many"}]\n[[]]'],
    "an instant that is text": [b"t1", b'["id", "noop", "yesterday", 3]\n[[]]'],
    "nested too deeply": [b"t1", b"[" * 5000 + b"]" * 5000 + b"\n[[]]"],
    "a version that is none": [b"tx", b'["id", "noop", 1, 3]\n[[]]'],
    "a newer version with odd marks": [b"t2", b"sealed", b"one two", b"three\nfour"],
    "a newer version of endless age": [b"t2", b"sealed\n", b"k", b"9" * 5000, b"", b""],
    "one field twice": [b"t1", b"", b"t1", b'["id", "noop", 1, 3]\n[[]]'],
    "nothing in it": [b"", b""],
    "several fields": [b"a", b"1", b"b", b"2", b"t1", b"3"],
}


@pytest.fixture
def keys(namespace: str) -> PartitionKeys:
    return Keyspace("taskrunner", namespace, 1).partitions[0]


@pytest.fixture
async def noop(runner: TaskRunner) -> Any:
    @runner.task
    async def noop() -> str:
        return "done"

    return noop


async def add(client: redis.asyncio.Redis, keys: PartitionKeys, fields: list[bytes]) -> str:
    entry: bytes = await client.execute_command("XADD", keys.queue("default").stream, "*", *fields)
    return entry.decode()


@pytest.mark.leaves("dead")
@pytest.mark.parametrize("fields", LETTERS.values(), ids=LETTERS)
async def test_an_entry_that_cannot_be_read_is_dead_lettered_whole_and_the_next_job_runs(
    fields: list[bytes], runner: TaskRunner, noop: Any, keys: PartitionKeys, redis_client: redis.asyncio.Redis
) -> None:
    entry = await add(redis_client, keys, fields)
    async with runner.start():
        job = await noop.dispatch()
        assert await job.result(10) == "done"
        letters = await eventually(runner.dead_letters.list)
    [letter] = letters
    assert letter.id == f"unreadable-{entry}"
    assert letter.raw == fields
    assert (letter.reason, letter.task, letter.args) == ("unreadable", "", [])


@pytest.mark.leaves("dead")
async def test_entries_of_strangers_among_jobs_cost_no_job(
    runner: TaskRunner, noop: Any, keys: PartitionKeys, redis_client: redis.asyncio.Redis
) -> None:
    jobs = []
    for fields in LETTERS.values():
        jobs.append(await noop.dispatch())
        await add(redis_client, keys, fields)
    async with runner.start():
        assert [await job.result(10) for job in jobs] == ["done"] * len(jobs)
        await eventually(lambda: _dead(runner, len(LETTERS)))


async def _dead(runner: TaskRunner, count: int) -> bool:
    return await runner.dead_letters.count() == count


EXTRAS = ['{"o":{"max_retry":"many"}}', '{"o":{"backoff":[1,2,3,4,5,6,7]}}', '{"o":{"nobody":1}}', '{"later":[{}]}']
"""Facts in the head of an envelope that no code of ours has written."""


@pytest.mark.leaves("dead", "live")
@pytest.mark.parametrize("extras", EXTRAS)
async def test_a_job_with_facts_that_make_no_sense_ends_and_harms_nobody(
    extras: str, make_runner: Callable[..., TaskRunner], keys: PartitionKeys, redis_client: redis.asyncio.Redis
) -> None:
    runner = make_runner(reservation_timeout=0.5, num_workers=1, max_deliveries=2)

    @runner.task
    async def noop() -> str:
        return "done"

    await add(redis_client, keys, [b"t1", b'["hostile","noop",1,3,1,%b]\n[[]]' % extras.encode()])
    async with runner.start():
        job = await noop.dispatch()
        assert await job.result(10) == "done"
        await eventually(lambda: redis_client.exists(keys.job("hostile")))
        assert str(await runner.job("hostile").status()) in ("succeeded", "failed")


PAYLOADS: dict[str, bytes] = {
    "nothing": b"",
    "cut off": b'[["abc", 1',
    "no JSON": b"\x00\x01\x02",
    "deeper than anybody reads": b"[" * 10_000 + b"]" * 10_000,
    "a key of 10 MB": b'[[{"%b": 1}], {]' % (b"x" * 10_000_000),
    "an infinite number": b"[[1e999]]",
    "half a surrogate pair": b'[["\\ud800"]]',
    "a number": b"7",
    "a mapping": b'{"args": []}',
    "arguments that are a number": b"[7]",
    "arguments that are text": b'["text"]',
    "keywords that are a list": b"[[], [1]]",
}
"""Arguments in a sound envelope that no serializer of ours has written."""


@pytest.mark.leaves("dead")
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
async def test_arguments_that_can_not_be_read_are_a_dead_letter_at_once_and_the_next_job_runs(
    payload: bytes, runner: TaskRunner, keys: PartitionKeys, redis_client: redis.asyncio.Redis
) -> None:
    runs, retries = list[tuple[Any, ...]](), list[str]()
    runner.on_retry(lambda event: retries.append(event.job_id))

    @runner.task
    async def take(*args: Any, **kwargs: Any) -> str:
        runs.append(args)
        return "done"

    await add(redis_client, keys, [b"t1", b'["damaged","take",1,3]\n' + payload])
    async with runner.start():
        assert await (await take.dispatch("next")).result(10) == "done"
        with pytest.raises(JobFailed) as failed:
            await runner.job("damaged").result(10)
        letter = await runner.dead_letters.get("damaged")
    assert (failed.value.reason, failed.value.attempts) == ("its arguments can't be read", 1)
    assert letter is not None
    assert (letter.raw, letter.args, letter.kwargs) == ([payload], [], {})
    assert (runs, retries) == ([("next",)], [])


async def test_keys_that_stand_twice_in_a_mapping_are_no_reason_to_fail(
    runner: TaskRunner, keys: PartitionKeys, redis_client: redis.asyncio.Redis
) -> None:
    @runner.task
    async def take(value: dict[str, int]) -> dict[str, int]:
        return value

    await add(redis_client, keys, [b"t1", b'["twice","take",1,3]\n[[{"a": 1, "a": 2}]]'])
    async with runner.start():
        await eventually(lambda: redis_client.exists(keys.job("twice")))
        assert await runner.job("twice").result(10) == {"a": 2}, "the last one counts, as with any reader of JSON"


class Bomb:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.leaves("dead")
@pytest.mark.parametrize("protocol", [0, 2, 5])
async def test_a_pickle_is_never_opened(
    protocol: int, runner: TaskRunner, noop: Any, keys: PartitionKeys, redis_client: redis.asyncio.Redis,
    tmp_path: Path,
) -> None:  # fmt: skip
    trace = tmp_path / "opened"
    pickled = pickle.dumps(Bomb(trace), protocol)
    await add(redis_client, keys, [b"t1", b'["as arguments","noop",1,3]\n' + pickled])
    await add(redis_client, keys, [b"t1", pickled])
    await add(redis_client, keys, [b"pickle", pickled])
    await add(redis_client, keys, [b"t1", b'["as options","noop",1,3,1,{"o":%b}]\n[[]]' % orjson.dumps(repr(pickled))])
    await redis_client.set(keys.job("as result"), b'["s","noop","default",1,1,1,0.1]\n' + pickled, ex=60)
    async with runner.start():
        assert await (await noop.dispatch()).result(10) == "done"
        await eventually(lambda: _dead(runner, 4))
        with pytest.raises(orjson.JSONDecodeError):
            await runner.job("as result").result(10)
        assert pickled in [raw for letter in await runner.dead_letters.list() for raw in letter.raw]
    assert not trace.exists()
    pickle.loads(pickled)
    assert trace.exists(), "it would have"


@pytest.mark.leaves("due:", "letters:", "retrying:", "tallies:")
async def test_an_entry_of_a_newer_version_is_handed_back_and_not_dead(
    runner: TaskRunner, noop: Any, keys: PartitionKeys, redis_client: redis.asyncio.Redis
) -> None:
    fields = [b"t2", b"nobody knows what this means\n\x00\xff", b"r", b"5000"]
    entry = await add(redis_client, keys, fields)
    async with runner.start():
        assert await (await noop.dispatch()).result(10) == "done"
        kept = await eventually(lambda: redis_client.hget(keys.queue("default").letters, f"unreadable-{entry}"))
        assert await runner.dead_letters.count() == 0
        assert (await runner.stats("default")).scheduled == 1
    # What a newer worker will find when it is promoted: the letter as it was, its marks, and since when it waits.
    task, marks, version, letter = kept.split(b"\n", 3)
    assert (task, version, letter) == (b"", fields[0], fields[1])
    assert marks.split()[:3] == [b"r", b"5000", b"k"]


async def test_an_entry_of_a_newer_version_comes_back_as_it_was(
    runner: TaskRunner, noop: Any, keys: PartitionKeys, redis_client: redis.asyncio.Redis
) -> None:
    names = keys.queue("default")
    entry = await add(redis_client, keys, [b"t2", b"nobody knows what this means\n\x00\xff"])
    async with runner.start():
        await eventually(lambda: redis_client.zcard(names.due))
    await redis_client.zadd(names.due, {f"unreadable-{entry}": 1})
    seen: list[Any] = []
    async with runner.start():
        await eventually(lambda: _postponed(redis_client, names.due, seen))
    [(name, due)] = seen
    assert due > 1
    letter = await redis_client.hget(names.letters, name)
    assert letter.split(b"\n", 3)[2:] == [b"t2", b"nobody knows what this means\n\x00\xff"]
    await redis_client.unlink(names.due, names.letters)


async def _postponed(client: redis.asyncio.Redis, due: str, seen: list[Any]) -> bool:
    seen[:] = [pair for pair in await client.zrange(due, 0, -1, withscores=True) if pair[1] > 1]
    return bool(seen)


async def test_foreign_data_under_our_stream_key_is_told_and_survived(
    runner: TaskRunner, noop: Any, keys: PartitionKeys, redis_client: redis.asyncio.Redis
) -> None:
    stream = keys.queue("default").stream
    told: list[BaseException] = []
    runner.on_error(lambda role, error: told.append(error))
    async with runner.start():
        await (await noop.dispatch()).wait(10)
        await redis_client.unlink(stream)
        await redis_client.set(stream, "a stranger's")
        with pytest.raises(RedisConfigurationError, match="foreign data under our keys"):
            await noop.dispatch()
        error = await eventually(lambda: told and told[0])
        assert isinstance(error, RedisConfigurationError)
        assert "foreign data under our keys" in str(error)
        await redis_client.unlink(stream)
        assert await (await noop.dispatch()).result(20) == "done"


@pytest.mark.parametrize("before", [True, False], ids=["before the start", "at runtime"])
async def test_foreign_data_under_the_stream_of_one_queue_does_not_keep_a_worker_from_the_others(
    before: bool, runner: TaskRunner, noop: Any, keys: PartitionKeys, redis_client: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(lanes, "LOOK_EVERY", 0.2)
    stream, started, go = keys.queue("default").stream, asyncio.Event(), asyncio.Event()  # the first that is looked at

    @runner.task
    async def hold() -> None:
        started.set()
        await go.wait()

    @runner.task(queue="mail", max_retry=1, backoff=Backoff.constant(0.05))
    async def second_time(ctx: JobContext) -> int:
        if ctx.attempt == 1:
            raise ValueError
        return ctx.attempt

    async def overwrite() -> None:
        await redis_client.unlink(stream)
        await redis_client.set(stream, "a stranger's")

    if before:
        await overwrite()
    async with runner.start():
        if not before:
            await hold.dispatch()
            await started.wait()
            await overwrite()
        go.set()  # its outcome can't be recorded
        for n in range(3):
            job = second_time.with_options(delay=0.05 * n)
            assert await (await job.dispatch()).result(20) == 2
        await eventually(lambda: "foreign data under the keys of default" in caplog.text)
        async with redis_client.pipeline(transaction=True) as pipe:  # an operator puts back what was there
            pipe.unlink(stream)
            pipe.xgroup_create(stream, "taskrunner", "0", mkstream=True)
            await pipe.execute()
        assert await (await noop.dispatch()).result(20) == "done"
    await redis_client.unlink(keys.live)  # of the job that was deleted with the stream


async def test_foreign_data_that_was_there_before_the_start_is_told_and_survived(
    runner: TaskRunner, noop: Any, keys: PartitionKeys, redis_client: redis.asyncio.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    await redis_client.set(keys.queue("default").stream, "a stranger's")
    async with runner.start():
        await eventually(lambda: "foreign data under our keys" in caplog.text)
        assert not runner.ready
        await redis_client.unlink(keys.queue("default").stream)
        assert await (await noop.dispatch()).result(20) == "done"
        assert await (await noop.dispatch()).status() in set(JobStatus)
