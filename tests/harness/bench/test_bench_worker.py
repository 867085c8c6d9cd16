"""The measuring process: what it answers, and what is left of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

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
