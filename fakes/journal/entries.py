"""What a journal is made of: attempts at START and END as packed rows, other calls and events as objects."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, overload

from dmasync import Step, SyncType, uapi

INTERRUPTED: Final = -1
"""``errno`` of a call that ended with an exception that is no OSError, such as KeyboardInterrupt in a
START."""

HEAD: Final = struct.Struct("<qqQqiI")
"""time_ns, buffer, flags, thread, fd, stack: known before the call."""
TAIL: Final = struct.Struct("<qh")
"""end_ns, errno: known after it."""
ROW: Final = struct.Struct("<qqQqiIqh")
NO_BUFFER: Final = -(1 << 63)
NO_FLAGS: Final = (1 << 64) - 1

_ACCESS = {bits: SyncType(bits) for bits in range(4)}


class Transition(NamedTuple):
    """One attempt at START or END: a transition when it succeeded (``errno`` is 0)."""

    sequence: int
    """Position among all attempts, from 0, in the order in which they ended."""
    time_ns: int
    """When it began, on the monotonic clock."""
    end_ns: int
    """When it ended."""
    buffer: int | None
    """The dma-buf, the same through each of its descriptors; None when the descriptor was not open."""
    fd: int
    flags: int | None
    """The bits of ``struct dma_buf_sync``; None when the argument could not be read."""
    errno: int
    """0 for success, else the errno; INTERRUPTED for an exception that was no OSError."""
    thread: int
    """``threading.get_ident()`` of the caller."""
    stack: int
    """Index for ``Journal.stack()``; 0 where none was taken."""

    @property
    def step(self) -> Step:
        """START or END."""
        return Step.END if self.flags is not None and self.flags & uapi.DMA_BUF_SYNC_END else Step.START

    @property
    def access(self) -> SyncType:
        """The access that was asked for; ``SyncType(0)`` when there was none."""
        return _ACCESS[(self.flags or 0) & uapi.DMA_BUF_SYNC_RW]

    @property
    def succeeded(self) -> bool:
        return not self.errno


@dataclass(slots=True)
class Call:
    """Any other call through the recorder: its method, arguments and answer."""

    method: str
    arguments: tuple[Any, ...]
    time_ns: int
    thread: int
    position: int
    """How many SYNC attempts had ended before it began: its place among them."""
    buffer: int | None = None
    """What the descriptor among the arguments named when the call began."""
    stack: int = 0
    result: Any = None
    """What it returned: a descriptor, a number, or for mmap a Mapped; None after an error."""
    after: bytes | None = None
    """For an ioctl with a buffer: the buffer's bytes after the call."""
    errno: int | None = INTERRUPTED
    end_ns: int = 0

    @property
    def succeeded(self) -> bool:
        return self.errno == 0

    @property
    def new_fd(self) -> int | None:
        """The descriptor that the call created, if it did."""
        if not self.succeeded or self.result is None:
            return None
        if self.method in ("open", "dup", "memfd_create"):
            return int(self.result)
        if self.method == "ioctl":
            request = self.arguments[1]
            if request in (uapi.UDMABUF_CREATE, uapi.UDMABUF_CREATE_LIST):
                return int(self.result)
            layout = _FD_IN_ARGUMENT.get(request)
            if layout and self.after is not None and len(self.after) >= layout[0].size:
                return layout[0].get(self.after, layout[1])
        return None


_FD_IN_ARGUMENT: Final = {
    uapi.DMA_HEAP_IOCTL_ALLOC: (uapi.dma_heap_allocation_data, "fd"),
    uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE: (uapi.dma_buf_export_sync_file, "fd"),
    uapi.SYNC_IOC_MERGE: (uapi.sync_merge_data, "fence"),
}


@dataclass(slots=True)
class Event:
    """Something that was no call: bytes that a device or the CPU touched, as the fake memory saw it."""

    kind: str
    """``device-read``, ``device-write``, ``cpu-access`` (between windows), ``cpu-write``, …: see
    dmasync.fakes.sanitizer."""
    buffer: int
    ranges: tuple[tuple[int, int], ...]
    """(offset, length) in bytes."""
    time_ns: int
    thread: int
    position: int
    stack: int = 0
    note: str = ""
    end_ns: int = 0


Entry = Transition | Call | Event


class Attempts(Sequence[Transition]):
    """Every SYNC attempt, read from the journal's rows as they are asked for."""

    def __init__(self, rows: bytearray) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows) // ROW.size

    @overload
    def __getitem__(self, index: int) -> Transition: ...
    @overload
    def __getitem__(self, index: slice) -> list[Transition]: ...
    def __getitem__(self, index: int | slice) -> Transition | list[Transition]:
        if isinstance(index, slice):
            return [self._row(i) for i in range(*index.indices(len(self)))]
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"attempt {index} of {length}")
        return self._row(index % length)

    def __iter__(self) -> Iterator[Transition]:
        index = 0
        while index < len(self):  # asked each time: attempts may be added meanwhile
            yield self._row(index)
            index += 1

    def __repr__(self) -> str:
        return f"<{len(self)} attempts>"

    def _row(self, index: int) -> Transition:
        row = ROW.unpack_from(self._rows, index * ROW.size)
        time_ns, buffer, flags, thread, fd, stack, end_ns, code = row
        return Transition(
            index,
            time_ns,
            end_ns,
            None if buffer == NO_BUFFER else buffer,
            fd,
            None if flags == NO_FLAGS else flags,
            code,
            thread,
            stack,
        )
