"""Which interesting states a run has seen: a run that saw none of them proves nothing."""

from __future__ import annotations

import re
from collections import Counter

from tests.chaos import flow_rules, seats
from tests.chaos.history import Final, History
from tests.chaos.stage import Stage

LOGGED = {
    "refused outcomes": re.compile(r"(\d+) outcomes were refused"),
    "lost reservations": re.compile(r"(\d+) reservations were lost"),
    "taken over": re.compile(r"took over (\d+) jobs"),
    "failed heartbeats": re.compile(r"()heartbeat failed: "),
}
"""What workers log, and how many of it."""

REQUIRED = (
    "refused outcomes",
    "lost reservations",
    "taken over",
    "grace periods",
    "absorbed duplicates",
    "poison buried",
    "script fallbacks",
    "replayed batches",
    "hand-overs",
    "hand-overs of slots",
    "locked jobs that outlived a worker",
    "failed workflows",
    "cancelled workflows",
    "jobs of workflows run again",
)
"""What must occur at least once in a run, or in the seeds of one call together."""


def seen(stage: Stage, history: History, final: Final) -> Counter[str]:
    found: Counter[str] = Counter(dict.fromkeys((*REQUIRED, *LOGGED), 0))
    for path in stage.folder.glob("worker-*.log"):
        text = path.read_text()
        for state, pattern in LOGGED.items():
            found[state] += sum(int(count or 1) for count in pattern.findall(text))
    first = len(stage.keys.partitions)  # each partition begins with one, as nobody has beaten before
    found["grace periods"] = max(0, len(stage.graces) - first)
    found["absorbed duplicates"] = sum(one.outcome == "deduplicated" for one in history.dispatches)
    found["poison buried"] = sum(
        reason == "delivery limit" and final.records[id].task == "poison"
        for id, reason in final.dead.items()
        if id in final.records
    )
    found["script fallbacks"] = stage.noscript_fallbacks
    numbered = [line for line in history.by_event["lost"] if line.more["what"] in ("settle", "dispatch")]
    found["replayed batches"] = sum(line.more["count"] for line in numbered)
    found["runs repeated"] = sum(len(runs) - len({run.attempt for run in runs}) for runs in history.runs.values())
    found["unique jobs that outlived a worker"] = _outlived(history)
    found.update(seats.seen(history))
    found.update(flow_rules.seen(history, final))
    return found


def _outlived(history: History) -> int:
    """Unique jobs that were run by a second process after the first one's."""
    return sum(runs[0].kind == "unique" and len({run.pid for run in runs}) > 1 for runs in history.runs.values())


def missing(found: Counter[str]) -> list[str]:
    return [state for state in REQUIRED if not found[state]]
