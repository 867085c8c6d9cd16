"""The request numbers of dmasync.uapi are the kernel's own, whatever the architecture.

A number holds the size of its structure, so a layout of another size makes a number that no driver knows: ENOTTY. What
a driver knows it goes on with, and then finds that there is no memory at address 0: EFAULT.
"""

from __future__ import annotations

import errno

import pytest

from dmasync import uapi
from tests.conformance.kernels import SYSTEM_HEAP, UDMABUF, System, refused

REQUESTS = {
    "dma-buf": (
        "DMA_BUF_IOCTL_SYNC",
        "DMA_BUF_SET_NAME_A",
        "DMA_BUF_SET_NAME_B",
        "DMA_BUF_SET_NAME",
        "DMA_BUF_IOCTL_EXPORT_SYNC_FILE",
        "DMA_BUF_IOCTL_IMPORT_SYNC_FILE",
    ),
    "sync file": ("SYNC_IOC_MERGE", "SYNC_IOC_FILE_INFO", "SYNC_IOC_SET_DEADLINE"),
    UDMABUF: ("UDMABUF_CREATE", "UDMABUF_CREATE_LIST"),
    SYSTEM_HEAP: ("DMA_HEAP_IOCTL_ALLOC",),
}
NO_MEMORY = 0
SIZE_OF = 16
"""Where the structure's size begins in a number of asm-generic/ioctl.h."""


def opened(system: System, kind: str) -> int:
    if kind == "dma-buf":
        return system.buffer("udmabuf")
    return system.export(system.buffer("udmabuf")) if kind == "sync file" else system.open(kind)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in REQUESTS.items() for name in names])
def test_the_kernel_knows_every_number(system: System, kind: str, name: str) -> None:
    fd = opened(system, kind)
    known = name != "SYNC_IOC_SET_DEADLINE" or system.since("6.7")
    with refused(errno.EFAULT if known else errno.ENOTTY):
        system.backend.ioctl(fd, getattr(uapi, name), NO_MEMORY)


@pytest.mark.parametrize(
    ("kind", "name"),
    # A heap takes structures of any size (drivers/dma-buf/dma-heap.c), as of any age.
    [(kind, name) for kind, names in REQUESTS.items() for name in names if kind != SYSTEM_HEAP],
)
def test_a_structure_that_is_longer_makes_a_number_that_the_kernel_does_not_know(
    system: System, kind: str, name: str
) -> None:
    fd = opened(system, kind)
    with refused(errno.ENOTTY):
        system.backend.ioctl(fd, getattr(uapi, name) + (16 << SIZE_OF), NO_MEMORY)


def test_no_number_is_left_out() -> None:
    listed = {name for names in REQUESTS.values() for name in names}
    requests = {name for name in vars(uapi) if name.startswith(("DMA_BUF_IOCTL", "DMA_BUF_SET", "UDMABUF_CREATE"))}
    requests |= {name for name in vars(uapi) if name.startswith(("SYNC_IOC_", "DMA_HEAP_IOCTL"))} - {"SYNC_IOC_MAGIC"}
    assert requests == listed
