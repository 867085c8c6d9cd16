"""The two facts of every sync: which access it brackets, and which edge of the window it is."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from itertools import repeat

from dmasync import uapi


class SyncType(enum.Flag):
    """The CPU access that a window brackets, with the kernel's own bits (``DMA_BUF_SYNC_READ``, ``_WRITE``)."""

    READ = uapi.DMA_BUF_SYNC_READ
    WRITE = uapi.DMA_BUF_SYNC_WRITE
    READ_WRITE = uapi.DMA_BUF_SYNC_RW

    # Endless iterators over one prepared argument per edge, for the C loop in dmasync.syncer: an argument built
    # per call costs more than the ioctl (bytes three times as much), and DMA_BUF_IOCTL_SYNC never writes to it.
    _starts: Iterator[bytearray]
    _ends: Iterator[bytearray]


class Step(enum.Enum):
    """An edge of a window."""

    START = uapi.DMA_BUF_SYNC_START
    END = uapi.DMA_BUF_SYNC_END


for _access in (SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE):
    _access._starts = repeat(uapi.dma_buf_sync.pack(_access.value | Step.START.value))
    _access._ends = repeat(uapi.dma_buf_sync.pack(_access.value | Step.END.value))
