"""Kernel numbers and layouts: linux/dma-buf.h, linux/dma-heap.h, linux/udmabuf.h, linux/sync_file.h, linux/memfd.h.

Every ioctl number is built from its ``_IOC`` parts, as ``asm/ioctl.h`` builds it, so that it is right wherever
that header is asm-generic's (x86, arm, arm64, riscv, s390, loongarch, m68k, …) and on the families that keep an
encoding of their own (alpha, mips, powerpc, sparc; parisc). All layouts are naturally aligned and therefore the
same in a 32-bit and in a 64-bit process.
"""

from __future__ import annotations

import platform
import struct
from typing import Final, NamedTuple


class IoctlEncoding(NamedTuple):
    """How one architecture packs direction, size, type and number into a request: ``asm/ioctl.h``."""

    size_bits: int
    none: int
    write: int
    read: int

    def request(self, direction: int, type_: str, number: int, size: int) -> int:
        """``_IOC(direction, type, number, size)``."""
        return direction << (16 + self.size_bits) | size << 16 | ord(type_) << 8 | number


GENERIC_ENCODING: Final = IoctlEncoding(size_bits=14, none=0, write=1, read=2)
_OLD_ENCODING: Final = IoctlEncoding(size_bits=13, none=1, write=4, read=2)
_PARISC_ENCODING: Final = IoctlEncoding(size_bits=14, none=0, write=2, read=1)


def ioctl_encoding(machine: str) -> IoctlEncoding:
    """The encoding of *machine*, a name as ``uname -m`` prints it."""
    if machine.startswith(("alpha", "mips", "ppc", "sparc")):
        return _OLD_ENCODING
    if machine.startswith("parisc"):
        return _PARISC_ENCODING
    return GENERIC_ENCODING


class Layout:
    """One C structure of the user API: field names, sizes and offsets in bytes, in declaration order."""

    def __init__(self, name: str, /, **fields: str) -> None:
        self.name = name
        self.fields = tuple(fields)
        self._struct = struct.Struct("=" + "".join(fields.values()))
        self.size = self._struct.size
        self.offsets: dict[str, int] = {}
        offset = 0
        for field, code in fields.items():
            self.offsets[field] = offset
            offset += struct.calcsize("=" + code)

    def pack(self, *values: int | bytes) -> bytearray:
        """The structure with *values* in field order: a writable argument for ``Backend.ioctl``."""
        return bytearray(self._struct.pack(*values))

    def unpack(self, data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int | bytes, ...]:
        """The field values in order; trailing bytes of *data* are ignored."""
        return self._struct.unpack_from(data, offset)

    def get(self, data: bytes | bytearray | memoryview, field: str) -> int:
        """One integer field of a packed structure."""
        value = self._struct.unpack_from(data)[self.fields.index(field)]
        assert isinstance(value, int)  # noqa: S101 - only char arrays are not, and nobody asks for those here
        return value


_ENCODING: Final = ioctl_encoding(platform.machine())


def _iow(type_: str, number: int, size: int) -> int:
    return _ENCODING.request(_ENCODING.write, type_, number, size)


def _iowr(type_: str, number: int, size: int) -> int:
    return _ENCODING.request(_ENCODING.read | _ENCODING.write, type_, number, size)


# linux/dma-buf.h
DMA_BUF_BASE: Final = "b"
DMA_BUF_NAME_LEN: Final = 32
"""Room for a buffer's name in bytes, its closing NUL included."""
DMA_BUF_SYNC_READ: Final = 1 << 0
DMA_BUF_SYNC_WRITE: Final = 2 << 0
DMA_BUF_SYNC_RW: Final = DMA_BUF_SYNC_READ | DMA_BUF_SYNC_WRITE
DMA_BUF_SYNC_START: Final = 0 << 2
DMA_BUF_SYNC_END: Final = 1 << 2
DMA_BUF_SYNC_VALID_FLAGS_MASK: Final = DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END

dma_buf_sync: Final = Layout("dma_buf_sync", flags="Q")
dma_buf_export_sync_file: Final = Layout("dma_buf_export_sync_file", flags="I", fd="i")
dma_buf_import_sync_file: Final = Layout("dma_buf_import_sync_file", flags="I", fd="i")

DMA_BUF_IOCTL_SYNC: Final = _iow(DMA_BUF_BASE, 0, dma_buf_sync.size)
DMA_BUF_SET_NAME_A: Final = _iow(DMA_BUF_BASE, 1, 4)
DMA_BUF_SET_NAME_B: Final = _iow(DMA_BUF_BASE, 1, 8)
DMA_BUF_SET_NAME: Final = _iow(DMA_BUF_BASE, 1, struct.calcsize("P"))
"""A or B, whichever a process of this word size calls it; the argument is the address of a C string."""
DMA_BUF_IOCTL_EXPORT_SYNC_FILE: Final = _iowr(DMA_BUF_BASE, 2, dma_buf_export_sync_file.size)
DMA_BUF_IOCTL_IMPORT_SYNC_FILE: Final = _iow(DMA_BUF_BASE, 3, dma_buf_import_sync_file.size)

# linux/dma-heap.h
DMA_HEAP_IOC_MAGIC: Final = "H"
DMA_HEAP_VALID_HEAP_FLAGS: Final = 0

dma_heap_allocation_data: Final = Layout("dma_heap_allocation_data", len="Q", fd="I", fd_flags="I", heap_flags="Q")

DMA_HEAP_IOCTL_ALLOC: Final = _iowr(DMA_HEAP_IOC_MAGIC, 0, dma_heap_allocation_data.size)

# linux/udmabuf.h
UDMABUF_FLAGS_CLOEXEC: Final = 0x01

udmabuf_create: Final = Layout("udmabuf_create", memfd="I", flags="I", offset="Q", size="Q")
udmabuf_create_item: Final = Layout("udmabuf_create_item", memfd="I", __pad="I", offset="Q", size="Q")
udmabuf_create_list: Final = Layout("udmabuf_create_list", flags="I", count="I")
"""The head only; ``count`` items follow it."""

UDMABUF_CREATE: Final = _iow("u", 0x42, udmabuf_create.size)
UDMABUF_CREATE_LIST: Final = _iow("u", 0x43, udmabuf_create_list.size)

# linux/sync_file.h
SYNC_IOC_MAGIC: Final = ">"

sync_merge_data: Final = Layout("sync_merge_data", name="32s", fd2="i", fence="i", flags="I", pad="I")
sync_fence_info: Final = Layout(
    "sync_fence_info", obj_name="32s", driver_name="32s", status="i", flags="I", timestamp_ns="Q"
)
sync_file_info: Final = Layout(
    "sync_file_info", name="32s", status="i", flags="I", num_fences="I", pad="I", sync_fence_info="Q"
)
sync_set_deadline: Final = Layout("sync_set_deadline", deadline_ns="Q", pad="Q")

SYNC_IOC_MERGE: Final = _iowr(SYNC_IOC_MAGIC, 3, sync_merge_data.size)
SYNC_IOC_FILE_INFO: Final = _iowr(SYNC_IOC_MAGIC, 4, sync_file_info.size)
SYNC_IOC_SET_DEADLINE: Final = _iow(SYNC_IOC_MAGIC, 5, sync_set_deadline.size)

# linux/memfd.h, linux/fcntl.h (the standard library has the MFD_ flags it knows; the seals are complete here)
MFD_CLOEXEC: Final = 0x0001
MFD_ALLOW_SEALING: Final = 0x0002
MFD_HUGETLB: Final = 0x0004
MFD_NOEXEC_SEAL: Final = 0x0008
MFD_EXEC: Final = 0x0010
MFD_NAME_MAX_LEN: Final = 249
"""Longest memfd name in bytes without its NUL: NAME_MAX less the prefix "memfd:" (mm/memfd.c)."""
F_SEAL_SEAL: Final = 0x0001
F_SEAL_SHRINK: Final = 0x0002
F_SEAL_GROW: Final = 0x0004
F_SEAL_WRITE: Final = 0x0008
F_SEAL_FUTURE_WRITE: Final = 0x0010
F_SEAL_EXEC: Final = 0x0020

LAYOUTS: Final = (
    dma_buf_sync,
    dma_buf_export_sync_file,
    dma_buf_import_sync_file,
    dma_heap_allocation_data,
    udmabuf_create,
    udmabuf_create_item,
    udmabuf_create_list,
    sync_merge_data,
    sync_fence_info,
    sync_file_info,
    sync_set_deadline,
)
