"""A buffer on a machine whose devices do not look into the CPU's caches.

The CPU's side is its cache laid over memory, the device's side is memory. A line of the CPU's side is *dirty*
when the CPU wrote it and nothing has written it back, *stale* when a device has written memory since the line
was fetched. START for READ fetches every line anew; END for WRITE writes every dirty line back; a WRITE-only
START fetches nothing that it need not, a READ-only END writes nothing back. In between, lines move as an
:class:`Adversary` pleases.

Which lines are dirty is found by comparing, so a write of the very bytes that a clean line holds goes unseen.
It makes no difference where the line is not stale. Where it is, only a WRITE-only window may write without
having fetched, so its START leaves no two neighbouring bytes stale: of each pair one is fetched, as if the
line had been fetched while the device was writing it. Whoever writes two bytes or more is seen, and whoever
reads gets, as on hardware, some of each.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from dmasync import SyncType
from dmasync.fakes.memory.adversary import Adversary
from dmasync.fakes.memory.lines import (
    LINE,
    Bytes,
    Span,
    Spans,
    differing_blocks,
    differing_bytes,
    differing_lines,
    whole_lines,
)
from dmasync.fakes.memory.pages import Run
from dmasync.fakes.memory.touched import AROUND
from dmasync.fakes.memory.watched import Observer, WatchedMemory

_CHUNK: Final = 16
_CACHE: Final = 1 << 18
"""Bytes of stale lines that a cache is taken to hold where they hurt most."""
_PAGE: Final = mmap.PAGESIZE
_CLEARLY: Final = 4
_IS_SET: Final = bytes([0]) + bytes([1]) * 255
_ALL_ONES: Final = bytes([0]) + bytes([255]) * 255


class NoncoherentMemory(WatchedMemory):
    """Two views of one buffer, and the adversary between them."""

    def __init__(
        self, runs: Sequence[Run], observer: Observer | None = None, adversary: Adversary | None = None
    ) -> None:
        self._stale = Spans()
        """Whole lines whose content in memory may differ from the CPU's clean copy, which is in _cached."""
        self._torn = Spans()
        """Stale lines that a WRITE-only START has half fetched."""
        self._clobbered = Spans()
        """Bytes of a device that an END wrote over with stale ones, beside what the CPU wrote."""
        self._risky = Spans()
        """What was stale when the WRITE-only window that is open was started."""
        self._write_only = True
        """No window of those open now, or since none was, was for READ."""
        super().__init__(runs, observer)
        self._cached = Bytes.zeroed(self.size)
        self._adversary = Adversary(0) if adversary is None else adversary

    def device_view(self) -> memoryview[Any]:
        return self._ram.view

    # -- which lines are what
    # -------------------------------------------------------------------------------------

    def _changed(self) -> list[Span]:
        if not self._stale:
            return differing_lines(self._cpu, self._ram, 0, self.size)
        dirty = []
        for begin, end in self._stale.gaps(0, self.size):
            dirty += differing_lines(self._cpu, self._ram, begin, end)
        for begin, end in self._stale:
            dirty += differing_lines(self._cpu, self._cached, begin, end)
        return sorted(dirty)

    def _account(self, changed: list[Span]) -> None:
        # Dirty lines stay dirty; they are only not news any more.
        for begin, end in changed:
            self._reported.add(begin, end)

    def _write_back(self, lines: list[Span]) -> None:
        for begin, end in lines:
            self._cpu.copy_to(self._ram, begin, end)
            self._cleaned(begin, end)

    def _write_back_all(self) -> None:
        # Where nothing is stale, clean lines are what memory holds: copying them too changes nothing, and is faster
        # than to find out which they are.
        dirty = []
        for begin, end in self._stale:
            dirty += differing_lines(self._cpu, self._cached, begin, end)
        for begin, end in self._stale.gaps(0, self.size):
            dirty += differing_blocks(self._cpu, self._ram, begin, end)
        self._write_back(dirty)

    def _fetch(self, lines: list[Span]) -> None:
        for begin, end in lines:
            self._ram.copy_to(self._cpu, begin, end)
            self._cleaned(begin, end)

    def _cleaned(self, begin: int, end: int) -> None:
        self._stale.remove(begin, end)
        self._torn.remove(begin, end)
        self._reported.remove(begin, end)

    # -- windows
    # --------------------------------------------------------------------------------------------------

    def _starting(self, access: SyncType) -> None:
        reads = bool(access & SyncType.READ)
        self._write_only = not reads and (self._write_only or not self._windows)
        if reads:
            dirty = self._changed()
            if dirty and any(window.access & SyncType.WRITE for window in self._windows):
                self._tell("start-discarded", self._exactly(dirty))
            # Invalidated, unless the cache has written it back just before.
            self._write_back(self._adversary.some(dirty))
            self._fetch([*dirty, *self._stale])
            self._reported.clear()
        elif not self._windows:
            self._tear()

    def _ending(self, access: SyncType, window: SyncType | None, others: list[SyncType]) -> None:
        if access & SyncType.WRITE:
            if self._torn and self._write_only:
                self._judge_write_only()
            self._write_back_all()
        elif window == SyncType.READ and not any(other & SyncType.WRITE for other in others):
            news = self._news(self._changed())
            if news:
                self._tell("cpu-wrote-in-read", self._exactly(news))
                self._account(news)
        else:
            self._account(self._changed())

    def _exactly(self, lines: list[Span]) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        for begin, end in lines[:16]:
            for low, high in self._stale.within(begin, end):
                found += differing_bytes(self._cpu, self._cached, [(low, high)])
            for low, high in self._stale.gaps(begin, end):
                found += differing_bytes(self._cpu, self._ram, [(low, high)])
        return tuple(sorted(found))

    # -- WRITE-only windows
    # ---------------------------------------------------------------------------------------

    def _tear(self) -> None:
        """Fetch half of the stale lines that are clean, so that what the CPU writes to them will be seen.

        Caches are small: of a large buffer some pages, evenly spread, are in it, and the others are fetched whole.
        """
        self._risky = Spans()
        if not self._stale:
            return
        dirty = Spans()
        for begin, end in self._changed():
            dirty.add(begin, end)
        clean: list[Span] = []
        for begin, end in self._stale:
            self._risky.add(begin, end)
            clean += dirty.gaps(begin, end)
        every = -(-sum(end - begin for begin, end in clean) // _CACHE)
        fetched: list[Span] = []
        for begin, end in clean:
            kept = Spans()
            for low, high in _pages(begin, end, every):
                mixed = _half_fetched(bytes(self._cached.view[low:high]), bytes(self._ram.view[low:high]))
                self._cpu.view[low:high] = mixed
                self._cached.view[low:high] = mixed
                self._torn.add(low, high)
                kept.add(low, high)
            fetched += kept.gaps(begin, end)
        self._fetch(fetched)

    def _judge_write_only(self) -> None:
        """What a WRITE-only window did to lines that it did not fetch: did it read them, or write parts of
        them?
        """
        changed = Spans()
        for begin, end in self._torn:
            for low, high in differing_lines(self._cpu, self._cached, begin, end):
                changed.add(low, high)
        self._judge_reads(changed)
        partial: list[Span] = []
        for begin, end in changed:
            partial += self._unwritten_parts(begin, end)
        for begin, end in partial:
            self._clobbered.add(begin, end)

    def _judge_reads(self, changed: Spans) -> None:
        # A read fault fills the table around it, so what counts is the neighbourhood: it was read for certain
        # when no page of it that is filled could have been read harmlessly.
        around: dict[int, list[Span]] = {}
        for begin, end, address in self._touched():
            for page in range(begin, end, _PAGE):
                around.setdefault((address + page - begin) // AROUND, []).append((page, page + _PAGE))
        read: list[tuple[int, int]] = []
        for pages in around.values():
            if not all(self._risky.within(low, high) for low, high in pages):
                continue
            for low, high in pages:
                # Lines next to the page count as its own: a write may have ended in it by a byte that changed nothing.
                if self._torn_and_differing(low, high) and not changed.within(low - LINE, high + LINE):
                    read.append((low, high - low))
        if read:
            self._tell("cpu-read-stale", read)

    def _torn_and_differing(self, low: int, high: int) -> list[Span]:
        found = []
        for begin, end in self._torn.within(low, high):
            found += differing_lines(self._cached, self._ram, begin, end)
        return found

    def _unwritten_parts(self, begin: int, end: int) -> list[Span]:
        """Parts of changed lines that the CPU cannot have written, but the END writes back, over newer bytes.

        A part that was written would have to hold, byte by byte in turn, what the device wrote and what was
        there before it: that does not happen by chance over sixteen bytes.
        """
        found = []
        mine = bytes(self._cpu.view[begin:end])
        shown = bytes(self._cached.view[begin:end])
        memory = bytes(self._ram.view[begin:end])
        for low in range(0, end - begin, _CHUNK):
            part = slice(low, low + _CHUNK)
            if mine[part] != shown[part]:
                continue
            if sum(a != b for a, b in zip(shown[part], memory[part], strict=True)) >= _CLEARLY:
                found.append((begin + low, begin + low + _CHUNK))
        return found

    # -- devices
    # --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def dma(self, ranges: Sequence[tuple[int, int]], *, write: bool) -> Iterator[memoryview[Any]]:
        """Memory as a device sees it, for one access to *ranges*; lines may be written back before and
        after it.
        """
        with self._lock:
            self.settle()
            self._write_back(self._adversary.some(self._changed()))
            if not write:
                self._judge_device_read(ranges)
            self._tell("device-write" if write else "device-read", ranges)
            if write:
                for offset, length in ranges:
                    self._will_be_written(*whole_lines(offset, offset + length))
            yield self._ram.view
            if write:
                for offset, length in ranges:
                    self._clobbered.remove(offset, offset + length)
                self._refetch(ranges)

    def _will_be_written(self, begin: int, end: int) -> None:
        """Keep what clean lines hold: from now on it is not what memory holds. Dirty ones stay dirty
        against it.
        """
        for low, high in self._stale.gaps(begin, end):
            self._ram.copy_to(self._cached, low, high)
        self._stale.add(begin, end)

    def _refetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        dirty = Spans()
        for begin, end in self._changed():
            dirty.add(begin, end)
        clean: list[Span] = []
        for offset, length in ranges[:64]:
            clean += dirty.gaps(*whole_lines(offset, offset + length))
        self._fetch(self._adversary.some(clean))

    def _judge_device_read(self, ranges: Sequence[tuple[int, int]]) -> None:
        if not self._clobbered:
            return
        spoilt: list[Span] = []
        for offset, length in ranges:
            spoilt += self._clobbered.within(offset, offset + length)
        if spoilt:
            self._tell("device-read-clobbered", [(low, high - low) for low, high in spoilt])
            for low, high in spoilt:
                self._clobbered.remove(low, high)

    def _before(self) -> Bytes:
        return self._cached if self._stale else self._ram

    def _outside_note(self) -> str:
        return "stale" if self._stale else ""


def _pages(begin: int, end: int, every: int) -> Iterator[Span]:
    """The parts of [begin, end) in each page whose number is a multiple of *every*."""
    first = -(-(begin // _PAGE) // every) * every
    for page in range(first, (end - 1) // _PAGE + 1, every):
        yield max(begin, page * _PAGE), min(end, (page + 1) * _PAGE)


_INNER: Final = bytes([1]) * (LINE // 2 - 1) + bytes([0])
"""For the odd bytes of a line: whether the byte behind is in the same line."""


def _half_fetched(old: bytes, new: bytes) -> bytes:
    """Lines as *new* has them, but an odd byte as *old* where both neighbours, in its line, can be seen to be new.

    So every write of two bytes or more, even of what was there before, changes one of them.
    """
    length = len(old)
    half = length // 2
    marks = (_number(old) ^ _number(new)).to_bytes(length, "little").translate(_IS_SET)
    before, odd = marks[0::2], marks[1::2]
    behind = before[1:] + bytes(1)
    keep = _number(before) & _number(odd) & _number(behind) & _number(_INNER * (length // LINE))
    mask = _number(keep.to_bytes(half, "little").translate(_ALL_ONES))
    theirs = _number(new[1::2])
    mixed = bytearray(new)
    mixed[1::2] = (theirs ^ (theirs ^ _number(old[1::2])) & mask).to_bytes(half, "little")
    return bytes(mixed)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


__all__ = ["LINE", "NoncoherentMemory"]
