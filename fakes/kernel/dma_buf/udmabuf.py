"""``/dev/udmabuf`` (``drivers/dma-buf/udmabuf.c``): dma-bufs out of memfds."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence

from dmasync import uapi
from dmasync.access import SyncType
from dmasync.fakes.kernel.dma_buf.dma_buf import DmaBuf
from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.files.file import File, Pages, is_shared
from dmasync.fakes.kernel.files.memfd import Memfd, MemfdInode
from dmasync.fakes.kernel.parts import Kernel
from dmasync.fakes.kernel.profile import largest_kmalloc
from dmasync.fakes.kernel.usermem import Argument, copy_from
from dmasync.fakes.memory.coherent import BufferMemory
from dmasync.fakes.memory.pages import FakeMapping, Run, Store

_ITEM = struct.Struct("=IIQQ")
_POINTER = 8
_SEALS_WANTED = uapi.F_SEAL_SHRINK

Item = tuple[int, int, int]
"""(memfd, offset, size), offset and size in bytes."""


class UdmabufBuffer(DmaBuf):
    """A dma-buf of ``/dev/udmabuf``: END before the first START is EINVAL, its page table is made by that
    START.
    """

    def __init__(
        self, kernel: Kernel, memory: BufferMemory, memfds: Sequence[MemfdInode], huge_pages: Sequence[object] = ()
    ) -> None:
        super().__init__(kernel, os.O_RDWR, "udmabuf", memory)
        self._huge_pages = huge_pages
        self._has_page_table = False
        self._memfds = tuple(memfds)
        for memfd in self._memfds:
            memfd.pinned_by.add(self)

    def release(self) -> None:
        for memfd in self._memfds:
            memfd.pinned_by.discard(self)
        self._huge_pages = ()
        super().release()

    def holds(self, store: Store, begin: int, end: int) -> bool:
        """Whether it has pages of *store* from *begin* to *end*."""
        return self.memory.holds(store, begin, end)

    def keep(self, store: Store, begin: int, kept: Run) -> None:
        """Have *kept* for the pages of *store* from *begin* on, which are leaving their file."""
        news = self.memory.replace(store, begin, kept)
        for mapping in self.kernel.mappings_of(self):
            if mapping.area is not None:
                mapping.show(news, mapping.area.offset, mapping.area.prot)

    def begin_cpu_access(self, access: SyncType) -> None:
        self._has_page_table = True

    def end_cpu_access(self, access: SyncType) -> None:
        if not self._has_page_table:
            raise os_error(errno.EINVAL)

    def mapped_pages(self) -> Pages:
        return Pages.NUMBERS if self.kernel.profile.udmabuf_maps_numbers else Pages.COUNTED

    def counted_mappings(self) -> list[FakeMapping]:
        """Those that are of its memfds' own pages, and miscounted when those go: none in newer releases."""
        return [] if self.mapped_pages() & Pages.NUMBERS else self.kernel.mappings_of(self)

    def may_map(self, length: int, flags: int, offset: int) -> None:
        if not is_shared(flags):
            raise os_error(errno.EINVAL)
        if self._huge_pages and not self.mapped_pages() & Pages.NUMBERS:
            raise UnmodelledCallError(
                "mmap() of a udmabuf of huge pages: before 6.5 Linux maps others than those, and miscounts them"
            )


class UdmabufDevice(File):
    """An open ``/dev/udmabuf``."""

    kind = "udmabuf device"
    can_open_again = True

    def driver_ioctl(self, request: int, arg: Argument) -> int:
        if request == uapi.UDMABUF_CREATE:
            data = copy_from(arg, uapi.udmabuf_create.size)
            memfd, flags, offset, size = _ITEM.unpack(data)
            return self._create(flags, [(memfd, offset, size)])
        if request == uapi.UDMABUF_CREATE_LIST:
            head = copy_from(arg, uapi.udmabuf_create_list.size)
            count = uapi.udmabuf_create_list.get(head, "count")
            if count > self.kernel.list_limit & 0xFFFF_FFFF:
                raise os_error(errno.EINVAL)
            length = _ITEM.size * count & 0xFFFF_FFFF
            if length > largest_kmalloc(self.kernel.page_size):  # memdup_user(): before anything is read
                raise os_error(errno.ENOMEM)
            if length < _ITEM.size * count:
                raise UnmodelledCallError(f"a list of {count} items: Linux reads beyond what it allocated for it")
            data = copy_from(arg, length, uapi.udmabuf_create_list.size)
            items = [(memfd, offset, size) for memfd, _, offset, size in _ITEM.iter_unpack(data)]
            return self._create(uapi.udmabuf_create_list.get(head, "flags"), items)
        raise os_error(errno.ENOTTY)

    def _create(self, flags: int, items: list[Item]) -> int:
        page = self.kernel.page_size
        limit = self.kernel.profile.page_limit(self.kernel.size_limit_mb, page)
        pages = 0
        for _, offset, size in items:
            if offset % page or size % page:
                raise os_error(errno.EINVAL)
            pages += size // page
            if pages > limit:
                raise os_error(errno.EINVAL)
        if not pages:
            raise os_error(errno.EINVAL)
        if pages * _POINTER > self.kernel.profile.largest_page_array(page):
            raise os_error(errno.ENOMEM)
        with self.kernel.lock:
            pinned: list[MemfdInode] = []
            runs: list[Run] = []
            huge_pages: list[object] = []
            for fd, offset, size in items:
                memfd = self._sealed_memfd(fd)
                run = memfd.pin(offset, size)
                if run is not None:
                    runs.append(run)
                    pinned.append(memfd)
                    huge_pages += memfd.held(run)
            buffer = UdmabufBuffer(self.kernel, self.kernel.memory(runs), pinned, huge_pages)
        # Not under the lock: nothing may come between the descriptor and the return.
        try:
            new_fd = self.kernel.descriptors.reserve()
        except BaseException:
            if self.kernel.profile.failed_udmabuf_goes:
                buffer.release()
            else:
                self.kernel.lost.append(buffer)
            raise
        return self.kernel.descriptors.install(new_fd, buffer, close_on_exec=bool(flags & uapi.UDMABUF_FLAGS_CLOEXEC))

    def _sealed_memfd(self, fd: int) -> MemfdInode:
        memfd = self.kernel.descriptors.find(fd)
        if memfd is None:
            raise os_error(errno.EBADFD)  # not EBADF, although it is one
        if not isinstance(memfd, Memfd):
            raise os_error(errno.EBADFD)
        profile = self.kernel.profile
        if memfd.inode.is_huge and not profile.udmabuf_takes_huge_pages:
            raise os_error(errno.EBADFD)
        if memfd.seals & _SEALS_WANTED != _SEALS_WANTED or memfd.seals & profile.udmabuf_seals_denied:
            raise os_error(errno.EINVAL)
        return memfd.inode
