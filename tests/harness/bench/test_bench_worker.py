"""The measuring process: what it answers, and what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dmasync
from dmasync.harness.bench import worker as measuring
from dmasync.harness.bench.measure import WALL
from dmasync.harness.bench.measurers import RowImpossibleError, Worker, WorkerError

PAIR = {"api": "fcntl", "provider": "udmabuf", "size": 4096, "access": "READ"}


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker({"fake": True}) as worker:
        yield worker


def test_rows_are_measured_one_after_the_other(worker: Worker) -> None:
    for _ in range(2):
        measured = worker.measure("sync_pair", PAIR, WALL)
        assert len(measured.rounds) >= WALL.least_rounds
        assert min(measured.rounds) > 0


def test_every_row_has_a_process_of_its_own(worker: Worker) -> None:
    first, second = (worker.ask("surroundings:process", {}) for _ in range(2))
    assert len({first, second, os.getpid()}) == 3


def test_what_the_kernel_refuses_is_a_reason_and_no_failure(worker: Worker) -> None:
    with pytest.raises(RowImpossibleError, match="size_limit_mb is 64 MiB"):
        worker.measure("sync_pair", {**PAIR, "size": 1 << 40}, WALL)
    assert worker.measure("sync_pair", PAIR, WALL).rounds


def test_a_defect_is_a_failure_with_its_traceback(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="KeyError: 'carrier pigeon'"):
        worker.measure("sync_pair", {**PAIR, "api": "carrier pigeon"}, WALL)
    assert worker.measure("sync_pair", PAIR, WALL).rounds


def test_a_child_that_dies_is_a_failure(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="ended with status 7"):
        worker.ask("surroundings:die", {"status": 7})
    assert worker.measure("sync_pair", PAIR, WALL).rounds


def test_nothing_is_left_running() -> None:
    with Worker({"fake": True}) as worker:
        server = worker.ask("surroundings:server", {})
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_what_lies_beside_the_package_and_in_the_current_folder_is_never_listed(tmp_path: Path) -> None:
    """A list of it would be kept, and move every object behind it."""
    listed = measuring.BOOTSTRAP.replace("worker.serve()", "print(*sys.path_importer_cache, sep='\\n')")
    line = [sys.executable, "-s", "-B", "-c", listed, *measuring.command(sys.executable, {})[-2:]]
    done = subprocess.run(line, cwd=tmp_path, env=measuring.ENVIRONMENT, capture_output=True, text=True, check=True)
    folders = {Path(folder) for folder in done.stdout.splitlines()}
    package = Path(dmasync.__file__).parent
    assert package in folders
    assert folders.isdisjoint({package.parent, tmp_path, Path()})
