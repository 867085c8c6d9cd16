"""A buffer's bytes under observation: what the CPU touches and changes, and when no window allows it.

:class:`WatchedMemory` is the coherent machine with an observer; dmasync.fakes.memory.noncoherent derives the other
machine from it.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from dmasync import SyncType
from dmasync.fakes.journal.windows import ended_by
from dmasync.fakes.memory import host
from dmasync.fakes.memory.coherent import BufferMemory
from dmasync.fakes.memory.lines import Bytes, Span, Spans, differing_bytes, differing_lines
from dmasync.fakes.memory.pages import FakeMapping, Run
from dmasync.fakes.memory.touched import Touched

Observer = Callable[[str, int, tuple[tuple[int, int], ...], str], None]
"""Called with (kind, inode, ranges, note); ranges are (offset, length) in bytes."""

_SEEK_DATA: Final = 3
_SEEK_HOLE: Final = 4


class OpenWindow(NamedTuple):
    """From a START on: what for, and by which thread."""

    access: SyncType
    thread: int


class WatchedMapping(FakeMapping):
    """A program's mapping that is looked at a last time before it goes."""

    before_unmap: Callable[[], None] | None = None

    def close(self) -> None:
        """Unmap; BufferError while a memoryview of it lives, and it stays mapped then."""
        self._look()
        super().close()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            with contextlib.suppress(ValueError):  # closed by its base class
                self._look()
        super().__del__()

    def _look(self) -> None:
        if self.before_unmap is not None and not self.closed:
            self.before_unmap()


class WatchedMemory(BufferMemory):
    """Coherent pages, and an observer who is told of every access that another machine would not forgive."""

    def __init__(self, runs: Sequence[Run], observer: Observer | None = None) -> None:
        super().__init__(runs)
        self._observer = observer
        self._lock = threading.RLock()
        self._cpu = self._cpu_bytes()
        self._ram = Bytes.zeroed(self.size)
        """The bytes as last accounted for. Here a copy; on a non-coherent machine what devices see."""
        self._windows: list[OpenWindow] = []
        self._reported = Spans()
        """Changes that the observer knows of already."""
        self._watched: dict[int, tuple[Touched, int]] = {}
        """Mappings by address, with their offset in the buffer."""
        self._load()

    def _cpu_bytes(self) -> Bytes:
        self.cpu_view()
        assert self._kernel_mapping is not None  # noqa: S101 - cpu_view made it
        return Bytes(self._kernel_mapping)

    def _load(self) -> None:
        # What a memfd held before a udmabuf was made of it: devices see that too. Holes stay holes.
        base = 0
        for run in self.runs:
            position = run.offset
            while position < run.offset + run.length:
                try:
                    begin = host.lseek(run.store.fd, position, _SEEK_DATA)
                    end = host.lseek(run.store.fd, begin, _SEEK_HOLE)
                except OSError:
                    break  # ENXIO: a hole up to the end
                begin, end = begin - run.offset, min(end - run.offset, run.length)
                if begin < run.length:
                    self._cpu.copy_to(self._ram, base + begin, base + end)
                position = run.offset + end
            base += run.length

    # -- the kernel's side
    # ----------------------------------------------------------------------------------------

    def start(self, access: SyncType) -> None:
        opened = (OpenWindow(access, threading.get_ident()),)
        with self._lock:
            if not self._windows:
                self._look_outside()
            self._starting(access)
        self._windows += opened  # last, and not to be interrupted: from here on a window is open

    def end(self, access: SyncType) -> None:
        with self._lock:
            left = list(self._windows)
            place = ended_by(access, threading.get_ident(), left)
            window = None if place is None else left.pop(place).access
            self._ending(access, window, [other.access for other in left])
            if not left:
                self._forget_touched()
        self._windows = left

    def map_cpu(self, length: int, prot: int, flags: int, offset: int) -> FakeMapping:
        if flags & mmap.MAP_PRIVATE:
            return super().map_cpu(length, prot, flags, offset)  # copied on write: never the buffer's own bytes
        mapping = WatchedMapping.of(self.runs, length, prot, flags, offset)
        touched = Touched(mapping)
        with self._lock:
            self._watched[touched.address] = (touched, offset)
        mapping.before_unmap = functools.partial(self._unmapping, touched.address)
        return mapping

    def release(self) -> None:
        self.settle()

    # -- the device's side
    # ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def dma(self, ranges: Sequence[tuple[int, int]], *, write: bool) -> Iterator[memoryview[Any]]:
        """The bytes as a device sees them, for one access to *ranges*, (offset, length) pairs; *write*
        says which.
        """
        with self._lock:
            self.settle()
            self._tell("device-write" if write else "device-read", ranges)
            yield self._cpu.view
            if write:
                for offset, length in ranges:
                    self._cpu.copy_to(self._ram, offset, offset + length)

    # -- watching
    # -------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Tell the observer what has been seen so far and not told."""
        with self._lock:
            if not self._windows:
                self._look_outside()

    def _tell(self, kind: str, ranges: Sequence[tuple[int, int]], note: str = "") -> None:
        if self._observer is not None:
            self._observer(kind, self.inode, tuple(ranges), note)

    def _changed(self) -> list[Span]:
        """Lines that the CPU has written since they were last accounted for."""
        return differing_lines(self._cpu, self._ram, 0, self.size)

    def _account(self, changed: list[Span]) -> None:
        """The observer has been told of *changed*."""
        for begin, end in changed:
            self._cpu.copy_to(self._ram, begin, end)

    def _news(self, changed: list[Span]) -> list[Span]:
        news = []
        for begin, end in changed:
            news += self._reported.gaps(begin, end)
        return news

    def _starting(self, access: SyncType) -> None:
        """START for *access*, before its window is open."""

    def _ending(self, access: SyncType, window: SyncType | None, others: list[SyncType]) -> None:
        """END for *access* of *window* (None: none was open); *others* stay open."""
        changed = self._changed()
        if changed and window == SyncType.READ and not any(other & SyncType.WRITE for other in others):
            self._tell("cpu-wrote-in-read", differing_bytes(self._cpu, self._ram, changed))
        self._account(changed)

    def _look_outside(self) -> None:
        """No window is open: whatever the CPU has done since the last one was closed was done without."""
        changed = self._changed()
        news = self._news(changed)
        if news:
            self._tell("cpu-wrote-outside", differing_bytes(self._cpu, self._before(), news))
        self._account(changed)
        touched = self._touched()
        if touched:
            pages = Spans()
            for begin, end, _ in touched:
                pages.add(begin, end)
            self._forget_touched()
            for begin, end in changed:
                pages.remove(begin // mmap.PAGESIZE * mmap.PAGESIZE, -(-end // mmap.PAGESIZE) * mmap.PAGESIZE)
            ranges = tuple((begin, end - begin) for begin, end in pages)
            if ranges and not news:
                self._tell("cpu-touched-outside", ranges, self._outside_note())

    def _before(self) -> Bytes:
        return self._ram

    def _outside_note(self) -> str:
        return ""

    def _touched(self) -> list[tuple[int, int, int]]:
        """(begin, end, address) of touched pages: bytes of the buffer, and where the page is mapped."""
        found = []
        for touched, offset in self._watched.values():
            for begin, end in touched.pages():
                found.append((offset + begin, min(offset + end, self.size), touched.address + begin))
        return found

    def _forget_touched(self) -> None:
        for touched, _ in self._watched.values():
            touched.forget()

    def _unmapping(self, address: int) -> None:
        self.settle()
        with self._lock:
            self._watched.pop(address, None)


__all__ = ["Observer", "WatchedMapping", "WatchedMemory"]
