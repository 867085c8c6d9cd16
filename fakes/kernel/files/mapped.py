"""What can be asked of a mapping: ``mm/madvise.c``, ``mm/msync.c``, and what ``mmap`` objects ask about their file."""

from __future__ import annotations

import errno
import mmap
import sys
from typing import Final

from dmasync import uapi
from dmasync.fakes.kernel.errors import UnmodelledCallError, bad_descriptor, os_error
from dmasync.fakes.kernel.files.file import File, Pages, is_shared
from dmasync.fakes.kernel.files.memfd import Memfd
from dmasync.fakes.kernel.files.vmas import Vmas, VmFlags

_WRITE_SEALS: Final = uapi.F_SEAL_WRITE | uapi.F_SEAL_FUTURE_WRITE
# asm-generic/mman-common.h; Python's mmap module has some of them, by release and by the host.
_DONTNEED, _FREE, _REMOVE, _DOFORK, _DODUMP, _WIPEONFORK = 4, 8, 9, 11, 17, 18
_COLD, _PAGEOUT, _POPULATE_READ, _POPULATE_WRITE, _DONTNEED_LOCKED, _COLLAPSE = 20, 21, 22, 23, 24, 25
_HWPOISON, _SOFT_OFFLINE, _GUARD_INSTALL, _GUARD_REMOVE = 100, 101, 102, 103
_KNOWN: Final = frozenset({*range(_DONTNEED + 1), *range(_FREE, _COLLAPSE + 1)})
MAP_STACK: Final = 0x20000
_OF_ANONYMOUS_MEMORY: Final = frozenset({_FREE, _WIPEONFORK})
_OF_PAGES: Final = frozenset(
    {_DONTNEED, _DONTNEED_LOCKED, _COLD, _PAGEOUT, _POPULATE_READ, _POPULATE_WRITE, _DODUMP}
    | {_GUARD_INSTALL, _GUARD_REMOVE}
)
"""What only a mapping of pages knows that the kernel counts."""
_TRACKS_DESCRIPTOR: Final = sys.version_info < (3, 13)
"""Whether the real backend's mappings keep a descriptor, which their size() and resize() ask."""


def first_flags(file: File, flags: int) -> VmFlags:
    """Those of a mapping that has just been made with *flags*, as far as advice may change them."""
    first = VmFlags.DONTDUMP if file.mapped_pages() & Pages.NUMBERS else VmFlags.NONE
    if flags & MAP_STACK and file.kernel.profile.stack_without_huge_pages:
        first |= VmFlags.NOHUGEPAGE
    return first


class Area:
    """A mapping as its kernel keeps it: one ``struct vm_area_struct``, and more once advice has split it.

    Each of them holds the file, from the moment that there is one.
    """

    def __init__(self, file: File, length: int, prot: int, flags: int, offset: int) -> None:
        self._file = file
        self.prot = prot
        self.offset = offset
        self._shared = is_shared(flags)
        self._may_write = file.writable and not (isinstance(file, Memfd) and file.seals & _WRITE_SEALS)
        self._vmas = Vmas(self._in_pages(length), joins=not file.mapped_pages(), flags=first_flags(file, flags))
        self._hold(1)

    def is_of(self, file: object) -> bool:
        """Whether it is *file* that is mapped."""
        return self._file is file

    @property
    def page_size(self) -> int:
        """In bytes, the kernel's."""
        return self._file.kernel.page_size

    def _in_pages(self, length: int) -> int:
        return -(-length // self.page_size) * self.page_size

    def _hold(self, more: int) -> None:
        for _ in range(abs(more)):
            if more > 0:
                self._file.get()
            else:
                self._file.put()

    @property
    def can_unmap(self) -> bool:
        """Whether munmap() of it can succeed: what cannot be unmapped stays, as the process's."""
        return True

    def unmapped(self) -> None:
        """The mapping is gone, and holds the file no more."""
        self._hold(self._vmas.unmapped())

    def advise(self, advice: int, begin: int, length: int) -> int | None:
        """``madvise(2)``; the advice that the host's pages are to be given for it, None for none. OSError."""
        kernel = self._file.kernel
        if advice in (_HWPOISON, _SOFT_OFFLINE):
            raise UnmodelledCallError(f"madvise({advice}): the fake spoils no memory")
        known = _KNOWN | {_GUARD_INSTALL, _GUARD_REMOVE} if kernel.profile.guards_files else _KNOWN
        if advice not in known or begin % kernel.page_size:
            raise os_error(errno.EINVAL)
        if not length:
            return None
        end = begin + self._in_pages(length)
        if advice == _REMOVE:
            self._remove(begin, end)
            return None
        if self._is_refused(advice):
            raise os_error(errno.EINVAL)
        if advice == _COLLAPSE:
            if length < 1 << kernel.machine.huge_pages(kernel.page_size)[0] or not isinstance(self._file, Memfd):
                raise os_error(errno.EINVAL)
            raise UnmodelledCallError(
                "madvise(MADV_COLLAPSE): whether there is a huge page, the machine's memory decides"
            )
        if advice == _GUARD_INSTALL:
            raise UnmodelledCallError("madvise(MADV_GUARD_INSTALL): whoever touches such a page dies")
        if advice == _GUARD_REMOVE:
            return None
        with kernel.lock:
            self._change(advice, begin, end)
        return _DONTNEED if advice == _DONTNEED_LOCKED else advice

    def _change(self, advice: int, begin: int, end: int) -> None:
        """The flags that *advice* is about; OSError."""
        self._hold(self._vmas.advise(advice, begin, end))

    def _is_refused(self, advice: int) -> bool:
        """Whether such a mapping knows no such advice: EINVAL."""
        if advice == _POPULATE_READ and not self.prot & mmap.PROT_READ:
            return True
        if advice == _POPULATE_WRITE and not self.prot & mmap.PROT_WRITE:
            return True
        pages = self._file.mapped_pages()
        if advice == _DOFORK:
            return bool(pages if self._file.kernel.profile.dofork_for_counted_pages else pages & Pages.IO)
        return advice in _OF_ANONYMOUS_MEMORY or (bool(pages & ~Pages.FIXED) and advice in _OF_PAGES)

    def _remove(self, begin: int, end: int) -> None:
        """``madvise_remove()``: a hole in the file."""
        can_write = self._may_write
        if not self._file.kernel.profile.sealed_maps_read:
            can_write = self._file.writable and bool(self.prot & mmap.PROT_WRITE)
        if not self._shared or not can_write:
            raise os_error(errno.EACCES)
        if not isinstance(self._file, Memfd):
            raise os_error(errno.ENODEV)
        self._file.inode.punch(self.offset + begin, self.offset + end)

    def check_flush(self, begin: int, length: int) -> None:
        """``msync(2)`` of *length* bytes from *begin* on; OSError."""
        # What was not opened for writing is no VM_SHARED, whatever MAP_SHARED said: nothing is there to be written.
        is_shared = self._shared and self._file.writable
        if begin % self._file.kernel.page_size or (length and is_shared and not self._file.can_sync):
            raise os_error(errno.EINVAL)

    def file_size(self) -> int:
        """``fstat(2)`` on the mapping's own descriptor, in bytes; OSError where it has none."""
        if not _TRACKS_DESCRIPTOR:
            raise bad_descriptor(-1)
        return self._file.size

    def resize(self, length: int) -> None:
        """Let the file be as long as a mapping of *length* bytes needs, as ``mmap.resize()`` does first. OSError."""
        if length > sys.maxsize - self.offset:
            raise ValueError("new size out of range")
        self._file.truncate(self.offset + length)

    def resized(self, length: int) -> None:
        """The mapping has *length* bytes now."""
        with self._file.kernel.lock:
            self._hold(self._vmas.resize(self._in_pages(length)))

    @property
    def can_resize(self) -> bool:
        """Whether ``mmap.resize()`` gets as far as to ask the kernel."""
        return _TRACKS_DESCRIPTOR
