"""Which pages of a mapping the CPU has touched since it was last asked: the kernel's page tables know.

``MADV_DONTNEED`` on a shared mapping of a file empties its page table and loses nothing; the next access to a
page fills that entry again, which ``/proc/self/pagemap`` shows. A read also fills entries around it, of the
same 64 KiB.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import sys
import weakref
from typing import Final

from dmasync.fakes.memory import host
from dmasync.fakes.memory.lines import Span

AROUND: Final = 1 << 16
"""Bytes, by address: a read fault may fill the entries of this much (fault_around_bytes of mm/memory.c)."""

_PAGE: Final = mmap.PAGESIZE
_ENTRY: Final = 8
# Bits 63 (present), 62 (swapped out) and 61 (a page of a file) are the top ones of an entry.
_HERE, _OF_FILE = 0xC0, 0x20
_PRESENT: Final = bytes(1 if top & _HERE else 0 for top in range(256))
_TOP_BYTE: Final = 7 if sys.byteorder == "little" else 0
_RUN: Final = re.compile(b"\x01+")


def filled_runs(entries: bytes) -> list[Span]:
    """Runs of filled pages in *entries* of a page map, as (begin, end) in bytes from the first page on."""
    marks = entries[_TOP_BYTE::_ENTRY].translate(_PRESENT)
    return [(match.start() * _PAGE, match.end() * _PAGE) for match in _RUN.finditer(marks)]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.pread.restype = ctypes.c_ssize_t
_libc.pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)


class _PageMap:
    """The process's own page map, opened by the C library: ``os`` may be another file system's (pyfakefs)."""

    def __init__(self, path: bytes = b"/proc/self/pagemap") -> None:
        self._path = path
        self._fd = -1
        self._pid = 0

    def entries(self, address: int, length: int) -> bytes:
        """The entries of these bytes' pages; none where the kernel does not say."""
        if self._pid != os.getpid():
            # A descriptor from before a fork shows the parent's pages.
            if self._fd >= 0:
                host.close(self._fd)
            self._fd = _libc.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._pid = os.getpid()
        if self._fd < 0:
            return b""
        pages = -(-length // _PAGE)
        entries = ctypes.create_string_buffer(pages * _ENTRY)
        got = _libc.pread(self._fd, entries, pages * _ENTRY, address // _PAGE * _ENTRY)
        if got != pages * _ENTRY:
            return b""
        return entries.raw


_PAGEMAP = _PageMap()


class Entries:
    """The page table of a mapping, as it is now; empty where nobody can tell."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._tops = _PAGEMAP.entries(host.address_of(mapping), len(mapping))[_TOP_BYTE::_ENTRY]

    def filled(self, begin: int, end: int) -> bool:
        """Whether a page from *begin* to *end*, in bytes of the mapping, was touched."""
        return any(top & _HERE for top in self._tops[begin // _PAGE : end // _PAGE])

    def own(self, begin: int, end: int) -> bool:
        """Whether one of them is the mapping's own, and not the file's: a copy that was made for it to be written."""
        return any(top & _HERE and not top & _OF_FILE for top in self._tops[begin // _PAGE : end // _PAGE])


class Touched:
    """The touched pages of one shared mapping of a file."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = weakref.ref(mapping)  # to watch a mapping must not keep it
        self.address = host.address_of(mapping)
        self._length = len(mapping)

    def pages(self) -> list[Span]:
        """Runs of touched pages, as (begin, end) in bytes of the mapping; empty where nobody can tell."""
        return filled_runs(_PAGEMAP.entries(self.address, self._length))

    def forget(self) -> None:
        """Count from now on."""
        mapping = self._mapping()
        # Locked in memory, or being unmapped: everything will look touched, or nothing can be.
        with contextlib.suppress(OSError, ValueError):
            if mapping is not None:
                mmap.mmap.madvise(mapping, mmap.MADV_DONTNEED)  # whatever its kernel says to that
