"""The two facts of every sync: which access it brackets, and which edge of the window it is."""

from __future__ import annotations

import enum

from dmasync import uapi


class SyncType(enum.Flag):
    """The CPU access that a window brackets, with the kernel's own bits (``DMA_BUF_SYNC_READ``, ``_WRITE``)."""

    READ = uapi.DMA_BUF_SYNC_READ
    WRITE = uapi.DMA_BUF_SYNC_WRITE
    READ_WRITE = uapi.DMA_BUF_SYNC_RW

    # Prepared once: an argument built for each call costs more than the ioctl (as bytes three times as much), and
    # DMA_BUF_IOCTL_SYNC never writes to it. _lane is the member's place in dmasync.descriptor.Descriptor.lanes; no
    # other class has an attribute of that name, so that asking for it is also the check that this is a SyncType.
    _start: bytearray
    _end: bytearray
    _lane: int


class Step(enum.Enum):
    """An edge of a window."""

    START = uapi.DMA_BUF_SYNC_START
    END = uapi.DMA_BUF_SYNC_END


for _access in (SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE):
    _access._start = uapi.dma_buf_sync.pack(_access.value | Step.START.value)
    _access._end = uapi.dma_buf_sync.pack(_access.value | Step.END.value)
    _access._lane = _access.value
    # CPython 3.10 and 3.11 find an enum's members by way of Python code, at the price of a quarter of a START.
    type.__setattr__(SyncType, str(_access.name), _access)
