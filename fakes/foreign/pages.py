"""Which pages of a buffer the programs themselves have touched: seen from outside, in their page tables."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from dmasync.fakes.memory.lines import Span
from dmasync.fakes.memory.touched import Touched

if TYPE_CHECKING:
    from dmasync.fakes.memory.watched import WatchedMemory

_PAGE = mmap.PAGESIZE


class Pages(Protocol):
    """The page tables of the programs."""

    def mappings(self, fd: int) -> Iterable[tuple[int, int, int, int]]:
        """(process, address, length, offset in the file) of every shared mapping of our *fd*'s file."""

    def present(self, process: int, address: int, length: int) -> Iterable[tuple[int, int]]:
        """Runs of filled entries, as (begin, end) in bytes from *address* on."""

    def forget(self, process: int, address: int, length: int) -> None:
        """Empty those entries. Where that cannot be done they look touched from then on, so it is said."""


class ForeignTouched(Touched):
    """The touched pages of all mappings of a buffer in other processes."""

    address = 0

    def __init__(self, pages: Pages, memory: WatchedMemory) -> None:
        self._pages = pages
        self._memory = memory

    def pages(self) -> list[Span]:
        """Runs of touched pages, as (begin, end) in bytes of the buffer."""
        found = []
        for process, address, length, place in self._parts():
            for begin, end in self._pages.present(process, address, length):
                found.append((place + begin, place + end))
        return sorted(found)

    def forget(self) -> None:
        """Count from now on."""
        mine = self._memory._kernel_mapping
        if mine is not None:
            mine.madvise(mmap.MADV_DONTNEED)  # pages that this process has mapped, too, stay in the others' tables
        for process, address, length, _ in self._parts():
            self._pages.forget(process, address, length)

    def _parts(self) -> Iterator[tuple[int, int, int, int]]:
        """(process, address, length, place in the buffer) of what of each mapping is the buffer's."""
        base = 0
        for store, offset, length in self._memory.runs:
            for process, address, mapped, begin in self._pages.mappings(store.fd):
                low, high = max(begin, offset), min(begin + mapped, offset + length)
                if low < high:
                    yield process, address + low - begin, high - low, base + low - offset
            base += length
