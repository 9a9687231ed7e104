"""Pictures through a pipeline: fan out over all of them and their sizes, fan in to one album; progress on the way.

    python examples/image_pipeline.py

Each picture goes its own way: it is fetched, made small in three sizes at once, and described. When all of them have
come through, one more job makes the album. Whoever waits for others takes no place in a worker, and starts in the step
that records the end of the last of them. It ends by itself.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from taskrunner import GroupJob, JobContext, JobStatus, TaskRunner, chain, group

runner = TaskRunner("embedded://", namespace="image-example", num_workers=8)
NAMES = [f"picture-{n:02}" for n in range(12)]
SIZES = (8, 16, 32)
WIDTH = 64


@runner.task
def fetch(folder: str, name: str) -> str:
    """A plain function runs in a thread. A picture here is a gray square, as rows of bytes."""
    path = Path(folder) / f"{name}.gray"
    path.write_bytes(bytes((x ^ y) * 4 % 256 for y in range(WIDTH) for x in range(WIDTH)))
    return str(path)


@runner.task
def shrink(ctx: JobContext, width: int) -> str:
    """All three of them see what the step before their group came to: the path."""
    path, step = Path(ctx.previous), WIDTH // width
    pixels = path.read_bytes()
    small = path.with_suffix(f".{width}")
    small.write_bytes(bytes(pixels[y * WIDTH + x] for y in range(0, WIDTH, step) for x in range(0, WIDTH, step)))
    return small.name


@runner.task
async def describe(ctx: JobContext, name: str) -> dict[str, object]:
    """The step after a group sees the list of its results, in order."""
    return {"name": name, "files": ctx.previous}


@runner.task
async def make_album(ctx: JobContext, title: str) -> str:
    for n, picture in enumerate(ctx.previous, 1):
        await asyncio.sleep(0.02)  # the work
        await ctx.progress(n, len(ctx.previous), picture["name"])
    files = sum(len(picture["files"]) for picture in ctx.previous)
    return f"{title}: {len(ctx.previous)} pictures, {files} files, from {ctx.previous[0]['name']} on"


async def show(pictures: GroupJob[dict[str, object]]) -> None:
    """How many jobs of the group have come through, until all have."""
    shown = -1
    while True:
        info = await pictures.info()
        done = sum(status is JobStatus.SUCCEEDED for status in info.jobs.values())
        if done != shown:
            print(f"{done} of {len(info.jobs)} jobs")
            shown = done
        if info.status is not JobStatus.RUNNING:
            return
        await asyncio.sleep(0.02)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with runner.start():
            pictures = await runner.dispatch(
                group(
                    *(chain(fetch.job(folder, name), group.map(shrink, SIZES), describe.job(name)) for name in NAMES),
                    then=make_album.job("Holidays"),
                )
            )
            album = pictures.then
            assert album is not None
            print(f"the album is {await album.status()}")
            await show(pictures)
            async for update in album.events():
                if update.progress is not None and not update.ended:
                    print(f"album: {update.progress.done} of {update.progress.total}, {update.progress.message}")
            print(await album.result(timeout=10))
            first, *_ = await pictures.results(timeout=10)
            print(first)


if __name__ == "__main__":
    asyncio.run(main())
