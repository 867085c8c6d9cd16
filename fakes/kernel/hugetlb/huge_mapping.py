"""Mappings of huge pages: which of them the program may touch, and which copies are its own.

The host's pages are small and there are always some. So a place for which there is no huge page is shown as one beyond
the end of a file: whoever touches it gets SIGBUS, as on Linux. In a private mapping a place where the file has no page
becomes the mapping's own page when it is touched. The host copies small pages; the rest of a huge one follows at the
next call about huge pages.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import weakref
from enum import Enum, auto
from typing import Final

from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.files import mapped
from dmasync.fakes.kernel.files.file import File, is_shared
from dmasync.fakes.kernel.files.mmap import MAP_NONBLOCK, MAP_POPULATE, MAP_TYPE, for_the_file
from dmasync.fakes.kernel.hugetlb.hugetlbfs import MAP_NORESERVE, HugeMemfd, touched_nothing
from dmasync.fakes.kernel.hugetlb.pool import HugePage, HugePool
from dmasync.fakes.memory import host
from dmasync.fakes.memory.pages import FakeMapping, Store
from dmasync.fakes.memory.touched import Entries

_REFUSED: Final = frozenset({20, 21, 25, 102, 103})
"""MADV_COLD, MADV_PAGEOUT, MADV_COLLAPSE, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE."""
_DONTNEED, _POPULATE_READ, _POPULATE_WRITE = 4, 22, 23


class _Shown(Enum):
    FILE = auto()
    EMPTY = auto()
    OWN = auto()
    NOTHING = auto()


def area_of(mapping: FakeMapping, file: File, length: int, prot: int, flags: int, offset: int) -> mapped.Area:
    """The kernel's side of a mapping that has just been made."""
    if isinstance(file, HugeMemfd):
        return HugeArea(mapping, file, length, prot, flags, offset)
    return mapped.Area(file, length, prot, flags, offset)


class HugeArea(mapped.Area):
    """A mapping of a memfd of huge pages."""

    def __init__(self, mapping: FakeMapping, file: HugeMemfd, length: int, prot: int, flags: int, offset: int) -> None:
        super().__init__(file, length, prot, flags, offset)
        self._inode, self._huge = file.inode, file.inode.huge_page
        self._pool: HugePool = self._inode.pool
        self._mapping = weakref.ref(mapping)
        self._length = length
        self._flags = flags & MAP_TYPE
        self._owns_promises = not is_shared(flags) and not flags & MAP_NORESERVE
        self._first = offset // self._huge
        self._own: dict[int, HugePage] = {}
        """The pages of a private mapping, by their place in the file."""
        self._used: set[int] = set()
        """Places at which a private mapping has used what it was promised."""
        self._shown = dict.fromkeys(self._places(), _Shown.FILE)
        self._inode.mappings.add(self)
        with self._pool.changing():
            if for_the_file(prot, flags) & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE and prot & ~mmap.PROT_EXEC:
                for place in self._places():
                    if not self._fault(place, write=bool(prot & mmap.PROT_WRITE)):
                        break  # it is not told

    def _places(self) -> range:
        return range(self._first, -(-(self.offset + self._length) // self._huge))

    @property
    def can_unmap(self) -> bool:
        """munmap() of what is not whole huge pages is refused, and ``mmap.close()`` does not hear of it."""
        return not self._in_pages(self._length) % self._huge

    def unmapped(self) -> None:
        self._inode.mappings.discard(self)
        with self._pool.changing(quietly=True):
            self._give_up(self._places())
        super().unmapped()

    def _give_up(self, places: range) -> None:
        """Those places are mapped no more."""
        for place in places:
            self._let_go(place)
        if self._owns_promises:
            self._pool.promise(len(self._used & set(places)) - len(places))

    # The program's touches

    @property
    def is_private(self) -> bool:
        return not self._shared

    def shows(self, place: int) -> bool:
        return place in self._shown

    def touches(self, place: int) -> bool:
        mapping = self._open_mapping()
        return mapping is not None and place in self._shown and Entries(mapping).filled(*self._span(place))

    def look(self) -> None:
        mapping = self._open_mapping()
        if mapping is None or self._shared:
            return
        entries = Entries(mapping)
        for place, shown in list(self._shown.items()):
            begin, end = self._span(place)
            if shown is _Shown.EMPTY and entries.filled(begin, end):
                self._take_touched(place)
            elif shown is _Shown.FILE and entries.own(begin, end):
                self._take_touched(place)
                self._copy(mapping, begin, end)

    def keep_apart(self, place: int) -> None:
        mapping = self._open_mapping()
        if mapping is None:
            return
        begin, end = self._span(place)
        address = host.address_of(mapping) + begin
        kept = ctypes.string_at(address, end - begin)
        self._show_as(mapping, place, _Shown.EMPTY)
        if kept.strip(b"\0"):
            ctypes.memmove(address, kept, len(kept))
        self._take_touched(place)

    def _take_touched(self, place: int) -> None:
        self._shown[place] = _Shown.OWN
        if not self._take(place):
            self._own[place] = HugePage(None)
            if self._is_promised(place):
                self._used.add(place)
                self._pool.promised -= 1
            raise touched_nothing()

    def _open_mapping(self) -> FakeMapping | None:
        mapping = self._mapping()
        return None if mapping is None or mapping.closed else mapping

    def _span(self, place: int) -> tuple[int, int]:
        """Where in the mapping *place* lies, in bytes."""
        begin = place * self._huge - self.offset
        return begin, min(begin + self._huge, -(-self._length // mmap.PAGESIZE) * mmap.PAGESIZE)

    def _copy(self, mapping: FakeMapping, begin: int, end: int) -> None:
        """Have the host copy the rest of a huge page, by writing a byte of each small one."""
        address = host.address_of(mapping)
        for place in range(address + begin, address + end, mmap.PAGESIZE):
            ctypes.memmove(place, place, 1)

    def _take(self, place: int) -> bool:
        """A page of the mapping's own for *place*; False where there is none."""
        page = self._pool.take(promised=self._is_promised(place))
        if page is None:
            return False
        if self._owns_promises:
            self._used.add(place)
        self._own[place] = page
        return True

    def _is_promised(self, place: int) -> bool:
        return self._owns_promises and place not in self._used

    def _let_go(self, place: int) -> None:
        """The mapping's own page for *place*, if any, is gone, and promised anew where the release does that."""
        if self._own.pop(place, None) is None:
            return
        if self._owns_promises and self._file.kernel.profile.promises_huge_pages_anew:
            self._used.discard(place)
            self._pool.promised += 1

    def zap(self, begin: int, end: int) -> None:
        for place in self._places():
            if begin <= place * self._huge < end:
                self._let_go(place)

    def _fault(self, place: int, *, write: bool) -> bool:
        """Bring the page as a touch does; False where that would have been SIGBUS."""
        if place * self._huge >= self._inode.size:
            return False
        is_there = place in self._inode.pages
        if self._shared:
            return is_there or self._inode.bring(place)
        if place in self._own or (is_there and not write):
            return True
        if not self._take(place):
            return False
        mapping = self._open_mapping()
        if mapping is not None:
            self._show_as(mapping, place, _Shown.FILE if is_there else _Shown.EMPTY)
            if is_there:
                self._copy(mapping, *self._span(place))
            self._shown[place] = _Shown.OWN
        return True

    # What the program sees

    def show(self) -> None:
        mapping = self._open_mapping()
        if mapping is None:
            return
        for place in self._places():
            if place not in self._own:
                self._show_as(mapping, place, self._wanted(place))

    def _wanted(self, place: int) -> _Shown:
        if place in self._inode.pages or place * self._huge >= self._inode.size:
            return _Shown.FILE
        promised = place in self._inode.promised if self._shared else self._is_promised(place)
        if not self._pool.has(promised=promised):
            return _Shown.NOTHING
        # Whoever writes there through a shared mapping makes no call: this one shows it, unless it was touched first.
        return _Shown.FILE if self._shared or self._inode.is_shared(place) else _Shown.EMPTY

    def _show_as(self, mapping: FakeMapping, place: int, shown: _Shown) -> None:
        if self._shown[place] is shown:
            return
        begin, end = self._span(place)
        address = host.address_of(mapping) + begin
        if shown is _Shown.EMPTY:
            host.map_over(address, end - begin, self.prot, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        elif shown is _Shown.NOTHING:
            nothing = Store("no huge page")
            host.map_over(address, end - begin, self.prot, mmap.MAP_SHARED, nothing.fd, 0)
        else:
            store = self._inode.store.fd
            host.map_over(address, end - begin, self.prot, self._flags, store, place * self._huge)
        self._shown[place] = shown

    # Calls

    def advise(self, advice: int, begin: int, length: int) -> int | None:
        with self._pool.changing():
            done = super().advise(advice, begin, length)
            end = begin + self._in_pages(length)
            if done == _DONTNEED:
                self._forget(begin, end)
            elif done in (_POPULATE_READ, _POPULATE_WRITE):
                self._populate(begin, end, write=done == _POPULATE_WRITE)
        return None

    def _is_refused(self, advice: int) -> bool:
        return advice in _REFUSED or super()._is_refused(advice)

    def _change(self, advice: int, begin: int, end: int) -> None:
        whole = self._vmas.uncut(advice, begin, end, self._huge)
        super()._change(advice, begin, whole)
        if whole < end:
            raise os_error(errno.EINVAL)

    def _forget(self, begin: int, end: int) -> None:
        if begin % self._huge:
            raise os_error(errno.EINVAL)
        for place in range(self._first + begin // self._huge, self._first + end // self._huge):
            self._let_go(place)

    def _populate(self, begin: int, end: int, *, write: bool) -> None:
        for place in range(self._first + begin // self._huge, self._first - (-end // self._huge)):
            if not self._fault(place, write=write):
                raise os_error(errno.EFAULT)

    def resize(self, length: int) -> None:
        super().resize(length)
        old = -(-self._length // self._huge) * self._huge
        if length > old:
            raise os_error(errno.EINVAL)
        if length > self._length:
            raise UnmodelledCallError("a mapping grows within its last huge page")

    def resized(self, length: int) -> None:
        before = self._places()
        with self._pool.changing():
            self._length = length
            self._give_up(range(self._places().stop, before.stop))
            for place in range(self._places().stop, before.stop):
                del self._shown[place]
        super().resized(length)
