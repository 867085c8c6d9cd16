"""What was recorded, and the questions that need no format: who wants text or a picture asks a Journal."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from dmasync import Step, uapi
from dmasync.fakes.arguments import number_of
from dmasync.fakes.journal.entries import NO_BUFFER, NO_FLAGS, ROW, Attempts, Call, Entry, Event, Transition
from dmasync.fakes.journal.stacks import Frame, Stacks
from dmasync.fakes.journal.windows import Pairs, paired

_ROWS_AT_ONCE: Final = 1 << 14


class Numbers:
    """What programs call the backend's descriptors, where those are not their own; for what people read alone.

    Nothing is noted where the program calls the backend itself: its numbers are the backend's.
    """

    def __init__(self) -> None:
        self.notes: list[tuple[int, int, int]] = []
        """(time_ns, the backend's descriptor, the program's number), in order."""
        self._of: dict[int, list[tuple[int, int]]] = {}

    def note(self, fd: int, number: int, time_ns: int | None = None) -> None:
        """From *time_ns* on, or from now, *fd* is what a program calls *number*."""
        moment = time.monotonic_ns() if time_ns is None else time_ns
        self.notes.append((moment, fd, number))
        self._of.setdefault(fd, []).append((moment, number))

    def of(self, fd: int, time_ns: int) -> int:
        """What a program that used *fd* at *time_ns* calls it."""
        notes = self._of.get(fd)
        if notes is None:
            return fd
        return notes[max(0, bisect_right(notes, time_ns, key=_moment) - 1)][1]

    def of_new(self, fd: int, end_ns: int) -> int:
        """What a program calls *fd*, which a call that ended at *end_ns* made: it is handed on only then."""
        notes = self._of.get(fd)
        if notes is None:
            return fd
        return notes[min(len(notes) - 1, bisect_left(notes, end_ns, key=_moment))][1]


def _moment(note: tuple[int, int]) -> int:
    return note[0]


class Log:
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
        self.numbers = Numbers()
        self._stacks = Stacks()

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

        Which START an END ends is said in dmasync.fakes.journal.windows.
        """
        return self.pairs.never_ended

    @property
    def unmatched_ends(self) -> tuple[Transition, ...]:
        """The ENDs that succeeded without an open START of their buffer."""
        return self.pairs.unmatched_ends

    @property
    def pairs(self) -> Pairs:
        """The windows, and the ENDs that had none."""
        # Not through attempts: a journal may hold a million of them, nearly all refusals.
        attempts = self.attempts
        return paired(attempts[index] for index, row in enumerate(self._unpacked()) if not row[7])

    def _unpacked(self) -> Iterator[tuple[int, ...]]:
        """The rows that are there now, from copies of a part at a time: others may append meanwhile."""
        rows = self.rows
        parts = range(0, len(rows), _ROWS_AT_ONCE * ROW.size)
        whole = len(rows)
        return chain.from_iterable(
            ROW.iter_unpack(rows[begin : min(begin + _ROWS_AT_ONCE * ROW.size, whole)]) for begin in parts
        )

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

    def keep_stack(self, stack: Any) -> int:
        """The index of *stack*: a tuple of (code, instruction offset), or of frames (file, line, function)."""
        return self._stacks.keep(stack)

    def add_stack(self, frames: tuple[Frame, ...]) -> None:
        """Take *frames* as the next index, also when they are known."""
        self._stacks.add(frames)

    def stack(self, index: int) -> tuple[Frame, ...]:
        """The call stack of that index, innermost frame first; empty for 0."""
        return self._stacks.frames(index)

    @property
    def stacks(self) -> int:
        """How many there are; valid indices are below."""
        return len(self._stacks)
