"""Pairs whose START is interrupted again and again."""

from __future__ import annotations

import errno

from dmasync import DmaSyncer, SyncType
from dmasync.harness.bench_measure import Operation
from fakes import FaultInjector, faults
from timed.bench import Bench


def interrupted_pair(bench: Bench, *, provider: str, size: int, access: str, times: int) -> Operation:
    """A pair whose START meets *times* EINTR; arming the injector is part of it."""
    buffer = bench.buffer(provider, size)
    injector = bench.backend.injector if bench.is_fake else FaultInjector(bench.backend)
    outer = bench.backend if bench.is_fake else injector
    syncer = DmaSyncer(buffer, SyncType[access], backend=outer)
    plan = faults.storm(errno.EINTR, times)

    def run(count: int) -> None:
        for _ in range(count):
            injector.clear()
            injector.inject(plan)
            with syncer:
                pass

    return Operation(run)
