"""What is done to the stage. Each fault is one function, and over when it returns."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Set
from typing import Any

from taskrunner.store.scripts import (
    ADMIT,
    BEAT,
    BEGIN,
    DELIVER,
    DISPATCH,
    HALT,
    PROMOTE,
    RECLAIM,
    SEATS,
    SETTLE,
    SIT,
    SLOTS,
    UNFOLD,
)
from tests.chaos.history import ENDS
from tests.chaos.plan import FAILPOINTS, Fault
from tests.chaos.producer import LOCKS
from tests.chaos.stage import Process, Stage

REPLIES = {"settle": SETTLE.sha, "dispatch": DISPATCH.sha, "beat": BEAT.sha, "reclaim": RECLAIM.sha}
REPLIES |= {
    "promote": PROMOTE.sha,
    "fetch": b"XREADGROUP",
    "admit": ADMIT.sha,
    "seats": SEATS.sha,
    "slots": SLOTS.sha,
    "sit": SIT.sha,
    "begin": BEGIN.sha,
    "unfold": UNFOLD.sha,
    "deliver": DELIVER.sha,
    "halt": HALT.sha,
}
LOST_SHARES = (8, 8, 2, 1, 1, 3, 3, 1, 2, 3, 4, 1, 1, 1)
WITHIN = 2.0
"""Seconds within which replies of a kind are lost, if there are any."""


async def run_lane(stage: Stage, name: str, faults: Iterator[Fault], until: float) -> None:
    """Does one fault after another until a time (monotonic), and journals when each begins and ends."""
    for number, fault in enumerate(faults):
        await asyncio.sleep(fault.pause)
        if time.monotonic() >= until:
            return
        about: dict[str, Any] = {"kind": fault.kind, "number": f"{name}-{number}", "common": name == "common"}
        stage.journal.write("fault", **about, seconds=round(fault.seconds, 3))
        await FAULTS[fault.kind](stage, fault, random.Random(fault.choice))
        stage.journal.write("fault over", **about)


def _note(stage: Stage, text: str) -> None:
    stage.journal.write("note", text=text)


def _victim(stage: Stage, kind: str, chance: random.Random, among: Set[int] = frozenset()) -> Process | None:
    """A process that is well so far; one of these pids, if any of them is."""
    victims = [one for one in stage.alive(kind) if not one.expected and not one.failpoints]
    victims = [one for one in victims if one.pid in among] or victims
    return chance.choice(victims) if victims else None


def _busy(stage: Stage) -> set[int]:
    """The pids of workers with a locked job, or else of those with a long one."""
    running, locked = set[tuple[int, str, int]](), set[tuple[int, str, int]]()
    for line in stage.lines():
        if line.event in ("start", *ENDS) and (line.more["lock"] or line.more["kind"] == "long"):
            run, runs = (line.pid, line.job, line.more["fence"]), locked if line.more["lock"] else running
            (runs.add if line.event == "start" else runs.discard)(run)
    living = {one.pid for one in stage.alive("worker")}
    return {pid for pid, _, _ in locked} & living or {pid for pid, _, _ in running} & living


async def _keep_busy(stage: Stage, jobs: int, locks: int = 1) -> None:
    """Gives the workers some runs that outlast the fault that follows."""
    for _ in range(jobs):
        await stage.dispatch("long", round(4.5 * stage.plan.reservation, 2))
    for lock in range(locks):
        await stage.dispatch("locked", f"locked-{lock}", round(2.5 * stage.plan.reservation, 2))
    await asyncio.sleep(0.3)


# -- processes ---------------------------------------------------------------------------------------------------------


async def kill_worker(stage: Stage, fault: Fault, chance: random.Random) -> None:
    victim = _victim(stage, "worker", chance, _busy(stage) if chance.random() < 0.5 else frozenset())
    if victim is not None:
        _note(stage, f"SIGKILL to {victim.name}, pid {victim.pid}")
        victim.popen.kill()


async def kill_producer(stage: Stage, fault: Fault, chance: random.Random) -> None:
    victim = _victim(stage, "producer", chance)
    if victim is not None:
        _note(stage, f"SIGKILL to {victim.name}, pid {victim.pid}")
        victim.popen.kill()


async def stop_worker(stage: Stage, fault: Fault, chance: random.Random) -> None:
    await _keep_busy(stage, stage.plan.workers + 2)
    victim = _victim(stage, "worker", chance, _busy(stage))
    if victim is not None:
        _note(stage, f"SIGSTOP to {victim.name}, pid {victim.pid}")
        victim.popen.send_signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        victim.popen.send_signal(signal.SIGCONT)


async def end_worker(stage: Stage, fault: Fault, chance: random.Random) -> None:
    victim = _victim(stage, "worker", chance)
    if victim is not None:
        _note(stage, f"SIGTERM to {victim.name}, pid {victim.pid}")
        await stage.stop(victim)


async def failpoint(stage: Stage, fault: Fault, chance: random.Random) -> None:
    """One more worker for a while, which breaks at a point."""
    point = chance.choice(FAILPOINTS)
    if point.endswith("sleep"):
        point += f":{chance.uniform(0.3, 2.5) * stage.plan.reservation:.2f}"
    worker = stage.start_worker(f"{point}@{chance.randint(1, 15)}")
    end = time.monotonic() + fault.seconds
    while time.monotonic() < end and worker.alive:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.05)
    worker.popen.kill()


async def poison(stage: Stage, fault: Fault, chance: random.Random) -> None:
    await stage.dispatch("poison", chance.random() < 0.5)


async def wedge(stage: Stage, fault: Fault, chance: random.Random) -> None:
    # Heartbeats end after four reservations; one more until the job is taken, and the time to take it.
    await stage.dispatch("wedge", round(stage.plan.reservation * chance.uniform(5.8, 7.0), 2))


# -- the server --------------------------------------------------------------------------------------------------------


async def kill_server(stage: Stage, fault: Fault, chance: random.Random) -> None:
    await stage.before_flush()
    stage.server.kill()
    await asyncio.sleep(fault.seconds)
    await stage.server.start()


async def pause_server(stage: Stage, fault: Fault, chance: random.Random) -> None:
    stage.server.pause()
    await asyncio.sleep(fault.seconds)
    stage.server.resume()


async def kill_connections(stage: Stage, fault: Fault, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 5)):
        await stage.command("CLIENT", "KILL", "TYPE", "normal")
        if chance.random() < 0.3:
            await stage.command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(0.2)


async def flush_scripts(stage: Stage, fault: Fault, chance: random.Random) -> None:
    await stage.before_flush()
    for _ in range(chance.randint(1, 10)):
        await stage.command("SCRIPT", "FLUSH")
        await asyncio.sleep(0.05)


async def full_server(stage: Stage, fault: Fault, chance: random.Random) -> None:
    await stage.command("CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(fault.seconds)
    await stage.command("CONFIG", "SET", "maxmemory", "0")


# -- the ways to it ----------------------------------------------------------------------------------------------------


async def cut_connections(stage: Stage, fault: Fault, chance: random.Random) -> None:
    for proxy in stage.proxies:
        proxy.cut(reset=chance.random() < 0.5)


async def lose_replies(stage: Stage, fault: Fault, chance: random.Random) -> None:
    """Some replies of one kind, on all ways."""
    what = chance.choices(list(REPLIES), LOST_SHARES)[0]
    times, silent, skip = chance.randint(1, 3), chance.random() < 0.15, chance.randint(0, 3)
    losses = [(proxy, proxy.lose(REPLIES[what], times=times, silent=silent, skip=skip)) for proxy in stage.proxies]
    end = time.monotonic() + WITHIN
    while time.monotonic() < end and sum(loss.lost for _, loss in losses) < times:  # noqa: ASYNC110 - the proxy counts
        await asyncio.sleep(0.02)
    for proxy, loss in losses:
        proxy.losses.remove(loss)
    stage.journal.write("lost", what=what, silent=silent, count=sum(loss.lost for _, loss in losses))


async def lose_outcomes(stage: Stage, fault: Fault, chance: random.Random) -> None:
    """The reply to the next settle, on each way, which is then sent again."""
    losses = [(proxy, proxy.lose(SETTLE.sha)) for proxy in stage.proxies[:2]]
    end = time.monotonic() + WITHIN
    while time.monotonic() < end and not all(loss.lost for _, loss in losses):  # noqa: ASYNC110 - the proxy counts
        await asyncio.sleep(0.02)
    for proxy, loss in losses:
        proxy.losses.remove(loss)
    stage.journal.write("lost", what="settle", silent=False, count=sum(loss.lost for _, loss in losses))


async def break_exchange(stage: Stage, fault: Fault, chance: random.Random) -> None:
    """One exchange of a kind per way ends after some bytes of its request or its reply."""
    what = chance.choices(list(REPLIES), LOST_SHARES)[0]
    way, after, reset = chance.choice(("requests", "replies")), chance.randint(0, 400), chance.random() < 0.5
    losses = [(proxy, proxy.sever(REPLIES[what], way, after, reset=reset)) for proxy in stage.proxies]
    await asyncio.sleep(WITHIN)
    for proxy, loss in losses:
        proxy.losses.remove(loss)
    count = sum(loss.lost for _, loss in losses)
    _note(stage, f"{count} {what} exchanges ended after {after} bytes of their {way}")


async def black_hole(stage: Stage, fault: Fault, chance: random.Random) -> None:
    """Some or all ways pass nothing, or no heartbeats; what was sent comes out in the end, or never."""
    proxies = chance.sample(stage.proxies, chance.randint(1, 3))
    role, way = chance.choice((b"", b"", BEAT.sha)), chance.choice((None, "requests", "replies"))
    rules = [(proxy, proxy.swallow(role, way)) for proxy in proxies]
    await asyncio.sleep(fault.seconds)
    if chance.random() < 0.5:
        for proxy in proxies:
            proxy.cut()
        await asyncio.sleep(0)
    for proxy, rule in rules:
        rule.end()
        proxy.rules.remove(rule)


async def lose_heartbeats(stage: Stage, fault: Fault, chance: random.Random) -> None:
    """Half of the workers have no heartbeats, and all else: others take what they run."""
    await _keep_busy(stage, 4, LOCKS)
    proxy = chance.choice(stage.proxies[:2])
    rule = proxy.swallow(BEAT.sha)
    await asyncio.sleep(fault.seconds)
    rule.end()
    proxy.rules.remove(rule)


async def slow_network(stage: Stage, fault: Fault, chance: random.Random) -> None:
    delay = chance.uniform(0.005, 0.1)
    rules = [(proxy, proxy.slow(delay, jitter=delay, seed=fault.choice)) for proxy in stage.proxies]
    await asyncio.sleep(fault.seconds)
    for proxy, rule in rules:
        rule.end()
        proxy.rules.remove(rule)


FAULTS: dict[str, Callable[[Stage, Fault, random.Random], Awaitable[None]]] = {
    "kill worker": kill_worker,
    "stop worker": stop_worker,
    "end worker": end_worker,
    "failpoint": failpoint,
    "kill producer": kill_producer,
    "poison": poison,
    "wedge": wedge,
    "kill server": kill_server,
    "outage": kill_server,
    "pause server": pause_server,
    "freeze server": pause_server,
    "kill connections": kill_connections,
    "flush scripts": flush_scripts,
    "full server": full_server,
    "cut connections": cut_connections,
    "lose replies": lose_replies,
    "lose outcomes": lose_outcomes,
    "break exchange": break_exchange,
    "black hole": black_hole,
    "slow network": slow_network,
    "lose heartbeats": lose_heartbeats,
}
