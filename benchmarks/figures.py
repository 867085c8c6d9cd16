"""What a pair costs through the library: figures from plain loops of 300, with nothing of a benchmark around them.

Run it on the exact clock, ``dmasync vm --exact -- python benchmarks/figures.py``: one nanosecond is an instruction
there. Elsewhere the same figures are nanoseconds. Each is the whole loop's cost, loop included, divided by the pairs
(by the buffers too for the group): the median of an odd number of such loops.
"""

# ruff: noqa: T201 - printing is all it does
from __future__ import annotations

import fcntl
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable

# The clock's own cost, some hundred instructions for 300 pairs, is left in.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer, DmaSyncerGroup, SyncType, compiled, uapi

PAIRS = 300
LOOPS = 9
SIZE = 1 << 20
GROUP = 4


def main() -> None:
    with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF) as allocator:
        buffers = [allocator.alloc(f"figures-{number}", SIZE) for number in range(GROUP)]
        buffer = buffers[0]
        access = SyncType.READ_WRITE
        syncer = DmaSyncer(buffer, access)
        group = DmaSyncerGroup([(each, SyncType.READ_WRITE) for each in buffers])
        fd = buffer.fileno()
        start = uapi.dma_buf_sync.pack(uapi.DMA_BUF_SYNC_RW | uapi.DMA_BUF_SYNC_START)
        end = uapi.dma_buf_sync.pack(uapi.DMA_BUF_SYNC_RW | uapi.DMA_BUF_SYNC_END)

        def raw() -> None:
            ioctl, request = fcntl.ioctl, uapi.DMA_BUF_IOCTL_SYNC
            for _ in range(PAIRS):
                ioctl(fd, request, start)
                ioctl(fd, request, end)

        def reused() -> None:
            for _ in range(PAIRS):
                with syncer:
                    pass

        def fresh() -> None:
            for _ in range(PAIRS):
                with DmaSyncer(buffer, access):
                    pass

        def looked_up() -> None:
            for _ in range(PAIRS):
                with DmaSyncer(buffer, SyncType.READ_WRITE):
                    pass

        def by_hand() -> None:
            for _ in range(PAIRS):
                syncer.start()
                syncer.end()

        def with_bytes() -> None:
            for _ in range(PAIRS):
                with buffer.cpu_access(access):
                    pass

        def grouped() -> None:
            for _ in range(PAIRS):
                with group:
                    pass

        gc.disable()
        core = "compiled" if compiled else "plain Python"
        python = f"Python {sys.version.split()[0]}"
        print(f"kernel {os.uname().release}, {os.uname().machine}, {python}, {core}, per pair:")
        print(f"raw fcntl                  {figure(raw):9,.1f}")
        print(f"DmaSyncer reused           {figure(reused):9,.1f}")
        print(f"DmaSyncer fresh            {figure(fresh):9,.1f}")
        print(f"  access looked up as well {figure(looked_up):9,.1f}")
        print(f"start() and end()          {figure(by_hand):9,.1f}")
        print(f"cpu_access                 {figure(with_bytes):9,.1f}")
        print(f"group of 4, each buffer    {figure(grouped) / GROUP:9,.1f}")
        for each in buffers:
            each.close()


def figure(loop: Callable[[], None]) -> float:
    """Nanoseconds (instructions) per pair: the median loop, after one that warms up."""
    loop()
    taken = []
    for _ in range(LOOPS):
        began = time.perf_counter_ns()
        loop()
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken) / PAIRS


if __name__ == "__main__":
    main()
