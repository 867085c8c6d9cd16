"""START and END through fcntl, each call timed alone as a plain program would, by size and access.

    dmasync vm --exact -- python benchmarks/single_calls.py
    dmasync vm --arch arm64 --exact -- python benchmarks/single_calls.py

On the exact clock a nanosecond is an instruction. A figure is the median of 61 calls, that of a first START the median
of 15 new buffers. It holds what stands between two readings of the clock: one reading, and the bytecode of the call.
The suites' rows (``dmasync bench``) hold neither. What two readings say with nothing between them is in the last line.
"""

# ruff: noqa: T201 - printing is all it does
from __future__ import annotations

import fcntl
import gc
import os
import statistics
import sys
import time
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, SyncType, uapi

SIZES = {"64 KiB": 64 << 10, "1 MiB": 1 << 20, "4 MiB": 4 << 20}
CALLS = 61
BUFFERS = 15
WARM_UP = 192
"""Calls after which CPython has its final form of the code that makes them."""
ACCESSES = (SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE)


SYNC = uapi.DMA_BUF_IOCTL_SYNC
STEPS = (uapi.DMA_BUF_SYNC_START, uapi.DMA_BUF_SYNC_END)


def steady(allocator: DmaBufAllocator, size: int, access: SyncType) -> tuple[int, int]:
    """What a START and an END cost of a buffer that has been STARTed before."""
    start, end = (uapi.dma_buf_sync.pack(access.value | step) for step in STEPS)
    starts, ends = [], []
    with allocator.alloc("single-calls", size) as buffer:
        fd = buffer.fileno()
        for _ in range(CALLS):
            began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            fcntl.ioctl(fd, SYNC, start)
            starts.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - began)
            began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            fcntl.ioctl(fd, SYNC, end)
            ends.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - began)
    return statistics.median_low(starts), statistics.median_low(ends)


def first(allocator: DmaBufAllocator, size: int, access: SyncType) -> int:
    """What the first START of a buffer costs."""
    start, end = (uapi.dma_buf_sync.pack(access.value | step) for step in STEPS)
    costs = []
    for _ in range(BUFFERS):
        with allocator.alloc("single-calls", size) as buffer:
            fd = buffer.fileno()
            began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            fcntl.ioctl(fd, SYNC, start)
            costs.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - began)
            fcntl.ioctl(fd, SYNC, end)
    return statistics.median_low(costs)


def nothing() -> int:
    """What two readings of the clock say with nothing between them."""
    costs = []
    for _ in range(CALLS):
        began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        costs.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - began)
    return statistics.median_low(costs)


def main(backend: Any = None) -> None:
    """Print the table; *backend* makes the buffers."""
    gc.disable()
    release = os.uname()
    print(f"kernel {release.release}, {release.machine}, Python {sys.version.split()[0]}, one call:")
    print(f"{'':23}" + "".join(f"{size:>12}" for size in SIZES))
    with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=backend) as allocator:
        for _ in range(WARM_UP // BUFFERS):
            steady(allocator, 4096, SyncType.READ)
            first(allocator, 4096, SyncType.READ)
        for access in ACCESSES:
            costs = [steady(allocator, size, access) for size in SIZES.values()]
            firsts = [first(allocator, size, access) for size in SIZES.values()]
            for step, figures in zip(("first START", "START", "END"), (firsts, *zip(*costs, strict=True)), strict=True):
                print(f"{step} {access.name}".ljust(23) + "".join(f"{figure:12,}" for figure in figures))
    print(f"two readings of the clock: {nothing():,}")


if __name__ == "__main__":
    main()
