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


_FOLLOWING = ("_holder", "_place", "_take", "_nodes", "_follow")
"""What lets those go on that wait for jobs which have ended."""
_LATE = "_following"
"""The same, defined only when somebody waits."""


def load(name: str, *shared: str) -> Script:
    """The script ``name``.lua of this package, with what it shares with others."""
    text = b"\n".join(_part(part) for part in ("_prelude", *shared, name))
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


def _part(name: str) -> bytes:
    folder = resources.files("taskrunner.store") / "scripts"
    text = (folder / f"{name}.lua").read_bytes()
    if name == _LATE:
        body = b"\n".join(map(_part, _FOLLOWING))
        return b"local function follow()\n%b\nreturn note_ends, let_followers_go\nend\n%b" % (body, text)
    return text


DISPATCH = load("dispatch", "_holder", "_tick", "_dead", "_lease", "_place", "_take")
ADMIT = load("admit", "_lease")
SIT = load("sit", "_lease")
SEATS = load("seats", "_lease")
SETTLE = load("settle", "_dead", "_lease", "_release", _LATE)
PROMOTE = load("promote", "_dead", "_lease", "_release", _LATE, "_ending", "_orphan")
BEAT = load("beat")
RECLAIM = load("reclaim")
SWEEP = load("sweep")
LEAVE = load("leave")
LEAD = load("lead")
WATCH = load("watch", "_wish")
LOOK = load("look", "_sight")
OBSERVE = load("observe", "_sight", "_wish")
STATS = load("stats")
COUNT = load("count")
LIST = load("list")
PAGE = load("page")
PRUNE = load("prune", "_dead")
TRIM = load("trim")
JOIN = load("join")
FETCH = load("fetch")
PAUSE = load("pause")
AUDIT = load("audit", "_dead", "_lease", "_release", _LATE, "_ending", "_orphan")
RELEASE = load("release")
VACATE = load("vacate", "_lease")
CANCEL = load("cancel", "_lease", "_release", _LATE, "_ending", "_cancel")
DELETE = load("delete", "_dead", "_lease", "_release", _LATE, "_ending", "_cancel")
PURGE = load("purge", "_lease", "_release", _LATE, "_ending", "_cancel")
RECOUNT = load("recount")
SAVE = load("save")
PROGRESS = load("progress")
FORGET = load("forget")
SCHEDULE = load("schedule")
TICKS = load("ticks")
SLOTS = load("slots", "_lease")
HOLDERS = load("holders")
STAGE = load("stage")
BEGIN = load("begin", "_dead", "_lease", "_release", *_FOLLOWING)
HALT = load("halt", "_dead", "_lease", "_release", *_FOLLOWING)
UNFOLD = load("unfold", "_dead", "_lease", "_release", *_FOLLOWING, "_ending", "_cancel", "_cancel_by_id")
AUDIT_WORKFLOWS = load("audit_workflows", "_dead", "_lease", "_release", *_FOLLOWING)
VIEW = load("view")
DELIVER = load("deliver", "_dead", "_lease", "_release", *_FOLLOWING, "_ending", "_cancel", "_cancel_by_id")
