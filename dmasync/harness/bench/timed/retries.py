"""Pairs whose START is interrupted again and again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from dmasync import DmaSyncer, Step, SyncType
from dmasync.fakes import FaultInjector
from dmasync.fakes.layers.faults import Fault, Place, Verdict
from dmasync.harness.bench.measure import Operation
from dmasync.harness.bench.timed.surroundings import Bench


@dataclass(frozen=True)
class _EveryWindow(Fault):
    """EINTR *times* at each START, again and again: arming a plan for each pair would be most of its cost."""

    times: int

    def verdicts(self) -> Iterator[Verdict]:
        return cycle((errno.EINTR,) * self.times + (0,))

    @property
    def on(self) -> Place:
        return Step.START

    @property
    def buffer(self) -> int | None:
        return None


def interrupted_pair(bench: Bench, *, provider: str, size: int, access: str, times: int) -> Operation:
    """A pair whose START meets *times* EINTR."""
    buffer = bench.buffer(provider, size)
    # An injector of its own, on the fake as well: a plan acts on every row's windows that share an injector.
    injector = FaultInjector(bench.backend)
    syncer = DmaSyncer(buffer, SyncType[access], backend=injector)
    injector.inject(_EveryWindow(times))

    def run(count: int) -> None:
        for _ in range(count):
            with syncer:
                pass

    return Operation(run)
