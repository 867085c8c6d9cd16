"""memfds and their seals (``mm/memfd.c``, ``mm/shmem.c``)."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import weakref
from typing import Any

from dmasync import uapi
from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.files.file import O_LARGEFILE, File
from dmasync.fakes.kernel.parts import Kernel
from dmasync.fakes.memory import host
from dmasync.fakes.memory.pages import FakeMapping, Run, Store, copied

MAX_SIZE = (1 << 63) - 1  # MAX_LFS_FILESIZE
_ALL_SEALS = (
    uapi.F_SEAL_SEAL
    | uapi.F_SEAL_EXEC
    | uapi.F_SEAL_SHRINK
    | uapi.F_SEAL_GROW
    | uapi.F_SEAL_WRITE
    | uapi.F_SEAL_FUTURE_WRITE
)
_WRITE_SEALS = uapi.F_SEAL_WRITE | uapi.F_SEAL_FUTURE_WRITE


class MemfdInode:
    """The memory of a memfd; it goes with the last file, mapping or udmabuf that refers to it."""

    is_huge = False
    """Whether its pages are huge ones."""

    def __init__(self, kernel: Kernel, flags: int) -> None:
        self.kernel = kernel
        self.size = 0
        self.store = Store("memfd")
        self.seals = 0 if flags & uapi.MFD_ALLOW_SEALING else uapi.F_SEAL_SEAL
        self.executable = True
        if flags & uapi.MFD_NOEXEC_SEAL:
            self.executable = False
            self.seals = uapi.F_SEAL_EXEC
        self.pinned_by: weakref.WeakSet[Any] = weakref.WeakSet()  # udmabufs that hold pages of it
        self.files = 0
        """Open files of it, each of which goes with its last descriptor and its last mapping."""
        self.denies_writing = False
        """Whether no mapping that may write is let in any more (``mapping_deny_writable()``)."""
        self._writable_mappings = 0
        self._pinned: list[tuple[int, int]] = []
        self._taken: list[
            tuple[int, int]
        ] = []  # ranges whose pages were counted, each (begin, end), apart and in order

    def truncate(self, length: int) -> None:
        """Grow or shrink to *length* bytes."""
        if (length < self.size and self.seals & uapi.F_SEAL_SHRINK) or (
            length > self.size and self.seals & uapi.F_SEAL_GROW
        ):
            raise os_error(errno.EPERM)
        # Also to the length that it has: what a udmabuf wrote behind the end, in the last page, is zero then.
        self.store.resize(length)
        self.size = length

    def add_seals(self, seals: int) -> None:
        """``F_ADD_SEALS`` of a file that may be written."""
        if seals & ~(_ALL_SEALS & self.kernel.profile.seals):
            raise os_error(errno.EINVAL)
        with self.kernel.lock:
            if self.seals & uapi.F_SEAL_SEAL:
                raise os_error(errno.EPERM)
            brought = 0
            if seals & uapi.F_SEAL_EXEC and self.executable:
                brought = uapi.F_SEAL_SHRINK | uapi.F_SEAL_GROW | _WRITE_SEALS
            asked = seals | brought if self.kernel.profile.exec_seal_denies else seals
            if asked & ~self.seals & uapi.F_SEAL_WRITE:
                if self._writable_mappings:  # mapping_deny_writable()
                    raise os_error(errno.EBUSY)
                if self.pinned_by:  # memfd_wait_for_pins()
                    raise os_error(errno.EBUSY)
                self.denies_writing = True
            self.seals |= seals | brought

    def find(self, offset: int, whence: int) -> int:
        """SEEK_DATA, SEEK_HOLE."""
        self._fill_pinned()
        return self._seek_pages(offset, whence)

    def _seek_pages(self, offset: int, whence: int) -> int:
        """SEEK_DATA, SEEK_HOLE: the host's pages know. One of this kernel's is there if any host page of it is."""
        if not 0 <= offset < self.size:
            raise os_error(errno.ENXIO)
        page, fd = self.kernel.page_size, self.store.fd
        place = offset // page * page
        if whence == os.SEEK_DATA:
            return max(offset, host.lseek(fd, place, os.SEEK_DATA) // page * page)
        with contextlib.suppress(OSError):  # ENXIO: no data up to the end
            while place < self.size and (data := host.lseek(fd, place, os.SEEK_DATA)) < place + page:
                place = -(-host.lseek(fd, data, os.SEEK_HOLE) // page) * page
        return max(offset, min(place, self.size))

    def mapped(self, delta: int) -> None:
        """Count a mapping through which the file may be written, now or after mprotect(); -1 when it goes."""
        with self.kernel.lock:
            self._writable_mappings += delta

    def pin(self, offset: int, size: int) -> Run | None:
        """The pages of a range, which must lie within the file; None for no pages."""
        if self.kernel.profile.udmabuf_pins_folios:
            self.check_pin(offset, size)
        elif not size:
            return None
        elif offset >= 1 << 63:
            raise os_error(errno.EFBIG)
        elif offset + size - self.kernel.page_size >= self.size:
            if offset < self.size:
                self._take_pages(offset, self.size)
                self._pinned.append((offset, self.size - offset))  # page by page: those are there from now on
            raise os_error(errno.EINVAL)
        self._take_pages(offset, offset + size)
        self._pinned.append((offset, size))
        return Run(self.store, offset, size)

    def _take_pages(self, begin: int, end: int) -> None:
        """Count the bytes of a range that no pin before has counted; they go back with the file. ENOMEM."""
        apart = [part for part in self._taken if part[1] < begin or part[0] > end]
        joined = [part for part in self._taken if not (part[1] < begin or part[0] > end)]
        new = (min([begin, *(part[0] for part in joined)]), max([end, *(part[1] for part in joined)]))
        more = new[1] - new[0] - sum(part[1] - part[0] for part in joined)
        if more:
            self.kernel.take_memory(more)
            weakref.finalize(self, self.kernel.take_memory, -more)
        self._taken = sorted([*apart, new])

    def check_pin(self, offset: int, size: int) -> None:
        """What ``memfd_pin_folios()`` asks before it takes any page."""
        if offset >= 1 << 63 or offset + size > self.size or not size:
            raise os_error(errno.EINVAL)

    def bytes_in_pages(self) -> int:
        """``inode_get_bytes()``: what the file's pages take, its holes left out."""
        self._fill_pinned()
        total = begin = 0
        while begin < self.size:
            try:
                begin = self._seek_pages(begin, os.SEEK_DATA)
            except OSError:
                break  # ENXIO: a hole up to the end
            end = self._seek_pages(begin, os.SEEK_HOLE)
            total += -(-(end - begin) // self.kernel.page_size) * self.kernel.page_size
            begin = end
        return total

    def _fill_pinned(self) -> None:
        """Pinning allocates the pages of a hole; here they come when somebody could tell the difference."""
        pinned, self._pinned = self._pinned, []
        for offset, size in pinned:
            host.populate(self.store.fd, offset, size)

    def gone(self) -> None:
        """Nobody has it any more but udmabufs that hold pages of it."""
        if self.pinned_by:
            self.kernel.memfd_gone(tuple(self.pinned_by))

    def held(self, run: Run) -> list[object]:
        """What goes back to the kernel once no file and no udmabuf has the pages of *run* any more."""
        return []

    def punch(self, begin: int, end: int) -> None:
        """Take the pages of a range away: zeros from now on, and a hole. EPERM under a seal on writing."""
        if self.seals & _WRITE_SEALS:
            raise os_error(errno.EPERM)
        with self.kernel.lock:
            self._fill_pinned()
            self._leave_to_buffers(begin, end)
            host.punch_hole(self.store.fd, begin, end - begin)

    def _leave_to_buffers(self, begin: int, end: int) -> None:
        """What udmabufs hold of these pages stays theirs: from now on the file has others there."""
        holders = [buffer for buffer in self.pinned_by if buffer.holds(self.store, begin, end)]
        if not holders:
            return
        if any(buffer.counted_mappings() for buffer in holders):
            raise UnmodelledCallError(
                "a hole in a memfd while a udmabuf maps its pages: older releases of Linux miscount them"
            )
        kept = copied(self.store, begin, end - begin)
        for buffer in holders:
            buffer.keep(self.store, begin, kept)
            if not buffer.holds(self.store, 0, MAX_SIZE):
                self.pinned_by.discard(buffer)
        # Pages that somebody pins there later are counted anew; these go back with the file, as all of its pages do.
        parts = [part for low, high in self._taken for part in ((low, min(high, begin)), (max(low, end), high))]
        self._taken = [(low, high) for low, high in parts if low < high]


class Memfd(File):
    """An open anonymous file in memory: what :func:`memfd_create` gives, or the same one opened again."""

    kind = "memfd"
    regular = True
    can_map = True
    can_open_again = True
    can_sync = True
    inode: MemfdInode

    def __init__(self, kernel: Kernel, inode: MemfdInode, flags: int = os.O_RDWR | O_LARGEFILE) -> None:
        super().__init__(kernel, flags)
        self.inode = inode
        inode.files += 1

    def release(self) -> None:
        with self.kernel.lock:
            self.inode.files -= 1
            last = not self.inode.files
        if last:
            self.inode.gone()

    @property
    def direct(self) -> bool:  # type: ignore[override]  # it depends on the release
        return self.kernel.profile.memfds_open_directly

    @property
    def size(self) -> int:  # type: ignore[override]  # every open file has its inode's
        """In bytes."""
        return self.inode.size

    @property
    def seals(self) -> int:
        """As ``F_GET_SEALS`` tells them."""
        return self.inode.seals

    def opened_again(self, flags: int) -> File:
        return type(self)(self.kernel, self.inode, flags)

    def cut_on_open(self) -> None:
        self.inode.truncate(0)

    def truncate(self, length: int) -> None:
        if not self.writable:
            raise os_error(errno.EINVAL)
        self.inode.truncate(length)

    def add_seals(self, seals: int) -> None:
        if not self.writable:
            super().add_seals(seals)
        self.inode.add_seals(seals)

    def get_seals(self) -> int:
        return self.inode.seals

    def seek(self, offset: int, whence: int) -> int:
        if whence == os.SEEK_SET:
            position = offset
        elif whence == os.SEEK_CUR:
            position = self.position + offset
        elif whence == os.SEEK_END:
            position = self.size + offset
        else:
            position = self.inode.find(offset, whence)
        if not 0 <= position <= MAX_SIZE:
            raise os_error(errno.EINVAL)
        self.position = position
        return position

    def check_map(self, prot: int, shared: bool) -> None:
        if not shared or not self.seals & _WRITE_SEALS:
            return
        if prot & mmap.PROT_WRITE:
            raise os_error(errno.EPERM)
        if self.inode.denies_writing and self.writable and not self.kernel.profile.sealed_maps_read:
            raise os_error(errno.EPERM)  # mapping_map_writable(): it may be made to write later

    def map(self, length: int, prot: int, flags: int, offset: int) -> FakeMapping:
        pages = -(-length // self.kernel.page_size) * self.kernel.page_size
        return FakeMapping.of((Run(self.inode.store, 0, offset + pages),), length, prot, flags, offset)
