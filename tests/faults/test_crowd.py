"""A small crowd before a few locks: a tenth of ``python -m tests.chaos.crowd``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.crowd import carry_out

JOBS, KEYS, WORKERS = 2000, 16, 3


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_two_jobs_of_a_key_run_at_once_and_none_overtakes_while_workers_die_and_stand_still(
    tmp_path: Path,
) -> None:
    report = await carry_out(JOBS, KEYS, WORKERS, 1, tmp_path)
    print(report.line())
    assert not report.violations, f"{report.violations[:10]}\n{report.story}"
    assert (report.jobs, report.keys) == (JOBS, KEYS)
    assert report.seen["hand-overs"] >= JOBS - KEYS
    assert report.done["kills"] + report.done["stops"] > 0
