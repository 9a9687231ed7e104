"""The scenarios by name, their rounds, and the table of what was seen."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenarios import crashes, duplicates, long_jobs, outages, stops, zombies
from tests.scenarios.stage import Figures, Stage, stage


@dataclass(frozen=True)
class Scenario:
    """``cell`` is the form in which its figures are shown; ``durable``: its server syncs every write."""

    play: Callable[[Stage], Awaitable[Figures]]
    fault: str
    cell: str
    durable: bool = False


SCENARIOS = {
    "S1": Scenario(
        crashes.killed_workers,
        "kill -9 of six workers",
        "{lost} lost / {twice} twice ({living} ended by live workers) of ~{held} in hand; "
        "all ended {recovery} s after the last kill",
    ),
    "S2": Scenario(zombies.zombie, "zombie", "{seconds} s; {result}"),
    "S2b": Scenario(
        zombies.waking_zombie,
        "zombie under a new owner",
        "zombie's end leaves the new owner's delivery {delivery}; new owner killed: done again +{seconds} s",
    ),
    "S3": Scenario(
        long_jobs.blocked_loop,
        "loop blocked for three reservations",
        "{runs} run(s); bystanders twice {twice}, lost {lost} of {bystanders}",
    ),
    "S4": Scenario(long_jobs.long_job, "job of ten reservations", "{runs} run(s)"),
    "S5": Scenario(
        outages.killed_server,
        "server killed three times",
        "{lost} of {accepted} / {twice}; both back {back}/3 ({seconds} s), half the old rate after {rate} s; "
        "self-exits {exits}, producer's errors {errors}",
        durable=True,
    ),
    "S6": Scenario(
        outages.emptied_server,
        "FLUSHALL, SCRIPT FLUSH",
        "back {back}/{workers} ({seconds} s), half the old rate after {rate} s; "
        "{lost} new lost of {accepted} / {twice}; self-exits {exits}, producer's errors {errors}",
    ),
    "S7": Scenario(
        stops.stop,
        "SIGTERM, all slots full",
        "{seconds} s ({late} s after the last job); {lost} lost / {twice} twice of {jobs}",
    ),
    "S8": Scenario(
        duplicates.one_key,
        "one key from four processes",
        "{runs} run(s) of {dispatches}, {deduplicated} told; killed job done +{done} s, free +{free} s",
    ),
    "S9": Scenario(
        crashes.poison,
        "os._exit(1)",
        "{starts} in 30 s; bystanders not done {lost}, twice {twice} of {bystanders}",
    ),
}


@dataclass
class Row:
    """What the rounds of one scenario came to."""

    name: str
    rounds: list[Figures] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def stood(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        scenario = SCENARIOS[self.name]
        names = self.rounds[0] if self.rounds else {}
        spans = {name: span([figures[name] for figures in self.rounds]) for name in names}
        cell = scenario.cell.format(**spans) if spans else "–"
        verdict = "stood" if self.stood else "**did not stand**: " + "; ".join(self.problems)
        return f"| {self.name} | {scenario.fault} | {cell} | {verdict} |"


def span(values: Sequence[float | str]) -> str:
    """``lowest-highest``, or the one value that there is."""
    shown = {value if isinstance(value, str) else round(value, 1): None for value in values}
    if any(isinstance(value, str) for value in shown):
        return " or ".join(map(str, shown))
    numbers = sorted(float(value) for value in shown)
    return f"{numbers[0]:g}" if len(numbers) == 1 else f"{numbers[0]:g}-{numbers[-1]:g}"


async def play(name: str, seed: int, folder: Path) -> tuple[Figures | None, list[str]]:
    """Plays a scenario once. Returns its figures, if it came to its end, and what did not hold."""
    scenario = SCENARIOS[name]
    async with stage(folder, seed, durable=scenario.durable) as opened:
        try:
            return await scenario.play(opened), opened.problems
        except Exception as error:  # a scenario that breaks off is a row of the table like any other
            return None, [*opened.problems, f"it broke off: {error!r}"]


async def play_rounds(name: str, rounds: int, seed: int, tell: Callable[[str], None]) -> Row:
    row = Row(name)
    for number in range(seed, seed + rounds):
        with tempfile.TemporaryDirectory(prefix=f"scenario-{name}-") as folder:
            figures, problems = await play(name, number, Path(folder))
        if figures is not None:
            row.rounds.append(figures)
        row.problems += [f"{problem} (seed {number})" for problem in problems]
        tell(f"{name}, seed {number}: " + ("; ".join(problems) or "stood"))
    return row
