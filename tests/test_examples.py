"""Every example, and every Python block of README and docs, run as a program of its own on a server of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import DEADLINE, eventually

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TIMEOUT = 45
"""Seconds for a program that takes one to four."""


def environment(**more: str) -> dict[str, str]:
    """As of somebody who has set nothing: then an example starts an embedded server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TASKRUNNER_")}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, "PYTHONWARNINGS": "default", **more}


async def run(*arguments: str, cwd: Path = ROOT) -> str:
    """What a program prints until it ends by itself; it must end well and complain of nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(), cwd=cwd
    )
    try:
        output = (await asyncio.wait_for(process.communicate(), TIMEOUT))[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output
    assert "Traceback" not in output, output
    assert "Warning" not in output, output
    return output


async def example(name: str) -> str:
    return await run(str(EXAMPLES / name))


# -- those that end by themselves ----------------------------------------------------------------------------


async def test_quickstart_says_hello_for_each_job_and_prints_the_receipt() -> None:
    lines = (await example("quickstart.py")).splitlines()
    hellos = [line for line in lines if line.startswith("Hello from example task ")]
    # Jobs that had not started when the program ended stay in the queue; here it waits for a job behind all of them.
    assert sorted(int(line.rpartition(" ")[2]) for line in hellos) == list(range(100))
    assert "receipt for 7 of ann, attempt 1" in lines
    assert re.fullmatch(r"\d+ waiting, 10 slots in 1 process", lines[-1])


async def test_unique_jobs_makes_one_job_of_a_hundred_clicks() -> None:
    lines = (await example("unique_jobs.py")).splitlines()
    assert lines.count("exporting account 7 as csv") == 1
    assert "100 clicks made 1 job" in lines
    assert "the last click gets account-7.csv" in lines
    assert "afterwards: account-7.pdf, deduplicated=False" in lines
    assert lines.count("reminding ann@example.org") == 1
    assert lines[-1] == "a second reminder: deduplicated=True, same job: True"


async def test_producer_only_gets_its_results_from_another_process() -> None:
    lines = (await example("producer_only.py")).splitlines()
    pids = re.fullmatch(r"producer is process (\d+), worker is process (\d+)", lines[0])
    assert pids is not None
    for n in range(3):
        assert f"producer: got {{'path': 'picture-{n}-200.png', 'worker': {pids[2]}}}" in lines
    assert lines[-1] == "producer: notes.txt is no picture (no retries)"


async def test_long_queue_alert_starts_processes_and_stops_them() -> None:
    output = await example("long_queue_alert.py")
    found = [output.find(text) for text in ("alert: ", "started process ", "alert cleared: ", "stopping process ")]
    assert -1 not in found, output
    assert found == sorted(found), output
    assert output.count("started process ") == output.count("stopping process ") == 2
    assert output.splitlines()[-1] == "the queue is empty"


async def test_schedules_fire_and_are_listed_and_removed() -> None:
    lines = (await example("schedules.py")).splitlines()
    assert lines == [
        "bill-7 fires on day 01 at 00:00 UTC",
        "3 ticks, 3 runs",
        "bill-7: @monthly, paused=True",
        "greet_the_office: 30 9 * * mon-fri, paused=False",
        "heartbeat: 0.5, paused=False",
        "removed: True",
        "refused: '0 0 30 2 *' never comes true: no month of it has such a day",
    ]


async def test_serial_per_customer_keeps_the_order_and_lets_others_by_while_a_job_waits_for_its_retry() -> None:
    lines = (await example("serial_per_customer.py")).splitlines()
    assert lines == [
        "5 of 7 jobs wait for the lock of their customer",
        "closed ann after 3 steps",
        "ann: name, address (failed), orders, address",
        "bob: name, address, orders",
    ]


async def test_limited_api_is_called_by_three_at_once_and_not_too_often() -> None:
    lines = (await example("limited_api.py")).splitlines()
    minutes = re.fullmatch(r"170 calls, 3 at once, in (\d+\.\d) minutes", lines[0])
    assert minutes is not None
    assert float(minutes[1]) >= 1.5, "20 at once, and 150 at a hundred a minute"
    assert lines[1:] == [
        "30 more, 3 at once, without a task",
        "acquired: [True, True, True, False, False, False], holders: 3",
        "refused: limiter 'maps' had none of its 3 slots for 'one too many'; try again later, or wait longer",
        "released: True, acquired again: True",
    ]


async def test_the_image_pipeline_makes_an_album_of_all_pictures_and_shows_how_far_it_is() -> None:
    lines = (await example("image_pipeline.py")).splitlines()
    assert lines[0] == "the album is blocked"
    counts = [int(line.split()[0]) for line in lines if line.endswith(" of 60 jobs")]
    assert (counts, counts[-1]) == (sorted(set(counts)), 60)
    pages = [int(line.split()[1]) for line in lines if line.startswith("album: ")]
    assert pages == sorted(set(pages))
    assert lines[-2] == "Holidays: 12 pictures, 36 files, from picture-00 on"
    assert lines[-1] == "{'name': 'picture-00', 'files': ['picture-00.8', 'picture-00.16', 'picture-00.32']}"


async def test_an_import_that_fails_leaves_nothing_of_itself() -> None:
    assert (await example("import_with_cleanup.py")).splitlines() == [
        "imported: 3 customers of monday",
        "failed: line 2 of tuesday has no name, after 2 attempts",
        "cleaned up: 3 staged rows of tuesday removed",
        "import-tuesday has failed: succeeded, failed, cancelled",
        "asked for again: deduplicated=True",
        "dead letter: check ['tuesday']",
        "customers: ann, bob, cleo; staged: 0",
    ]


async def test_the_local_pool_retries_cancels_limits_and_reports_without_a_server() -> None:
    lines = (await example("local_pool.py")).splitlines()
    prices = "{'apple': 5, 'fig': 3, 'banana': 6, 'cherry': 6, 'kiwi': 4} 5 done"
    at = lines.index(prices)
    assert at > 0
    assert all(re.fullmatch(r"\w+: attempt [234]", line) for line in lines[:at])
    assert lines[at + 1 : at + 4] == [
        "group: not you; long is canceled",
        "local task 'slow' took longer than 0.05 s, its max_duration; 1 worker is free",
        "local task 'twice' failed 2 times; TaskTimeout: local task 'twice' took longer than 0.02 s, its max_duration",
    ]
    assert sorted(lines[at + 4 : at + 6]) == ["a: 1,000 characters", "b: 2,000 characters"]
    assert lines[at + 6 :] == ["{'a': '41edece4', 'b': 'd4c6e5ac'}"]


# -- web applications ----------------------------------------------------------------------------------------


@contextmanager
def serving(name: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """A web application on a free port of the loopback interface, and a client for it."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(PORT="0"),
    )
    try:
        with httpx.Client(base_url=_address(process), timeout=DEADLINE) as client:
            yield client, process
    finally:
        process.kill()
        process.communicate()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            return found[0]
    raise AssertionError("it ended before it served: " + "".join(seen))


async def ended(client: httpx.Client, path: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        shown = client.get(path).raise_for_status().json()
        return shown if shown["status"] in ("succeeded", "failed") else None

    found: dict[str, Any] = await eventually(look)
    return found


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=DEADLINE)[0]


async def test_the_fastapi_app_dispatches_by_post_and_shows_status_and_result_by_get() -> None:
    with serving("fastapi_app.py") as (client, process):
        await eventually(lambda: client.get("/ready").status_code == 200)
        ordered = client.post("/reports", params={"day": "2030-01-31"})
        assert ordered.status_code == 202
        shown = await ended(client, f"/reports/{ordered.json()['id']}")
        assert shown["result"] == {"day": "2030-01-31", "weekday": "Thursday"}
        late = client.post("/reports", params={"day": "1999-12-31"}).json()["id"]
        shown = await ended(client, f"/reports/{late}")
        assert (shown["status"], shown["attempts"]) == ("failed", 1)
        assert shown["error"] == "ValueError: there are no figures for 1999"
        assert client.get("/reports/nobody").status_code == 404
        assert "Application shutdown complete" in stop(process)


async def test_the_aiohttp_app_dispatches_by_post_and_shows_status_and_result_by_get() -> None:
    with serving("aiohttp_app.py") as (client, process):
        ordered = client.post("/greetings", params={"name": "Ann"})
        assert ordered.status_code == 202
        shown = await ended(client, f"/greetings/{ordered.json()['id']}")
        assert shown["result"] == "Hello Ann"
        assert client.get("/greetings/nobody").status_code == 404
        assert "Traceback" not in stop(process)
        assert process.returncode == 0


async def test_the_progress_page_is_sent_each_step_of_a_job_until_it_has_ended() -> None:
    with serving("progress_page.py") as (client, process):
        assert "EventSource" in client.get("/").text
        ordered = client.post("/imports", params={"rows": "100"})
        assert ordered.status_code == 202
        path = f"/imports/{ordered.json()['id']}/events"
        with client.stream("GET", path) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            updates = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
        fractions = [update["progress"]["fraction"] for update in updates if update["progress"] is not None]
        assert len(fractions) > 2
        assert fractions == sorted(fractions)
        assert [update["ended"] for update in updates] == [False] * (len(updates) - 1) + [True]
        assert (updates[-1]["status"], fractions[-1]) == ("succeeded", 1.0)
        assert updates[-1]["progress"]["message"] == "row 100 of 100"
        assert client.get("/imports/nobody/events").status_code == 404
        assert "Traceback" not in stop(process)


# -- the pages -----------------------------------------------------------------------------------------------


def blocks() -> list[Any]:
    """The Python blocks of the pages; each is a program."""
    programs = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, found.start()) + 1
            programs.append(pytest.param(found[1], id=f"{page.name}-{line}"))
    return programs


@pytest.mark.parametrize("source", blocks())
async def test_the_python_blocks_of_the_pages_are_programs_that_run(source: str, tmp_path: Path) -> None:
    program = tmp_path / "block.py"
    program.write_text(source, "utf-8")
    await run(str(program), cwd=tmp_path)


def test_every_example_is_tested_here() -> None:
    here = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in here] == []


def test_the_links_between_the_pages_lead_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]
    assert links
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []
