"""Pairs from several threads at once, each on a buffer of its own."""

from __future__ import annotations

import os
import sys
import threading

from dmasync import DmaSyncer, SyncType
from dmasync.harness.bench.measure import Operation
from dmasync.harness.bench.timed.surroundings import Bench

PAIRS_EACH = 84
"""Pairs of each thread between two meetings: waking the threads costs more than a pair, many must bear it."""


def pairs(bench: Bench, *, provider: str, size: int, access: str, threads: int) -> Operation:
    """An operation is one pair in every thread; a block ends when the last thread has done its pairs."""
    syncers = [DmaSyncer(bench.buffer(provider, size), SyncType[access]) for _ in range(threads)]
    # A switch that is forced by time would come at another place each time.
    sys.setswitchinterval(1000.0)
    go, done = threading.Barrier(threads + 1), threading.Barrier(threads + 1)
    each = 0
    refusals: list[Exception] = []

    def work(syncer: DmaSyncer) -> None:
        try:
            while True:
                go.wait()
                for _ in range(each):
                    with syncer:
                        pass
                done.wait()
        except Exception as refusal:
            refusals.append(refusal)
            done.abort()  # or the others would wait for this thread for ever

    for syncer in syncers:
        threading.Thread(target=work, args=(syncer,), daemon=True).start()

    def gather(count: int) -> None:
        # Or some would come to the meeting within the block, and some before it, by turns.
        while go.n_waiting < threads:
            os.sched_yield()

    def run(count: int) -> None:
        nonlocal each
        each = count
        go.wait()
        try:
            done.wait()
        except threading.BrokenBarrierError:
            raise refusals[0] from None

    return Operation(run, prepare=gather, least=PAIRS_EACH, facts={"calls": 2 * threads})
