"""A buffer's bytes, behind one class with two sides: the CPU's and the device's.

This is the seam between the fake kernel and its idea of caches. Everything else in the fake calls four things
and knows nothing of what they do:

``map_cpu(...)``
    a program's mmap: the CPU's side
``device_view()``
    what a device with DMA access to the buffer sees and writes
``start(access)``
    an exporter's ``begin_cpu_access``: after it, the CPU's side shows what the device wrote
``end(access)``
    an exporter's ``end_cpu_access``: after it, the device's side shows what the CPU wrote

*access* is a ``dmasync.SyncType``. :class:`BufferMemory` is the coherent machine: both sides are the same
pages and nothing moves. A non-coherent one derives from it, overrides ``device_view``, ``start`` and ``end``,
and is given to the kernel as ``FakeKernel(memory=...)``; ``runs`` always are the CPU's pages, which a udmabuf
shares with its memfds.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

from dmasync.access import SyncType
from dmasync.fakes.memory.pages import FakeMapping, Replacement, Run, RunMapping, Store, joined, replaced


class BufferMemory:
    """A coherent buffer: the device sees the CPU's pages.

    ``runs`` are those pages, ``size`` is their length in bytes.
    """

    inode = 0
    """Of the dma-buf that it belongs to; the dma-buf sets it."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = joined(runs)
        self.size = sum(run.length for run in self.runs)
        self._kernel_mapping: RunMapping | None = None

    def start(self, access: SyncType) -> None:
        """Hand the buffer to the CPU for *access*; nothing to move here."""

    def end(self, access: SyncType) -> None:
        """Hand the buffer back to the device after *access*; nothing to move here."""

    def release(self) -> None:
        """The last reference to the dma-buf is gone; nobody maps it any more."""

    def map_cpu(self, length: int, prot: int, flags: int, offset: int) -> FakeMapping:
        """A program's mapping of *length* bytes at *offset*; *flags* say shared or private."""
        return FakeMapping.of(self.runs, length, prot, flags, offset)

    def holds(self, store: Store, begin: int, end: int) -> bool:
        """Whether pages of *store* from *begin* to *end* are among the CPU's."""
        return any(run.store is store and run.offset < end and begin < run.offset + run.length for run in self.runs)

    def replace(self, store: Store, begin: int, kept: Run) -> list[Replacement]:
        """Have *kept* for the pages of *store* from *begin* on; what stands where, for the programs' mappings."""
        self.runs, news = replaced(self.runs, store, begin, kept)
        if self._kernel_mapping is not None:
            self._kernel_mapping.show(news, 0, mmap.PROT_READ | mmap.PROT_WRITE)
        return news

    def cpu_view(self) -> memoryview[Any]:
        """All bytes of the CPU's side, writable: what every shared mapping of the buffer shows."""
        if self._kernel_mapping is None:
            self._kernel_mapping = RunMapping.of(
                self.runs, self.size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED
            )
        return memoryview(self._kernel_mapping)

    def device_view(self) -> memoryview[Any]:
        """All bytes of the device's side, writable."""
        return self.cpu_view()


def moves_bytes(memory: BufferMemory) -> bool:
    """Whether START or END do anything to *memory*: a kernel need not tell one that they are nothing to."""
    kind = type(memory)
    return kind.start is not BufferMemory.start or kind.end is not BufferMemory.end
