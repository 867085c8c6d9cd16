"""memfds of huge pages (``fs/hugetlbfs/inode.c``)."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from typing import Protocol

from dmasync import uapi
from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.files.file import Pages, is_shared
from dmasync.fakes.kernel.files.memfd import MAX_SIZE, Memfd, MemfdInode
from dmasync.fakes.kernel.hugetlb.pool import HugePage, HugePool
from dmasync.fakes.kernel.parts import Kernel
from dmasync.fakes.memory import host
from dmasync.fakes.memory.pages import FakeMapping, Run

MAP_NORESERVE = 0x4000
_SIZE_SHIFT = 26
_WRITE_SEALS = uapi.F_SEAL_WRITE | uapi.F_SEAL_FUTURE_WRITE


def touched_nothing() -> UnmodelledCallError:
    """What is said of a program that has been left alive by mistake."""
    return UnmodelledCallError("a huge page was touched that was not there: Linux would have sent SIGBUS")


class HugeMapping(Protocol):
    """What a file knows of its mappings; a place is that of a huge page in the file."""

    @property
    def is_private(self) -> bool: ...

    def shows(self, place: int) -> bool:
        """Whether it has that place."""

    def touches(self, place: int) -> bool:
        """Whether the program has touched that place through it."""

    def keep_apart(self, place: int) -> None:
        """Take a page of its own for what the program has touched there; UnmodelledCallError where there is none."""

    def look(self) -> None:
        """Take pages of its own for what the program has written; UnmodelledCallError where there are none."""

    def show(self) -> None:
        """Let the program touch what there is a page for, and nothing else."""

    def zap(self, begin: int, end: int) -> None:
        """Take away what the mapping has of the file's bytes from *begin* to *end*, copies of its own too."""


class HugeMemfdInode(MemfdInode):
    """The memory of a memfd of huge pages, and what it has been promised of the kernel's."""

    is_huge = True

    def __init__(self, kernel: Kernel, flags: int) -> None:
        size_log = flags >> _SIZE_SHIFT & 0x3F or kernel.machine.huge_pages(kernel.page_size)[0]
        pool = kernel.huge_pools.get(1 << size_log)
        if pool is None:
            if size_log in kernel.machine.perhaps.get(kernel.page_size, ()):
                raise UnmodelledCallError(
                    "memfd_create() with MFD_HUGE_1GB: not every processor has such pages; huge_pages={1 << 30: 1} has"
                )
            raise os_error(errno.ENODEV)
        super().__init__(kernel, flags)
        self.huge_page = 1 << size_log
        """In bytes."""
        self.pool: HugePool = pool
        self.pages: dict[int, HugePage] = {}
        """Those that the file has, by their place in it."""
        self.promised: set[int] = set()
        """Places for which a page was promised, or taken in the meantime."""
        self.mappings: weakref.WeakSet[HugeMapping] = weakref.WeakSet()
        self.pool.files.add(self)

    # The program's touches

    def look(self) -> None:
        """Take the pages that the program has touched: the host's file has data there."""
        place = 0
        while place < self.size:
            try:
                place = host.lseek(self.store.fd, place, os.SEEK_DATA)
            except OSError:
                break  # ENXIO: no more data
            index = place // self.huge_page
            if index not in self.pages:
                self._take_touched(index)
            place = (index + 1) * self.huge_page
        for mapping in list(self.mappings):
            mapping.look()

    def _take_touched(self, index: int) -> None:
        touching = [mapping for mapping in self.mappings if mapping.touches(index)]
        if touching and all(mapping.is_private for mapping in touching):
            for mapping in touching:
                mapping.keep_apart(index)
            host.punch_hole(self.store.fd, index * self.huge_page, self.huge_page)
        elif not self.bring(index):
            self.pages[index] = HugePage(None)
            self.promised.add(index)
            raise touched_nothing()

    def show(self) -> None:
        """Let the program touch what there is a page for, and nothing else."""
        for mapping in list(self.mappings):
            mapping.show()

    def is_shared(self, index: int) -> bool:
        """Whether a shared mapping shows that page."""
        return any(not mapping.is_private and mapping.shows(index) for mapping in self.mappings)

    def bring(self, index: int) -> bool:
        """The file gets its page *index*, as a fault through a shared mapping brings it; False where there is none."""
        page = self.pool.take(promised=index in self.promised)
        if page is None:
            return False
        self.promised.add(index)
        self.pages[index] = page
        return True

    # Calls

    def promise(self, begin: int, end: int) -> bool:
        """Promise the pages from *begin* to *end* that are not promised yet; False, and none, if there are too few."""
        new = set(range(begin, end)) - self.promised
        if not self.pool.promise(len(new)):
            return False
        self.promised |= new
        return True

    def truncate(self, length: int) -> None:
        if length % self.huge_page:
            raise os_error(errno.EINVAL)
        with self.pool.changing():
            super().truncate(length)
            self._drop(length // self.huge_page)

    def _drop(self, first: int) -> None:
        """The pages from *first* on go, and what was promised there."""
        for mapping in list(self.mappings):
            mapping.zap(first * self.huge_page, MAX_SIZE)
        gone = [index for index in self.pages if index >= first]
        unkept = {index for index in self.promised if index >= first}
        self.promised -= unkept
        for index in gone:
            del self.pages[index]
        self.pool.promise(len(gone) - len(unkept))

    def gone(self) -> None:
        super().gone()
        with self.pool.changing(quietly=True):
            self._drop(0)
        self.pool.files.discard(self)  # udmabufs may go on writing its pages

    def pin(self, offset: int, size: int) -> Run | None:
        profile = self.kernel.profile
        with self.pool.changing():
            if profile.udmabuf_pins_folios:
                self.check_pin(offset, size)
            elif not size:
                return None
            for index in self._indices(offset, size):
                if index not in self.pages:
                    self._bring_to_pin(index)
        return Run(self.store, offset, size)

    def _indices(self, offset: int, size: int) -> range:
        return range(offset // self.huge_page, -(-(offset + size) // self.huge_page))

    def _bring_to_pin(self, index: int) -> None:
        """``memfd_alloc_folio()``, which older releases have not; OSError."""
        profile = self.kernel.profile
        if not profile.udmabuf_pins_folios:
            raise os_error(errno.EINVAL)  # it was looked for, never made
        was_promised = index in self.promised
        if profile.pinning_promises and not self.promise(index, index + 1):
            raise os_error(profile.missing_huge_page)
        can_take = self.pool.promised or not profile.pinning_takes_promised
        page = self.pool.take(promised=True) if can_take else None
        if page is None:
            if profile.pinning_promises and not was_promised:
                self.promised.discard(index)
                self.pool.promise(-1)
            raise os_error(profile.missing_huge_page)
        self.pages[index] = page

    def held(self, run: Run) -> list[object]:
        return [self.pages[index] for index in self._indices(run.offset, run.length)]

    def bytes_in_pages(self) -> int:
        with self.pool.changing():
            return len(self.pages) * self.huge_page

    def punch(self, begin: int, end: int) -> None:
        if self.seals & _WRITE_SEALS:
            raise os_error(errno.EPERM)
        huge = self.huge_page
        first, last = -(-begin // huge) * huge, end // huge * huge
        with self.kernel.lock, self.pool.changing():
            # Of a page that is cut, the part is zero from now on, for everybody who has it.
            if begin < first:
                self._clear(begin, min(end, first))
            if end > last and end > first:
                self._clear(last, end)
            if first < last:
                for mapping in list(self.mappings):
                    mapping.zap(first, last)
                for index in sorted(self.pages.keys() & set(range(first // huge, last // huge))):
                    self._punch_page(index)

    def _clear(self, begin: int, end: int) -> None:
        if begin // self.huge_page in self.pages:
            host.punch_hole(self.store.fd, begin, end - begin)

    def _punch_page(self, index: int) -> None:
        place = index * self.huge_page
        self._leave_to_buffers(place, place + self.huge_page)
        host.punch_hole(self.store.fd, place, self.huge_page)
        del self.pages[index]
        was_promised = index in self.promised
        self.promised.discard(index)
        self.pool.promise(1 - was_promised)


class HugeMemfd(Memfd):
    """An open memfd of huge pages.

    It can be made, sized and sealed without any; mappings and udmabufs need pages of FakeKernel's *huge_pages*.
    """

    kind = "huge memfd"
    direct = False
    inode: HugeMemfdInode

    def block_size(self) -> int:
        return self.inode.huge_page

    def mapped_pages(self) -> Pages:
        return Pages.FIXED

    def seek(self, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):  # default_llseek(): all of it is data
            if offset >= self.size:
                raise os_error(errno.ENXIO)
            offset, whence = (offset if whence == os.SEEK_DATA else self.size), os.SEEK_SET
        return super().seek(offset, whence)

    def map(self, length: int, prot: int, flags: int, offset: int) -> FakeMapping:
        huge = self.inode.huge_page
        if offset % huge:
            raise os_error(errno.EINVAL)
        begin, end = offset // huge, -(-(offset + length) // huge)
        pool = self.inode.pool
        with pool.changing():
            if not flags & MAP_NORESERVE:
                enough = self.inode.promise(begin, end) if is_shared(flags) else pool.promise(end - begin)
                if not enough:
                    raise os_error(errno.ENOMEM)
            with contextlib.ExitStack() as undo:
                if not flags & MAP_NORESERVE and not is_shared(flags):
                    undo.callback(pool.promise, begin - end)
                mapping = super().map(length, prot, flags & 0x0F, offset)
                undo.pop_all()
        return mapping
