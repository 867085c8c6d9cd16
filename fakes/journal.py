"""Journal: what a recorder saw, and the questions a test asks of it.

Attempts at ``DMA_BUF_IOCTL_SYNC`` are kept as packed rows (48 bytes each), everything else, which is rarer,
as objects. Rows are appended by a recorder in one uninterruptible step (see dmasync.fakes.layers), read by anybody.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Any, Final, NamedTuple, overload

from dmasync import Step, SyncType, uapi
from dmasync.fakes.arguments import number_of

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
_ROWS_AT_ONCE: Final = 1 << 14

_ACCESS = {bits: SyncType(bits) for bits in range(4)}

Frame = tuple[str, int, str]
"""File, line, function: innermost first in a stack."""


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
        """The edge of the window."""
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


@dataclass
class _Stacks:
    """Call stacks by index, each kept once, as code objects until somebody asks for file and line."""

    taken: list[Any] = field(default_factory=lambda: [()])
    index: dict[Any, int] = field(default_factory=dict)


class Journal:
    """Each attempt at START and END, each other call, in order.

    Indices and sequence numbers count SYNC attempts; a :class:`Call` or :class:`Event` says by its
    ``position`` between which of them it lies.
    """

    def __init__(self) -> None:
        self.rows = bytearray()
        """Packed attempts; only recorders append, by ``+=``."""
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.started_ns = time.time_ns() - time.monotonic_ns()
        """Add it to a ``time_ns`` for the wall clock."""
        self.facts: dict[str, Any] = {}
        """What is known about where this was recorded: kernel, pid, program, …"""
        self._stacks = _Stacks()

    # -- asking
    # ---------------------------------------------------------------------------------------------------

    @property
    def attempts(self) -> Attempts:
        """Every SYNC attempt, failed ones too."""
        return Attempts(self.rows)

    def __len__(self) -> int:
        return len(self.rows) // ROW.size

    def __repr__(self) -> str:
        return f"<Journal: {len(self)} attempts, {len(self.calls)} other calls>"

    def transitions(self, buffer: int | Any | None = None) -> list[Transition]:
        """The attempts that succeeded, of one *buffer* or of all.

        *buffer* is an identity as in ``Transition.buffer``, or an object with ``fileno()`` such as a DmaBuf.
        """
        wanted = self._identity(buffer)
        return [entry for entry in self.attempts if not entry.errno and (wanted is None or entry.buffer == wanted)]

    def count(self, step: Step | None = None, errno: int | None = None) -> int:
        """How many attempts had that *step* and *errno* (0: success); None counts all."""
        end = uapi.DMA_BUF_SYNC_END
        return sum(
            1
            for _, _, flags, _, _, _, _, code in self._unpacked()
            if (errno is None or code == errno)
            and (step is None or (step is Step.END) == bool(flags != NO_FLAGS and flags & end))
        )

    @property
    def buffers(self) -> tuple[int, ...]:
        """The dma-bufs that attempts named, in the order of their first one."""
        return tuple(dict.fromkeys(entry.buffer for entry in self.attempts if entry.buffer is not None))

    @property
    def open_windows(self) -> tuple[Transition, ...]:
        """The STARTs that succeeded and were not ended.

        An END closes the latest open START of its buffer with the same access, or else the latest one of the
        buffer at all.
        """
        return self._pair()[0]

    @property
    def unmatched_ends(self) -> tuple[Transition, ...]:
        """The ENDs that succeeded without an open START of their buffer."""
        return self._pair()[1]

    def _pair(self) -> tuple[tuple[Transition, ...], tuple[Transition, ...]]:
        # Not through attempts: a journal may hold a million of them, nearly all refusals.
        open_: dict[int, list[tuple[int, int]]] = {}
        unmatched: list[int] = []
        access = uapi.DMA_BUF_SYNC_RW
        for index, row in enumerate(self._unpacked()):
            if row[7]:
                continue
            buffer, flags = row[1], row[2]
            windows = open_.setdefault(buffer, [])
            if not flags & uapi.DMA_BUF_SYNC_END:
                windows.append((index, flags & access))
                continue
            for place in range(len(windows) - 1, -1, -1):
                if windows[place][1] == flags & access:
                    del windows[place]
                    break
            else:
                if windows:
                    windows.pop()
                else:
                    unmatched.append(index)
        attempts = self.attempts
        left = sorted(index for windows in open_.values() for index, _ in windows)
        return tuple(attempts[i] for i in left), tuple(attempts[i] for i in unmatched)

    def _unpacked(self) -> Iterator[tuple[int, ...]]:
        """The rows that are there now, from copies of a part at a time: others may append meanwhile."""
        rows = self.rows
        parts = range(0, len(rows), _ROWS_AT_ONCE * ROW.size)
        whole = len(rows)
        return chain.from_iterable(
            ROW.iter_unpack(rows[begin : min(begin + _ROWS_AT_ONCE * ROW.size, whole)]) for begin in parts
        )

    def assert_balanced(self) -> None:
        """AssertionError, with the timeline, unless every START was ended once and every END had its
        START.
        """
        opened, ended = self._pair()
        if opened or ended:
            problems = [f"{self._words(entry)} was never ended" for entry in opened]
            problems += [f"{self._words(entry)} had no open START" for entry in ended]
            listed = "\n  ".join(problems)
            raise AssertionError(f"windows do not balance:\n  {listed}\n{self.timeline(40)}")

    def _words(self, entry: Transition) -> str:
        return f"#{entry.sequence} {entry.step.name} {access_name(entry.access)} of buffer {entry.buffer}"

    def entries(self) -> Iterator[Entry]:
        """Attempts, calls and events, merged in order."""
        others: list[Call | Event] = sorted(
            [*self.calls, *self.events], key=lambda entry: (entry.position, entry.time_ns)
        )
        place = 0
        for attempt in self.attempts:
            while place < len(others) and others[place].position <= attempt.sequence:
                yield others[place]
                place += 1
            yield attempt
        yield from others[place:]

    def _identity(self, buffer: int | Any | None) -> int | None:
        if buffer is None or isinstance(buffer, int):
            return buffer
        fd = number_of(buffer, "buffer")
        for call in reversed(self.calls):
            if call.buffer is not None and call.arguments and call.arguments[0] == fd:
                return call.buffer
        for entry in reversed(self.attempts):
            if entry.fd == fd:
                return entry.buffer
        return NO_BUFFER  # no call has named it yet: nothing matches

    # -- stacks
    # ---------------------------------------------------------------------------------------------------

    def keep_stack(self, stack: Any) -> int:
        """The index of *stack*: a tuple of (code, instruction offset), or of frames (file, line,
        function).
        """
        known = self._stacks.index.get(stack)
        if known is None:
            self._stacks.taken.append(stack)
            known = self._stacks.index[stack] = len(self._stacks.taken) - 1
        return known

    def add_stack(self, frames: tuple[Frame, ...]) -> None:
        """Take *frames* as the next index, also when they are known."""
        self._stacks.taken.append(frames)

    def stack(self, index: int) -> tuple[Frame, ...]:
        """The call stack of that index, innermost frame first; empty for 0."""
        return tuple(
            frame if len(frame) == 3 else (frame[0].co_filename, _line(*frame), frame[0].co_name)
            for frame in self._stacks.taken[index]
        )

    @property
    def stacks(self) -> int:
        """How many there are; valid indices are below."""
        return len(self._stacks.taken)

    # -- people and files
    # -----------------------------------------------------------------------------------------

    def timeline(self, last: int | None = None) -> str:
        """Text that a person can read: the *last* entries, or all; runs of equal refusals are one line."""
        from dmasync.fakes.timeline import text

        return text(self, last)

    def to_trace(self) -> dict[str, Any]:
        """The journal as Chrome/Perfetto trace JSON: a lane a buffer, windows, attempts, errors, device
        DMA.
        """
        from dmasync.fakes.timeline import trace

        return trace(self)

    def to_svg(self) -> str:
        """A lane chart: buffers as lanes, windows as bars, attempts and errors as marks, device DMA
        underneath.
        """
        from dmasync.fakes.timeline import svg

        return svg(self)

    def dump(self, file: IO[str] | str | os.PathLike[str]) -> None:
        """Write it as JSON lines (format and version in dmasync.fakes.trace)."""
        from dmasync.fakes.trace import dump

        dump(self, file)

    @classmethod
    def load(cls, file: IO[str] | str | os.PathLike[str] | Iterable[str]) -> Journal:
        """Read what :meth:`dump` wrote, up to its last whole line. ValueError when it is no trace."""
        from dmasync.fakes.trace import load

        return load(file)


def access_name(access: SyncType) -> str:
    """``READ``, ``WRITE``, ``READ_WRITE`` or ``none``: a Flag's own name differs between Python versions."""
    return {1: "READ", 2: "WRITE", 3: "READ_WRITE"}.get(access.value, "none")


def _line(code: Any, offset: int) -> int:
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= offset < end and number is not None:
            return int(number)
    return int(line)
