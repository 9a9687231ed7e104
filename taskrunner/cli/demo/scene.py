"""What is to be seen: the state of the demo, filled by ``play`` and shown by ``screen``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ...forecast import QueueStats


@dataclass
class Process:
    """A worker process. ``running`` and ``lost`` as it last told the server: jobs in hand, and outcomes that were
    refused because their jobs had gone to another worker. ``held``: jobs that it held when it was killed."""

    pid: int
    state: str = "working"
    done: int = 0
    running: int = 0
    lost: int = 0
    held: int | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened, ``at`` seconds after the first job was dispatched."""

    at: float
    text: str
    style: str = ""


@dataclass
class Scene:
    """The whole demo at one instant."""

    title: str
    files: int
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    done: int = 0
    bytes_done: int = 0
    stats: QueueStats | None = None
    drain_times: list[float] = field(default_factory=list)
    processes: dict[int, Process] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    alerts: list[Event] = field(default_factory=list)
    is_long: bool = False
    checking: int | None = None
    """How many files have been counted again, once that has begun."""

    @property
    def clock(self) -> float:
        """Seconds since the first job was dispatched, up to the last result."""
        return (time.monotonic() if self.ended is None else self.ended) - self.began

    def tell(self, text: str, style: str = "") -> Event:
        """Adds an event of this instant."""
        event = Event(time.monotonic() - self.began, text, style)
        self.events.append(event)
        return event

    def long_queue(self, news: dict[str, Any]) -> None:
        """The long-queue hook was called in a worker."""
        self.is_long = news["is_long"]
        if self.is_long:
            text = f"long queue: {news['waiting']:,} jobs wait, {news['drain_time']:.1f} s to drain"
            self.alerts.append(self.tell(text, "bold red"))
        else:
            self.alerts.append(self.tell(f"long queue is over: {news['drain_time']:.1f} s to drain", "bold green"))

    def measured(self, stats: QueueStats, facts: list[dict[str, Any]]) -> None:
        """Fresh figures of the queue, and what the living workers tell about themselves."""
        self.stats = stats
        self.drain_times.append(stats.drain_time)
        for fact in facts:
            process = self.processes.get(fact.get("pid", 0))
            if process is not None and process.state == "working":
                process.running, process.lost = fact["running"], fact["lost"]
