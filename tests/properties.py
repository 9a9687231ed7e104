"""How hypothesis runs here: the same examples each time, as fast or slow as the machine is, leaving no files behind."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "taskrunner",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("taskrunner")
