"""What a call costs in which nothing happens."""

from __future__ import annotations

import fcntl
import os

from dmasync import uapi
from dmasync.harness.bench.measure import Operation
from dmasync.harness.bench.timed.surroundings import Bench

FIOCLEX = {True: 0x20006601, False: 0x5451}["alpha" in os.uname().machine or "mips" in os.uname().machine]
"""asm-generic/ioctls.h: sets close-on-exec, which is set already. No driver is called."""


def null_ioctl(bench: Bench) -> Operation:
    """An ioctl with an argument like that of a sync, which the kernel answers before any driver sees it."""
    fd = bench.keep(os.memfd_create("dmasync-bench"))
    ioctl = fcntl.ioctl
    argument = uapi.dma_buf_sync.pack(0)

    def run(count: int) -> None:
        for _ in range(count):
            ioctl(fd, FIOCLEX, argument)

    return Operation(run)


def empty_loop(bench: Bench) -> Operation:
    """The loop alone: what of every row is neither call nor kernel."""

    def run(count: int) -> None:
        for _ in range(count):
            pass

    return Operation(run, counts_loop=True)
