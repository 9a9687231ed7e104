"""Schedules: a task that is its own, one that is made by hand with arguments, and what became of them.

    python examples/schedules.py

Ticks come once, however many processes run this; a real one would have hours between them and not half a second.
"""

from __future__ import annotations

import asyncio

from taskrunner import JobContext, ScheduleError, TaskRunner

runner = TaskRunner("embedded://", namespace="schedules-example")
seen = asyncio.Event()
beats: list[str] = []


@runner.every(0.5)
async def heartbeat(ctx: JobContext) -> None:
    """Each half second, on a grid that no run delays. The id of the job names the tick."""
    beats.append(ctx.job_id)
    if len(beats) == 3:
        seen.set()


@runner.cron("30 9 * * mon-fri", tz="Europe/Berlin", catch_up="skip")
async def greet_the_office() -> None:
    """At half past nine in Berlin, summer and winter; not at all when nobody was there then."""
    print("good morning")


@runner.task
async def bill(account: int) -> None:
    print(f"billing account {account}")


async def main() -> None:
    async with runner.start():
        made = await runner.schedule("bill-7", bill.job(7), cron="@monthly", lock_key="7")
        print(f"{made.name} fires on day {made.next_fire:%d at %H:%M} UTC")
        await asyncio.wait_for(seen.wait(), 20)
        print(f"{len(set(beats))} ticks, {len(beats)} runs")

        await runner.pause_schedule("bill-7")
        for schedule in await runner.schedules():
            print(f"{schedule.name}: {schedule.cron or schedule.every}, paused={schedule.paused}")
        print(f"removed: {await runner.unschedule('bill-7')}")
        try:
            await runner.schedule("never", bill.job(7), cron="0 0 30 2 *")
        except ScheduleError as error:
            print(f"refused: {error}")


if __name__ == "__main__":
    asyncio.run(main())
