"""Shows the scene: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..durations import show_duration, show_rate
from .scene import Event, Process, Scene
from .verdict import Check
from .work import LONG

FRAMES = 8
"""Pictures per second."""
WIDTH = 92
"""Columns of the picture, on a terminal that has as many."""
LATEST, FEWEST = 12, 3
"""Events that stay in the picture; on a low terminal fewer, but not fewer than these."""
OTHER_LINES = 21
"""Lines of the picture without its events."""
BARS = " ▁▂▃▄▅▆▇█"
PLAIN_EVERY = 1.0
"""Seconds between two lines of progress where there is no live picture."""


class Screen:
    """Shows a scene while the block runs; ``refresh`` when something may have changed."""

    def __init__(self, console: Console, scene: Scene) -> None:
        self._console = console
        self._scene = scene
        self._told = 0
        self._progress_at = -math.inf
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        else:
            self._console.print(self._scene.title)
        return self

    def __exit__(self, *exc: object) -> None:
        self.refresh()
        if self._live is not None:
            self._live.stop()

    def refresh(self) -> None:
        """Draws the scene as it is now."""
        if self._live is not None:
            width, height = self._console.size
            latest = max(FEWEST, min(LATEST, height - OTHER_LINES))
            self._live.update(picture(self._scene, min(WIDTH, width), latest), refresh=True)
            return
        for event in self._scene.events[self._told :]:
            self._console.print(f"{event.at:6.1f} s  {event.text}")
        self._told = len(self._scene.events)
        if self._scene.ended is None and self._scene.stats and time.monotonic() - self._progress_at > PLAIN_EVERY:
            self._progress_at = time.monotonic()
            self._console.print(f"{self._scene.clock:6.1f} s  {_plain_progress(self._scene)}")


def _plain_progress(scene: Scene) -> str:
    stats = scene.stats
    assert stats is not None
    done = f"{scene.done:,} of {scene.files:,} done, " if scene.files else ""
    rate, drain = show_rate(stats.completion_rate), show_duration(stats.drain_time)
    return f"{done}{stats.waiting:,} waiting, {stats.running} running, {rate}, drains in {drain}"


# -- the picture -----------------------------------------------------------------------------------------------


def picture(scene: Scene, width: int, latest: int = LATEST) -> RenderableType:
    """The whole scene, in so many columns, with so many events."""
    inner = width - 4
    parts = [_progress(scene, inner)] if scene.files else []
    parts += [
        _figures(scene, inner),
        _workers(scene.processes.values(), bool(scene.files)),
        _events(scene.events[-latest:], latest),
    ]
    body: list[RenderableType] = [Text(scene.title, style="dim")]
    for part in parts:
        body += [Text(), part]
    title = "[bold]taskrunner demo[/bold]"
    return Panel(Group(*body), title=title, title_align="left", width=width, box=box.ROUNDED, border_style="blue")


def _progress(scene: Scene, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=width - 42)
    grid.add_column(justify="right", width=5)
    grid.add_column(justify="right", width=13)
    grid.add_column(width=18)
    rows = [(scene.done, "counted by jobs", "cyan")]
    if scene.checked is not None:
        rows.append((scene.checked, "counted again", "green"))
    for done, label, style in rows:
        bar = ProgressBar(total=scene.files, completed=done, complete_style=style, finished_style=style)
        share = Text(f"{100 * done // scene.files} %", style="bold")
        grid.add_row(bar, share, f"{done:,}/{scene.files:,}", Text(label, style="dim"))
    if scene.checked is None:
        grid.add_row("", "", "", "")  # for the second count, so that the picture keeps its height
    return grid


def _figures(scene: Scene, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", width=10)
    grid.add_column(no_wrap=True)
    stats = scene.stats
    if stats is None:
        for name in ("queue", "work", "drain time", "long queue"):
            grid.add_row(name, Text("…", style="dim"))
        return grid
    oldest = f"oldest waits {show_duration(stats.oldest_wait)}"
    grid.add_row("queue", f"{stats.waiting:,} waiting   {stats.running} running   {oldest}")
    volume = f"{scene.bytes_done / 1e6 / scene.work_time:.1f} MB/s   " if scene.bytes_done else ""
    average = f"{show_duration(stats.avg_run_time)} a job"
    grid.add_row("work", f"{show_rate(stats.completion_rate).removesuffix('/s')} jobs/s   {volume}{average}")
    bars = sparkline(list(scene.drain_times), max(10, width - 24))
    drain = Text(show_duration(stats.drain_time).ljust(8), style="bold red" if scene.is_long else "bold")
    grid.add_row("drain time", drain.append(bars, style="red" if scene.is_long else "cyan"))
    grid.add_row("long queue", _alert(scene))
    return grid


def _alert(scene: Scene) -> Text:
    if scene.long_changed is None:
        return Text(f"no (more than {LONG:g} s to drain would be)", style="dim")
    since = f"since {scene.long_changed:.1f} s"
    if scene.is_long:
        return Text.assemble((" LONG ", "bold white on red"), (f"  {since}", "red"))
    return Text(f"no more, {since}", style="green")


def _workers(processes: Iterable[Process], with_results: bool) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2), pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("worker", min_width=10)
    table.add_column("state", min_width=8)
    table.add_column("running", justify="right")
    if with_results:  # it is from them that we know who did what
        for name in ("done", "taken over", ""):
            table.add_column(name, justify="right")
    for process in processes:
        style = {"working": "green", "killed": "bold red"}.get(process.state, "dim")
        running = str(process.running) if process.state == "working" else ""
        taken_over = str(process.taken_over) if process.taken_over else ""
        note = f"[red]held {process.held} jobs[/]" if process.held is not None else ""
        state = Text(process.state, style=style)
        results = [f"{process.done:,}", taken_over, note] if with_results else []
        table.add_row(f"pid {process.pid}", state, running, *results)
    return table


def _events(events: list[Event], room: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="dim", width=7)
    grid.add_column(overflow="fold")
    for event in events:
        grid.add_row(f"{event.at:.1f} s", Text(event.text, style=event.style))
    for _ in range(room - len(events)):
        grid.add_row("", "")  # the picture keeps its height, and the terminal its calm
    return grid


def sparkline(values: list[float], width: int) -> str:
    """The values as bars, squeezed into so many columns; infinity is as high as the highest."""
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    if top <= 0:
        return ""
    step = math.ceil(len(values) / width)
    groups = [values[start : start + step] for start in range(0, len(values), step)]
    heights = [min(max(group), top) / top for group in groups]
    return "".join(BARS[math.ceil(height * (len(BARS) - 1))] for height in heights)


# -- the verdict -------------------------------------------------------------------------------------------------


def show_verdict(console: Console, scene: Scene, checks: list[Check]) -> None:
    """Prints the checks, and one line that sums up."""
    compared = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, padding=(0, 2), show_edge=False)
    stated = Table.grid(padding=(0, 2))
    for table in (compared, stated):
        table.add_column("")
        table.add_column("", min_width=13, no_wrap=True)
    compared.add_column("by jobs", justify="right")
    compared.add_column("plain count", justify="right")
    stated.add_column("", overflow="fold")
    for check in checks:
        mark = Text("✓", style="bold green") if check.good else Text("✗", style="bold red")
        jobs = Text(check.jobs, style="" if check.good else "red")
        if check.plain:
            compared.add_row(mark, check.what, jobs, check.plain)
        else:
            stated.add_row(mark, check.what, jobs)
    size = scene.bytes_done / 1e6
    rates = f"{scene.done / scene.work_time:,.0f} jobs/s, {size / scene.work_time:.1f} MB/s"
    summary = f"{scene.done:,} jobs, {size:.0f} MB in {scene.work_time:.1f} s ({rates})."
    if scene.sampled:
        summary += f" LZMA would pack them to {scene.packed / scene.sampled:.0%}."
    good = all(check.good for check in checks)
    head = "[bold green]Nothing lost, nothing twice.[/]" if good else "[bold red]Not as it must be: see the crosses.[/]"
    width = min(WIDTH, console.width)
    for part in ("", compared, "", stated, "", f"{head} {summary}"):
        console.print(part, width=width)
