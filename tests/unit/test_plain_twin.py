"""The library's tests once more, over File and Window in plain Python (over the compiled ones, if these are plain)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import dmasync
from tests.support.nested import pytest_of_its_own

FOLDER = Path(__file__).parent
WINDOWS = ("access", "buffer", "core", "cycles", "group", "syncer", "window")
DESCRIPTORS = ("allocator", "frame", "points", "sync_file")


@pytest.mark.skipif("DMASYNC_COMPILED" in os.environ, reason="these are the tests once more")
@pytest.mark.parametrize("suites", [WINDOWS, DESCRIPTORS], ids=["windows", "descriptors"])
def test_the_plain_twin_passes_the_librarys_tests(suites):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["DMASYNC_COMPILED"] = "0" if dmasync.compiled else "1"
    done = pytest_of_its_own(*(str(FOLDER / f"test_{suite}.py") for suite in suites), env=environment)
    assert done.returncode == 0, done.stdout[-10_000:]
    assert " passed" in done.stdout
