"""How hypothesis runs here: the same examples each time, as fast or slow as the machine is, leaving no files behind."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

STORIES = 40 if os.environ.get("TASKRUNNER_TEST_SERVER") else 150
"""Examples for what takes a real server a tenth of a second or more each. Fewer in a leg of the matrix: the scripts are
the same on every server, and whatever of theirs a server does differently, the tests of each script would show."""

settings.register_profile(
    "taskrunner",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("taskrunner")
