"""``/dev/udmabuf`` (``drivers/dma-buf/udmabuf.c``): dma-bufs out of memfds."""

from __future__ import annotations

import errno
import struct

from dmasync import uapi
from dmasync.fakes.kernel.dmabuf import UdmabufBuffer
from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.file import File
from dmasync.fakes.kernel.memfd import Memfd
from dmasync.fakes.kernel.memory import Run
from dmasync.fakes.kernel.usermem import Argument, copy_from

_ITEM = struct.Struct("=IIQQ")
_KMALLOC_MAX = 4 << 20  # KMALLOC_MAX_SIZE; memdup_user() of more is ENOMEM before anything is read
_POINTER = 8
_SEALS_WANTED = uapi.F_SEAL_SHRINK
_SEALS_DENIED = uapi.F_SEAL_WRITE | uapi.F_SEAL_FUTURE_WRITE

Item = tuple[int, int, int]
"""(memfd, offset, size), offset and size in bytes."""


class UdmabufDevice(File):
    """An open ``/dev/udmabuf``."""

    kind = "udmabuf device"

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
            if length > _KMALLOC_MAX:
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
        if pages * _POINTER > self.kernel.profile.largest_page_array:
            raise os_error(errno.ENOMEM)
        with self.kernel.lock:
            pinned: list[Memfd] = []
            runs: list[Run] = []
            for fd, offset, size in items:
                memfd = self._sealed_memfd(fd)
                run = memfd.pin(offset, size)
                if run is not None:
                    runs.append(run)
                    pinned.append(memfd)
            buffer = UdmabufBuffer(self.kernel, self.kernel.memory(runs), pinned)
        # Not under the lock: nothing may come between the descriptor and the return.
        try:
            new_fd = self.kernel.descriptors.reserve()
        except BaseException:
            buffer.release()
            raise
        return self.kernel.descriptors.install(new_fd, buffer, close_on_exec=bool(flags & uapi.UDMABUF_FLAGS_CLOEXEC))

    def _sealed_memfd(self, fd: int) -> Memfd:
        memfd = self.kernel.descriptors.find(fd)
        if memfd is None:
            raise os_error(errno.EBADFD)  # not EBADF, although it is one
        if not isinstance(memfd, Memfd):
            raise os_error(errno.EBADFD)
        if memfd.seals & _SEALS_WANTED != _SEALS_WANTED or memfd.seals & _SEALS_DENIED:
            raise os_error(errno.EINVAL)
        return memfd
