"""Where buffers come from: the device nodes that are tried, in libcamera's order."""

from __future__ import annotations

import enum
from typing import NamedTuple


class DmaBufAllocatorFlag(enum.Flag):
    """Kinds of providers, to be or-ed together; libcamera's ``DmaBufAllocatorFlag``."""

    CMA_HEAP = enum.auto()
    SYSTEM_HEAP = enum.auto()
    UDMABUF = enum.auto()


class Provider(NamedTuple):
    """One device node that gives dma-bufs.

    The flag says which user API it speaks (UDMABUF: ``linux/udmabuf.h``, the heaps: ``linux/dma-heap.h``), so that
    an out-of-tree driver's node, or a heap under another name, can stand in the list as well::

        heap = Provider(DmaBufAllocatorFlag.CMA_HEAP, "/dev/dma_heap/vidbuf_cached")
        DmaBufAllocator(DmaBufAllocatorFlag.CMA_HEAP, providers=[heap])
    """

    flag: DmaBufAllocatorFlag
    path: str


DEFAULT_PROVIDERS = (
    # The default CMA region has had several names: "linux,cma" where the device tree's node has that name, "reserved"
    # where the kernel command line made it; 6.17 settled on "default_cma_region", device trees also say "default-pool".
    Provider(DmaBufAllocatorFlag.CMA_HEAP, "/dev/dma_heap/linux,cma"),
    Provider(DmaBufAllocatorFlag.CMA_HEAP, "/dev/dma_heap/reserved"),
    Provider(DmaBufAllocatorFlag.CMA_HEAP, "/dev/dma_heap/default_cma_region"),
    Provider(DmaBufAllocatorFlag.CMA_HEAP, "/dev/dma_heap/default-pool"),
    Provider(DmaBufAllocatorFlag.SYSTEM_HEAP, "/dev/dma_heap/system"),
    Provider(DmaBufAllocatorFlag.UDMABUF, "/dev/udmabuf"),
)
"""First come, first served, among those whose flag was asked for."""
