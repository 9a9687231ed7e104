"""Tests of values and pure functions need nothing but the profile of hypothesis."""

from tests import properties

__all__ = ["properties"]
