"""``/dev/dma_heap/*`` (``drivers/dma-buf/dma-heap.c``, ``heaps/system_heap.c``, ``heaps/cma_heap.c``)."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from dmasync import uapi
from dmasync.fakes.kernel.dmabuf import CmaHeapBuffer, DmaBuf, SystemHeapBuffer
from dmasync.fakes.kernel.errors import os_error
from dmasync.fakes.kernel.file import File
from dmasync.fakes.kernel.usermem import Argument, copy_from, copy_to

if TYPE_CHECKING:
    from dmasync.fakes.kernel.kernel import FakeKernel

_VALID_FD_FLAGS = os.O_CLOEXEC | os.O_ACCMODE
_ULONG = (1 << 64) - 1
_DIRECTIONS = uapi.DMA_HEAP_IOCTL_ALLOC >> 30


class HeapDevice(File):
    """An open heap node; *name* is the heap's."""

    kind = "heap device"

    def __init__(self, kernel: FakeKernel, flags: int, name: str) -> None:
        super().__init__(kernel, flags)
        self.name = name

    def driver_ioctl(self, request: int, arg: Argument) -> int:
        # Only the request's number is looked at. Its size and directions say how much of the structure the
        # caller has: less than the kernel's is filled up with zeros, more is carried along.
        if request & 0xFF:
            raise os_error(errno.EINVAL)
        size = request >> 16 & 0x3FFF
        directions = request >> 30 & _DIRECTIONS
        in_size = size if directions & 1 else 0
        out_size = size if directions & 2 else 0
        data = bytearray(copy_from(arg, in_size).ljust(uapi.dma_heap_allocation_data.size, b"\0"))
        buffer, fd_flags = self._allocate(data)
        try:
            fd = self.kernel.descriptors.reserve()
            offset = uapi.dma_heap_allocation_data.offsets["fd"]
            data[offset : offset + 4] = fd.to_bytes(4, sys.byteorder)
            if out_size:
                copy_to(arg, bytes(data[:out_size]))
        except BaseException:
            buffer.release()
            raise
        self.kernel.descriptors.install(fd, buffer, close_on_exec=bool(fd_flags & os.O_CLOEXEC))
        return 0

    def _allocate(self, data: bytearray) -> tuple[DmaBuf, int]:
        length, fd, fd_flags, heap_flags = uapi.dma_heap_allocation_data.unpack(data)
        assert isinstance(length, int)  # noqa: S101 - the layout says so
        assert isinstance(fd_flags, int)  # noqa: S101 - the layout says so
        assert isinstance(heap_flags, int)  # noqa: S101 - the layout says so
        if fd:
            raise os_error(errno.EINVAL)
        if fd_flags & ~_VALID_FD_FLAGS:
            raise os_error(errno.EINVAL)
        if heap_flags & ~uapi.DMA_HEAP_VALID_HEAP_FLAGS:
            raise os_error(errno.EINVAL)
        page = self.kernel.page_size
        length = (length + page - 1 & _ULONG) // page * page
        if not length:
            raise os_error(errno.EINVAL)
        buffer_class = SystemHeapBuffer if self.name.startswith("system") else CmaHeapBuffer
        return buffer_class(self.kernel, fd_flags, self.name, length), fd_flags
