"""Where buffers come from: the device nodes that are tried, in libcamera's order."""

from __future__ import annotations

import enum
import errno
import os
from typing import NamedTuple


class DmaBufAllocatorFlag(enum.Flag):
    """Kinds of providers, to be or-ed together; libcamera's ``DmaBufAllocatorFlag``."""

    CMA_HEAP = enum.auto()
    SYSTEM_HEAP = enum.auto()
    UDMABUF = enum.auto()


class Provider(NamedTuple):
    """One device node that gives dma-bufs.

    The flag says which user API it speaks (UDMABUF: ``linux/udmabuf.h``, the heaps: ``linux/dma-heap.h``), so that
    an out-of-tree driver's node can stand in the list as well.
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


def advice(provider: Provider, code: int) -> str:
    """What to do about a node that answered open(2) with errno *code*."""
    if code in (errno.EACCES, errno.EPERM):
        if os.geteuid() == 0:
            return (
                "refused although this is root: a device policy of the container, the cgroup or a security module; "
                "allow it there"
            )
        return "join the group that owns the node, or let a udev rule give it one: dmasync probe prints the command"
    if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return _MISSING[provider.flag]
    return "see what else the kernel log says"


_MISSING = {
    DmaBufAllocatorFlag.CMA_HEAP: (
        "needs a kernel with CONFIG_DMABUF_HEAPS_CMA and a CMA region: a device tree's, or the kernel argument cma=64M"
    ),
    DmaBufAllocatorFlag.SYSTEM_HEAP: "needs a kernel with CONFIG_DMABUF_HEAPS_SYSTEM",
    DmaBufAllocatorFlag.UDMABUF: "modprobe udmabuf, or a kernel with CONFIG_UDMABUF",
}
