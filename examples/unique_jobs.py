"""No second job for the same thing: a hundred clicks, one export.

    python examples/unique_jobs.py

``unique=True`` holds while a job of that key waits, runs or waits for a retry; ``unique_for=T`` for T seconds after a
dispatch, whether that job has ended or not. It ends by itself.
"""

from __future__ import annotations

import asyncio

from taskrunner import TaskRunner

runner = TaskRunner(namespace="unique-jobs")


@runner.task(unique=True, unique_key=lambda account, format: str(account))
async def export(account: int, format: str) -> str:
    """One export per account at a time, in whatever format: the key is the account alone."""
    print(f"exporting account {account} as {format}")
    await asyncio.sleep(0.2)
    return f"account-{account}.{format}"


@runner.task(unique_for=60)
async def remind(address: str) -> None:
    """At most one reminder a minute per address: without ``unique_key`` the key is the arguments."""
    print(f"reminding {address}")


async def main() -> None:
    async with runner.start():
        clicks = await asyncio.gather(*(export.dispatch(7, format="csv") for _ in range(100)))
        print(f"100 clicks made {len({job.id for job in clicks})} job")
        print(f"{sum(job.deduplicated for job in clicks)} of the handles are those of a job that was there already")
        # Every handle is good for the result, whoever dispatched the job.
        print(f"the last click gets {await clicks[-1].result(timeout=10)}")

        again = await export.dispatch(7, format="pdf")  # the first job has ended, so its key is free
        print(f"afterwards: {await again.result(timeout=10)}, deduplicated={again.deduplicated}")

        first = await remind.dispatch("ann@example.org")
        await first.wait(timeout=10)
        second = await remind.dispatch("ann@example.org")  # that job has ended, but its minute has not
        print(f"a second reminder: deduplicated={second.deduplicated}, same job: {second == first}")


if __name__ == "__main__":
    asyncio.run(main())
