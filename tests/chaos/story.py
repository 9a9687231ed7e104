"""The story of one job: all that the journals and logs say of it, in the order of time, with the faults around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.chaos.history import Final, History, Violation
from tests.chaos.journal import Line

AROUND = 1.0
"""Seconds before its first event and after its last one."""
SURROUNDINGS = ("fault", "fault over", "note", "lost", "died", "stopped", "started", "worker up", "worker down")
MOST = 400


def tell(violation: Violation, history: History, final: Final, folder: Path) -> str:
    """What happened, in lines; times are seconds since the run began."""
    zero = history.lines[0]
    own = list(_own(violation, history))
    began = min([line.at for line in own], default=violation.at if violation.at < 1e18 else zero.at) - AROUND
    ended = max([line.at for line in own], default=began + 2 * AROUND) + AROUND
    around = [line for line in history.lines if line.event in SURROUNDINGS and began <= line.at <= ended]
    told = [(line.at - zero.at, _words(line)) for line in [*own, *around]]
    pids = {line.pid for line in own}
    for path in folder.glob("worker-*.log"):
        if int(path.stem.partition("-")[2]) in pids:
            told += _logged(path, zero.wall, began - zero.at, ended - zero.at)
    head = [f"{violation.invariant}: {violation.text}"]
    if violation.job:
        head.append(f"job {violation.job}: {final.records.get(violation.job, 'no record')}")
    return "\n".join([*head, *(f"{at:9.4f}  {text}" for at, text in sorted(told)[:MOST])])


def _own(violation: Violation, history: History) -> Iterator[Line]:
    """The lines of the job, by its id and by the serial of its dispatch."""
    if not violation.job:
        return
    serials = {run.serial for run in history.runs.get(violation.job, ())}
    if violation.job in history.accepted:
        serials.add(history.accepted[violation.job].serial)
    for line in history.lines:
        if line.job == violation.job or line.more.get("serial") in serials or line.more.get("id") == violation.job:
            yield line


def _words(line: Line) -> str:
    more = " ".join(f"{name}={value}" for name, value in line.more.items() if value not in ("", None))
    return f"[{line.pid}] {line.event} {line.job} {more}"


def _logged(path: Path, zero: float, began: float, ended: float) -> Iterator[tuple[float, str]]:
    """The lines of a log between two times."""
    pid = path.stem.partition("-")[2]
    for line in path.read_text().splitlines():
        created, _, text = line.partition(" ")
        try:
            at = float(created) - zero
        except ValueError:
            continue  # a line of a traceback
        if began <= at <= ended:
            yield at, f"[{pid}] log: {text[:300]}"
