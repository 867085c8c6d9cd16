"""A recorded pair on the fake kernel: the first that a journal gets, and those behind a million others."""

from __future__ import annotations

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer
from dmasync.fakes import FakeBackend
from dmasync.fakes.journal import ROW
from dmasync.harness.bench.measure import Operation
from dmasync.harness.bench.timed.surroundings import Bench


def recorded_pair(bench: Bench, *, before: int) -> Operation:
    """A START and its END through a recorder whose journal holds *before* attempts when a block of pairs begins."""
    backend = FakeBackend()
    with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=backend) as allocator:
        buffer = bench.keep_open(allocator.alloc("dmasync-bench", 4096))
    syncer = DmaSyncer(buffer)
    rows = backend.journal.rows
    rows += bytes(before * ROW.size)

    def prepare(count: int) -> None:
        del rows[before * ROW.size :]

    def run(count: int) -> None:
        for _ in range(count):
            with syncer:
                pass

    return Operation(run, prepare)
