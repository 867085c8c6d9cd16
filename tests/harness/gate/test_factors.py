"""How the ratios of several rows read as one range."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dmasync.harness.judge.words import factors


@pytest.mark.parametrize(
    ("least", "most", "read"),
    [
        (1.388, 890.4, "x1.39 … x890"),
        (0.6, 2.5, "x0.6 … x2.5"),
        (1.05, 1.1, "+5.0 % … +10.0 %"),
        (8.86, 1686.0, "x8.86 … x1,686"),
        (1.1, 1.1, "+10.0 %"),
        (1.1, float("inf"), "+10.0 % … ?"),
    ],
)
def test_a_range_is_in_one_unit(least, most, read):
    row: Any = SimpleNamespace
    assert factors(row(ratio=least), row(ratio=most)) == read
