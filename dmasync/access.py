"""The two facts of every sync: which access it brackets, and which edge of the window it is."""

from __future__ import annotations

import enum
import sys
from typing import Any

from dmasync import uapi


class _SyncTypes(enum.EnumMeta):
    """The type of :class:`SyncType`, which finds its members at once: see the end of this module."""


class SyncType(enum.Flag, metaclass=_SyncTypes):
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
    _writes: bool


class Step(enum.Enum):
    """An edge of a window."""

    START = uapi.DMA_BUF_SYNC_START
    END = uapi.DMA_BUF_SYNC_END


BY_LANE = SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE

for _lane, _access in enumerate(BY_LANE):
    _access._start = uapi.dma_buf_sync.pack(_access.value | Step.START.value)
    _access._end = uapi.dma_buf_sync.pack(_access.value | Step.END.value)
    _access._lane = _lane
    _access._writes = bool(_access.value & uapi.DMA_BUF_SYNC_WRITE)


class _Attributes(dict[str, Any]):
    """What ``SyncType.NAME`` gives: the members from here, everything else the usual way."""

    def __missing__(self, name: str) -> Any:
        return type.__getattribute__(SyncType, name)


if sys.version_info < (3, 12):  # pragma: no branch - depends on the version
    # Before 3.12 an enum looks its members up in Python, or at best in two places with a method call between: 700
    # instructions, where a START and its END with all that is around them take 6,000.
    _SyncTypes.__getattribute__ = _Attributes(SyncType.__members__).__getitem__  # type: ignore[assignment,method-assign]
