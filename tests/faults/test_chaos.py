"""A short chaos run: three seeds of ``python3 dev.py chaos``, which has the rest of the words for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos import plan, states
from tests.chaos.run import carry_out

SEEDS = (1, 4, 13)
LOAD = 8.0
"""Seconds of random faults for each seed; the finale and the drain take twice as long again."""


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_random_work_under_random_faults_breaks_no_promise(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        report = await carry_out(plan.make(seed, LOAD), folder)
        print(report.line())
        seen += report.states
        assert not report.violations, f"seed {seed}: {report.violations[:10]}\n{report.story}"
    assert not states.missing(seen), f"the seeds {SEEDS} have seen only {dict(seen)}"
