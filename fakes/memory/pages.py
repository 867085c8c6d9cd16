"""Pages of the host, of which all memory here is made: anonymous files, runs of their pages, mappings of runs.

They are real, so that memoryview, numpy and several mappings of one buffer behave as on the machine itself. A file
never grows a page that nobody touched.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from dmasync.fakes.memory import host

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


class FakeMapping(RunMapping):
    """What ``FakeKernel.mmap`` returns: a ``mmap.mmap`` that tells the kernel when it is unmapped."""

    on_unmap: Callable[[], None] | None = None

    def close(self) -> None:
        """Unmap; BufferError while a memoryview of it lives, and it stays mapped then."""
        super().close()
        self._tell()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._tell()

    def _tell(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        told, self.on_unmap = self.on_unmap, None
        if told is not None and not is_finalizing():
            told()


def zeroed(size: int) -> tuple[Run, ...]:
    """Fresh pages, all zero: what a heap gives."""
    return (Run(Store("dma-heap", size), 0, size),)
