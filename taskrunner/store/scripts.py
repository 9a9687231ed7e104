"""Loads the Lua scripts. A script is called by its SHA; a server that doesn't know it (restart, failover, SCRIPT FLUSH)
gets the text once. A SHA names exact code, so two releases run side by side during a deploy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text with the prelude in front, and its SHA."""

    name: str
    text: bytes
    sha: bytes


def load(name: str, *shared: str) -> Script:
    """The script ``name``.lua of this package, with what it shares with others."""
    folder = resources.files("taskrunner.store") / "scripts"
    text = b"\n".join((folder / f"{part}.lua").read_bytes() for part in ("_prelude", *shared, name))
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


DISPATCH = load("dispatch", "_holder", "_tick", "_dead", "_lease", "_place")
ADMIT = load("admit", "_lease")
SIT = load("sit", "_lease")
SEATS = load("seats", "_lease")
SETTLE = load("settle", "_dead", "_lease", "_release")
PROMOTE = load("promote", "_dead", "_lease", "_release", "_ending", "_orphan")
BEAT = load("beat")
RECLAIM = load("reclaim")
SWEEP = load("sweep")
LEAVE = load("leave")
LEAD = load("lead")
WATCH = load("watch")
LOOK = load("look")
STATS = load("stats")
COUNT = load("count")
LIST = load("list")
PAGE = load("page")
PRUNE = load("prune", "_dead")
TRIM = load("trim")
JOIN = load("join")
FETCH = load("fetch")
PAUSE = load("pause")
AUDIT = load("audit", "_dead", "_lease", "_release", "_ending", "_orphan")
RELEASE = load("release")
VACATE = load("vacate", "_lease")
CANCEL = load("cancel", "_lease", "_release", "_ending", "_cancel")
DELETE = load("delete", "_dead", "_lease", "_release", "_ending", "_cancel")
PURGE = load("purge", "_lease", "_release", "_ending", "_cancel")
RECOUNT = load("recount")
SAVE = load("save")
SCHEDULE = load("schedule")
TICKS = load("ticks")
SLOTS = load("slots", "_lease")
HOLDERS = load("holders")
