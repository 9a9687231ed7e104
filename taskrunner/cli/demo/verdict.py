"""How it came out: what the jobs found, held against a plain count."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .counting import Count
from .harvest import Harvest
from .leftovers import Leftovers
from .scene import Process

CHECKED = ("size", "lines", "words", "sha256")


@dataclass(frozen=True)
class Check:
    """One line of the verdict. ``plain`` is what the plain count says; empty where there is nothing to compare."""

    what: str
    good: bool
    jobs: str
    plain: str = ""


def judge(
    harvest: Harvest, plain: Mapping[str, Count], processes: Iterable[Process], recorded: int, left: Leftovers
) -> list[Check]:
    """All checks. ``recorded``: successes that the server counted; it must be one per file."""
    counts = {path: report.count for path, report in harvest.reports.items()}
    refused = sum(process.lost for process in processes)
    return [
        _files(harvest, plain),
        *(_total(name, counts.values(), plain.values()) for name in ("size", "lines", "words")),
        _each_file(counts, plain),
        _handed_over(harvest),
        Check(
            "recorded once",
            recorded == len(plain),
            f"the server counts {recorded:,} successes; {_runs(harvest)}, {refused} late outcomes refused",
        ),
        Check("left behind", not left.wrong, str(left)),
    ]


def differences(counts: Mapping[str, Count], plain: Mapping[str, Count]) -> list[str]:
    """What differs, file by file: ``path: lines 7, not 8``."""
    found = [f"{path}: no result" for path in plain if path not in counts]
    found += [f"{path}: not asked for" for path in counts if path not in plain]
    for path, count in counts.items():
        right = dataclasses.asdict(plain[path]) if path in plain else {}
        given = dataclasses.asdict(count)
        found += [
            f"{path}: {name} {given[name]}, not {right[name]}"
            for name in CHECKED
            if right and given[name] != right[name]
        ]
    return found


def _files(harvest: Harvest, plain: Mapping[str, Count]) -> Check:
    missing = len(plain) - len(harvest.reports) - len(harvest.failed)
    problems = [
        f"{number} {what}"
        for number, what in ((missing, "missing"), (len(harvest.twice), "twice"), (len(harvest.failed), "failed"))
        if number
    ]
    problems += list(harvest.failed.values())[:1]
    text = f"{len(harvest.reports):,}" + (f" ({', '.join(problems)})" if problems else " each once")
    return Check("files", not problems, text, f"{len(plain):,}")


def _total(name: str, counts: Iterable[Count], plain: Iterable[Count]) -> Check:
    jobs, right = (sum(getattr(count, name) for count in both) for both in (counts, plain))
    return Check("bytes" if name == "size" else name, jobs == right, f"{jobs:,}", f"{right:,}")


def _each_file(counts: Mapping[str, Count], plain: Mapping[str, Count]) -> Check:
    wrong = differences(counts, plain)
    if wrong:
        return Check("each SHA-256", False, f"{len(wrong):,} differ, the first in {wrong[0]}")
    return Check("each SHA-256", True, f"{len(counts):,} equal", f"{len(plain):,}")


def _handed_over(harvest: Harvest) -> Check:
    """Whether what the killed worker held has run elsewhere."""
    reports = {path: harvest.reports[path] for path in harvest.held if path in harvest.reports}
    again = sum(report.pid != harvest.victim and report.deliveries > 1 for report in reports.values())
    text = f"worker {harvest.victim} held {len(harvest.held)} jobs; {again} of them ran again elsewhere"
    return Check("killed worker", again == len(harvest.held), text)


def _runs(harvest: Harvest) -> str:
    again = sum(report.deliveries - 1 for report in harvest.reports.values())
    return f"{again} {'job was' if again == 1 else 'jobs were'} run a second time"
