"""The library's tests once more, over File and Window in plain Python (over the compiled ones, if these are plain)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dmasync

FOLDER = Path(__file__).parent
SUITES = [
    "test_access", "test_allocator", "test_buffer", "test_core", "test_cycles", "test_frame", "test_group",
    "test_points", "test_sync_file", "test_syncer", "test_window",
]  # fmt: skip


@pytest.mark.skipif("DMASYNC_COMPILED" in os.environ, reason="these are the tests once more")
@pytest.mark.parametrize("suite", SUITES)
def test_the_plain_twin_passes_the_librarys_tests(suite):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["DMASYNC_COMPILED"] = "0" if dmasync.compiled else "1"
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", FOLDER / f"{suite}.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=FOLDER.parent.parent
    )
    assert done.returncode == 0, done.stdout[-10_000:]
    assert " passed" in done.stdout
