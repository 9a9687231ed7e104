"""Mutants fit the code that they break. Whether they are caught is ``python3 dev.py mutants``: it takes minutes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.__main__ import MUTANTS
from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_breaks_what_stands_in_the_code_once_and_names_tests_that_exist(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.text) == 1
    assert mutant.becomes != mutant.text
    for test in mutant.tests:
        file, _, name = test.partition("::")
        nodes = ast.parse((ROOT / file).read_text()).body
        assert not name or name in {getattr(node, "name", "") for node in nodes}


def test_no_two_mutants_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
