"""What docs/local.md says, where no other test shows it, and whether the tests exist that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import taskrunner.local
from tests.guide.references import is_there

PAGE = (Path(__file__).parents[2] / "docs" / "local.md").read_text("utf-8")
NAMED = re.findall(r"`([a-z_/]+\.py::\w+)`", PAGE)


@pytest.mark.parametrize("reference", sorted(set(NAMED)))
def test_the_tests_that_the_page_names_exist(reference: str) -> None:
    assert is_there(reference)


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 25


def test_the_page_names_all_that_is_public() -> None:
    assert [name for name in taskrunner.local.__all__ if name not in PAGE] == []
