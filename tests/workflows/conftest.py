from __future__ import annotations

import pytest

from taskrunner import TaskRunner
from tests.workflows.tasks import Tasks


@pytest.fixture
def tasks(runner: TaskRunner) -> Tasks:
    """The usual tasks, registered with the test's runner."""
    return Tasks(runner)
