"""Pages of the host, of which all memory here is made: anonymous files, runs of their pages, mappings of runs.

They are real, so that memoryview, numpy and several mappings of one buffer behave as on the machine itself. A file
never grows a page that nobody touched.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from dmasync.fakes.memory import host

_TO_BE_DONE = frozenset({4, 22, 23})  # MADV_DONTNEED, MADV_POPULATE_READ, MADV_POPULATE_WRITE
_FOR_THE_HOST = mmap.MAP_SHARED | mmap.MAP_PRIVATE | 0x8000 | 0x10000  # MAP_POPULATE, MAP_NONBLOCK


class Store:
    """An anonymous file of the host; its descriptor goes back with the last buffer that uses it."""

    def __init__(self, name: str, size: int = 0) -> None:
        self.fd = -1
        self.fd = host.memfd_create(name)
        if size:
            self.resize(size)

    def resize(self, size: int) -> None:
        """Grow or shrink to *size* bytes; what is cut off is gone, what is added is zero."""
        host.ftruncate(self.fd, size)

    def __del__(self, close: Callable[[int], object] = host.CLOSE) -> None:
        if self.fd >= 0:
            close(self.fd)


class Run(NamedTuple):
    """*length* bytes of *store* that begin at *offset*; whole pages."""

    store: Store
    offset: int
    length: int


def joined(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The same bytes in as few runs as possible."""
    result: list[Run] = []
    for run in runs:
        last = result[-1] if result else None
        if last is not None and last.store is run.store and last.offset + last.length == run.offset:
            result[-1] = last._replace(length=last.length + run.length)
        else:
            result.append(run)
    return tuple(result)


_M = TypeVar("_M", bound="RunMapping")


def copied(store: Store, offset: int, length: int) -> Run:
    """Other pages with the same bytes; whole pages. Where the file ends before its last page does, zeros follow."""
    run = Run(Store("kept"), 0, length)
    run.store.resize(length)
    # Of the kernel's page in which the file ends the host, whose pages may be smaller, has only the first ones.
    page = mmap.PAGESIZE
    length = min(length, -(-host.lseek(store.fd, 0, os.SEEK_END) // page) * page - offset)
    if length <= 0:
        return run
    old, new = (
        RunMapping.of((part,), length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
        for part in (Run(store, offset, length), run)
    )
    with old, new:
        new[:] = old
    return run


def replaced(runs: Sequence[Run], store: Store, offset: int, kept: Run) -> tuple[tuple[Run, ...], list[Replacement]]:
    """*runs* with *kept* in the place of as many bytes of *store* from *offset* on; and what of it stands where."""
    result: list[Run] = []
    news: list[Replacement] = []
    place = 0
    for run in runs:
        low, high = max(run.offset, offset), min(run.offset + run.length, offset + kept.length)
        if run.store is not store or low >= high:
            result.append(run)
        else:
            new = Run(kept.store, kept.offset + low - offset, high - low)
            parts = (Run(store, run.offset, low - run.offset), new, Run(store, high, run.offset + run.length - high))
            result += [part for part in parts if part.length]
            news.append(Replacement(place + low - run.offset, new))
        place += run.length
    return joined(result), news


class Replacement(NamedTuple):
    """*run* is what a buffer has from *place* on, in bytes."""

    place: int
    run: Run


class RunMapping(mmap.mmap):
    """A real mapping of runs laid end to end; it needs nothing of them once it is made."""

    @classmethod
    def of(cls: type[_M], runs: Sequence[Run], length: int, prot: int, flags: int, offset: int = 0) -> _M:
        """Map *length* bytes that begin *offset* bytes into *runs*; *flags* say shared or private, and whether
        all pages are wanted at once.
        """
        self = cls(-1, length, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, prot=prot)
        address = host.address_of(self)
        done, begin = 0, 0
        for store, run_offset, run_length in runs:
            skip = max(0, offset - begin)
            part = min(run_length - skip, length - done)
            if part > 0:
                host.map_over(address + done, part, prot, flags & _FOR_THE_HOST, store.fd, run_offset + skip)
                done += part
            begin += run_length
        return self

    def show(self, news: Sequence[Replacement], offset: int, prot: int) -> None:
        """Map these runs in place; the mapping begins *offset* bytes into the buffer, and is shared."""
        address, page = host.address_of(self), mmap.PAGESIZE
        length = -(-len(self) // page) * page
        for place, run in news:
            low, high = max(place, offset), min(place + run.length, offset + length)
            if low < high:
                begin = run.offset + low - place
                host.map_over(address + low - offset, high - low, prot, mmap.MAP_SHARED, run.store.fd, begin)


class Area(Protocol):
    """The kernel's idea of a mapping: see :class:`dmasync.fakes.kernel.files.mapped.Area`."""

    @property
    def offset(self) -> int: ...
    @property
    def prot(self) -> int: ...
    @property
    def page_size(self) -> int: ...
    def is_of(self, file: object) -> bool: ...
    @property
    def can_resize(self) -> bool: ...
    def advise(self, advice: int, begin: int, length: int) -> int | None: ...
    def check_flush(self, begin: int, length: int) -> None: ...
    def file_size(self) -> int: ...
    def resize(self, length: int) -> None: ...
    def resized(self, length: int) -> None: ...


class FakeMapping(RunMapping):
    """What ``FakeKernel.mmap`` returns: a ``mmap.mmap`` that asks its kernel, and tells it when it is unmapped."""

    on_unmap: Callable[[], None] | None = None
    area: Area | None = None

    def madvise(self, option: int, start: int = 0, length: int = sys.maxsize, /) -> None:
        """``madvise(2)`` on *length* bytes from *start* on, by default all; OSError, or ValueError as ``mmap``'s."""
        size = len(self)
        if not 0 <= start < size:
            raise ValueError("madvise start out of bounds")
        if length < 0:
            raise ValueError("madvise length invalid")
        length = min(length, size - start)
        if self.area is None:
            super().madvise(option, start, length)
            return
        for_the_host = self.area.advise(option, start, length)
        if for_the_host is None:
            return
        page = self.area.page_size
        whole = min(-(-length // page) * page, size - start)  # the host's pages may be smaller
        # What is only a hint may fail: the host need not know it. What brings pages, or lets copies go, may not.
        with contextlib.suppress(OSError) if for_the_host not in _TO_BE_DONE else contextlib.nullcontext():
            super().madvise(for_the_host, start, whole)

    def flush(self, *span: int) -> None:
        """``msync(2)`` on (offset, size), by default all; OSError, or ValueError as ``mmap``'s."""
        super().flush(*span)
        begin = span[0] if span else 0
        length = span[1] if len(span) > 1 else len(self) - begin
        if self.area is not None and self._can_write():
            self.area.check_flush(begin, length)

    def size(self) -> int:
        """The file's size in bytes, as ``mmap.size()`` tells it; OSError where the mapping holds no descriptor."""
        len(self)  # ValueError once it is closed
        return super().size() if self.area is None else self.area.file_size()

    def resize(self, newsize: int, /) -> None:
        """``ftruncate(2)`` and ``mremap(2)``; OSError, or what ``mmap.resize()`` raises before it asks."""
        if self.area is not None:
            if not self.area.can_resize:
                raise ValueError("mmap can't resize with trackfd=False.")
            super().resize(newsize if newsize < 0 else len(self))  # raises where there is anything against it
            self.area.resize(newsize)
        super().resize(newsize)
        if self.area is not None:
            self.area.resized(newsize)

    def _can_write(self) -> bool:
        view = memoryview(self)
        with view:
            return not view.readonly

    def close(self) -> None:
        """Unmap; BufferError while a memoryview of it lives, and it stays mapped then."""
        super().close()
        self._tell()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._tell()

    def _tell(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        told, self.on_unmap, self.area = self.on_unmap, None, None
        if told is not None and not is_finalizing():
            told()


def zeroed(size: int) -> tuple[Run, ...]:
    """Fresh pages, all zero: what a heap gives."""
    return (Run(Store("dma-heap", size), 0, size),)
