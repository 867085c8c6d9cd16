"""Memory at known places, for ioctl arguments that are addresses: one page to write, and nothing behind it."""

from __future__ import annotations

import ctypes
import mmap

_RW = mmap.PROT_READ | mmap.PROT_WRITE
_HINT = 0x1000_0000
_PAGES = 6
_TABLE = 4096
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Arena:
    """Pages below 2 GiB, so that their addresses fit fcntl's int: writable, read-only, writable, a hole behind each."""

    def __init__(self, page: int = mmap.PAGESIZE) -> None:
        """*page*: the bytes of the kernel's pages, the host's or a multiple of them."""
        self.page = page
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        for hint in range(_HINT, 1 << 31, 1 << 24):
            address = _libc.mmap(hint, _PAGES * page, _RW, flags, -1, 0)
            if address is not None and address + _PAGES * page < 1 << 31:
                break
            _libc.munmap(address, _PAGES * page)
        else:
            raise MemoryError("no room below 2 GiB")
        self._address = address
        self.end = address + page
        self.read_only_end = address + 3 * page
        self.edge = address + 5 * page
        """Where memory that can be written ends, for what an argument points to."""
        for hole in (self.end, self.read_only_end, self.edge):
            _libc.mprotect(hole, page, 0)
        self.table = ctypes.create_string_buffer(_TABLE)
        """Writable at any address, for what an argument points to."""

    def put(self, data: bytes, cut: int) -> int:
        """The address of *data*, of which all but the last *cut* bytes can be reached."""
        data = data[: len(data) - cut]
        ctypes.memmove(self.end - len(data), data, len(data))
        return self.end - len(data)

    def put_read_only(self, data: bytes) -> int:
        """The address of *data*, which can be read but not be written."""
        _libc.mprotect(self.read_only_end - self.page, self.page, _RW)
        ctypes.memmove(self.read_only_end - len(data), data, len(data))
        _libc.mprotect(self.read_only_end - self.page, self.page, mmap.PROT_READ)
        return self.read_only_end - len(data)

    def get(self, address: int) -> bytes:
        """What lies between *address* and the end of its page."""
        end = self.end if address <= self.end else self.read_only_end
        return ctypes.string_at(address, end - address)

    def close(self) -> None:
        """Unmap."""
        _libc.munmap(self._address, _PAGES * self.page)
