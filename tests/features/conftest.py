"""What the tests of the features share."""

from __future__ import annotations

import pytest

from taskrunner.store.keys import PartitionKeys


@pytest.fixture
def keys(namespace: str) -> PartitionKeys:
    """The keys of the test's namespace, for looking at what stands in the server."""
    return PartitionKeys("taskrunner", namespace, 0)
