"""``/dev/dma_heap/*`` (``drivers/dma-buf/dma-heap.c``, ``heaps/system_heap.c``, ``heaps/cma_heap.c``)."""

from __future__ import annotations

import errno
import os
import sys
import weakref

from dmasync import uapi
from dmasync.fakes.kernel.dma_buf.dma_buf import DmaBuf
from dmasync.fakes.kernel.errors import os_error
from dmasync.fakes.kernel.files.file import File, Pages, is_shared
from dmasync.fakes.kernel.parts import Kernel
from dmasync.fakes.kernel.usermem import Argument, copy_from, copy_words_to
from dmasync.fakes.memory.pages import zeroed

_VALID_FD_FLAGS = os.O_CLOEXEC | os.O_ACCMODE
_ULONG = (1 << 64) - 1
_BLOCK_PAGES = (256, 16, 1)
"""Of what sizes a buffer of the system heap is made while there is memory enough, the largest first."""
_DIRECTIONS = uapi.DMA_HEAP_IOCTL_ALLOC >> 30


class _HeapBuffer(DmaBuf):
    has_region = False

    def __init__(self, kernel: Kernel, flags: int, heap: str, size: int) -> None:
        region = heap if self.has_region else None
        kernel.take_memory(size, region)
        # Given back when the buffer is dropped, whether it ever got a descriptor or not.
        self._give_back = weakref.finalize(self, kernel.take_memory, -size, region)
        super().__init__(kernel, flags, heap, kernel.memory(zeroed(size)))

    def mapped_pages(self) -> Pages:
        return Pages.NUMBERS | Pages.IO

    def release(self) -> None:
        self._give_back()
        super().release()


class SystemHeapBuffer(_HeapBuffer):
    """A dma-buf of the system heap, which syncs importers only: with none attached, START and END do
    nothing.
    """

    def may_map(self, length: int, flags: int, offset: int) -> None:
        # remap_pfn_range() refuses a copy-on-write mapping that one call of it does not fill.
        if not is_shared(flags) and offset + length > self._end_of_call(offset):
            raise os_error(errno.EINVAL)

    def _end_of_call(self, offset: int) -> int:
        """Where in the buffer the first call of ``remap_pfn_range()`` ends for a mapping that begins at *offset*."""
        page = self.kernel.page_size
        if not self.kernel.profile.heap_maps_blocks:
            return offset + page
        begin = 0
        for block in (size * page for size in _BLOCK_PAGES):
            end = begin + (self.size - begin) // block * block
            if offset < end:
                return begin + ((offset - begin) // block + 1) * block
            begin = end
        return self.size  # pragma: no cover - the last block is a page


class CmaHeapBuffer(_HeapBuffer):
    """A dma-buf of a CMA heap."""

    has_region = True

    def mapped_pages(self) -> Pages:
        return super().mapped_pages() if self.kernel.profile.cma_maps_numbers else Pages.COUNTED

    def may_map(self, length: int, flags: int, offset: int) -> None:
        if not is_shared(flags):
            raise os_error(errno.EINVAL)


class HeapDevice(File):
    """An open heap node; *name* is the heap's."""

    kind = "heap device"
    can_open_again = True

    def __init__(self, kernel: Kernel, flags: int, name: str) -> None:
        super().__init__(kernel, flags)
        self.name = name

    def opened_again(self, flags: int) -> File:
        return HeapDevice(self.kernel, flags, self.name)

    def driver_ioctl(self, request: int, arg: Argument) -> int:
        # Only the request's number is looked at. Its size and directions say how much of the structure the
        # caller has: less than the kernel's is filled up with zeros, more is carried along and written back, all of it.
        if request & 0xFF:
            raise os_error(errno.EINVAL)
        size = request >> 16 & 0x3FFF
        directions = request >> 30 & _DIRECTIONS
        in_size = size if directions & 1 else 0
        out_size = size if directions & 2 else 0
        whole = max(uapi.dma_heap_allocation_data.size, out_size)
        data = bytearray(copy_from(arg, in_size).ljust(whole, b"\0"))
        try:
            buffer, fd = self._allocate_with_number(data)
        except OSError:
            if out_size and not self.kernel.profile.heap_fd_last:
                copy_words_to(
                    arg, bytes(data[:out_size]), whole=self.kernel.machine.copies_words
                )  # what was refused is written back, too
            raise
        try:
            if out_size:
                copy_words_to(arg, bytes(data[:out_size]), whole=self.kernel.machine.copies_words)
        except OSError:
            if self.kernel.profile.heap_fd_last:
                buffer.release()
            else:
                self._install(fd, buffer, data)
            raise
        except BaseException:
            buffer.release()
            raise
        self._install(fd, buffer, data)
        return 0

    def _allocate_with_number(self, data: bytearray) -> tuple[DmaBuf, int]:
        """A buffer and the descriptor that it will have, which *data* tells from now on."""
        buffer = self._allocate(data)
        try:
            fd = self.kernel.descriptors.reserve()
        except BaseException:
            buffer.release()
            raise
        offset = uapi.dma_heap_allocation_data.offsets["fd"]
        data[offset : offset + 4] = fd.to_bytes(4, sys.byteorder)
        return buffer, fd

    def _install(self, fd: int, buffer: DmaBuf, data: bytearray) -> None:
        fd_flags = uapi.dma_heap_allocation_data.get(data, "fd_flags")
        self.kernel.descriptors.install(fd, buffer, close_on_exec=bool(fd_flags & os.O_CLOEXEC))

    def _allocate(self, data: bytearray) -> DmaBuf:
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
        return buffer_class(self.kernel, fd_flags, self.name, length)
