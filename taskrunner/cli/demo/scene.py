"""What is to be seen: the state of the demo, filled by ``play`` and shown by ``screen``."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ...forecast import QueueStats
from ..durations import show_duration


@dataclass
class Process:
    """A worker process. ``running`` and ``lost`` as it last told the server: jobs in hand, and outcomes that were
    refused because their jobs had gone to another worker. ``held``: jobs that it held when it was killed;
    ``taken_over``: jobs of another that it ran again."""

    pid: int
    state: str = "starting"
    done: int = 0
    running: int = 0
    lost: int = 0
    held: int | None = None
    taken_over: int = 0


@dataclass(frozen=True)
class Event:
    """Something that happened, ``at`` seconds after the beginning."""

    at: float
    text: str
    style: str = ""


@dataclass
class Scene:
    """The whole demo at one instant. ``files``: how many there are to count; 0 when there is no end to it."""

    title: str
    files: int
    began: float = field(default_factory=time.monotonic)
    dispatched: float | None = None
    ended: float | None = None
    done: int = 0
    bytes_done: int = 0
    sampled: int = 0
    packed: int = 0
    checked: int | None = None
    """How many files have been counted again, once that has begun."""
    stats: QueueStats | None = None
    drain_times: deque[float] = field(default_factory=lambda: deque(maxlen=400))
    processes: dict[int, Process] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    is_long: bool = False
    long_changed: float | None = None
    """When the queue became long, or ceased to be, by the clock; None before the first alert."""

    @property
    def clock(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    @property
    def work_time(self) -> float:
        """Seconds from the dispatch to the last result, or until now."""
        end = time.monotonic() if self.ended is None else self.ended
        return max(end - self.dispatched, 0.001) if self.dispatched is not None else 0.0

    def tell(self, text: str, style: str = "") -> Event:
        """Adds an event of this instant."""
        event = Event(self.clock, text, style)
        self.events.append(event)
        return event

    def long_queue(self, news: dict[str, Any]) -> None:
        """The long-queue hook was called in a worker."""
        was_long, self.is_long = self.is_long, bool(news["is_long"])
        drain = f"{show_duration(news['drain_time'])} to drain"
        if was_long and self.is_long:
            self.tell(f"still long, says the new leader: {news['waiting']:,} jobs wait, {drain}", "red")
            return
        self.long_changed = self.clock
        if self.is_long:
            self.tell(f"long queue: {news['waiting']:,} jobs wait, {drain}", "bold red")
        else:
            self.tell(f"the queue is not long any more: {drain}", "bold green")

    def measured(self, stats: QueueStats, facts: list[dict[str, Any]]) -> None:
        """Fresh figures of the queue, and what the living workers tell about themselves."""
        self.stats = stats
        self.drain_times.append(stats.drain_time)
        for fact in facts:
            process = self.processes.get(fact.get("pid", 0))
            if process is not None and process.state == "working":
                process.running, process.lost = fact["running"], fact["lost"]
