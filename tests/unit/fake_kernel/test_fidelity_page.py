"""docs/explanation/fidelity.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/explanation/fidelity.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `") and "::" in line]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_row_names_tests_that_exist(row: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
    assert named
    for file, test in named:
        path = ROOT / file if "/" in file else ROOT / "tests/conformance" / file
        assert f"def {test}(" in path.read_text()


def test_the_table_is_there() -> None:
    assert len(ROWS) > 80
