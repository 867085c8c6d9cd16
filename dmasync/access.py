"""The two facts of every sync: which access it brackets, and whether it opens or closes the window."""

from __future__ import annotations

import enum

from dmasync import uapi


class SyncType(enum.Flag):
    """The CPU access that a window brackets, with the kernel's own bits (``DMA_BUF_SYNC_READ``, ``_WRITE``)."""

    READ = uapi.DMA_BUF_SYNC_READ
    WRITE = uapi.DMA_BUF_SYNC_WRITE
    READ_WRITE = uapi.DMA_BUF_SYNC_RW


class Step(enum.Enum):
    """What opens a window, and what closes it."""

    START = uapi.DMA_BUF_SYNC_START
    END = uapi.DMA_BUF_SYNC_END
