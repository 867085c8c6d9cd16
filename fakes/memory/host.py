"""The few calls with which the fake borrows real pages and real sleeps from the host.

They go through the C library and not through ``os``: under pyfakefs the ``os`` that this package sees answers
for a file system that is not there, and would know nothing of these descriptors. Descriptors obtained here
are close-on-exec and never leave the package.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.read.restype = ctypes.c_ssize_t
_libc.read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_libc.write.restype = ctypes.c_ssize_t
_libc.write.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_libc.memfd_create.argtypes = (ctypes.c_char_p, ctypes.c_uint)
_libc.ftruncate.argtypes = (ctypes.c_int, ctypes.c_int64)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.lseek.restype = ctypes.c_int64
_libc.lseek.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int)

MAP_FIXED = 0x10
_MAP_POPULATE = 0x8000
_CLOEXEC = 0o2000000
_MFD_CLOEXEC = 1
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _checked(result: int | None) -> int:
    if result is None or result < 0:
        raise _error(ctypes.get_errno())
    return result


def memfd_create(name: str) -> int:
    """A real anonymous file; the caller owns the descriptor."""
    return _checked(_libc.memfd_create(name.encode(), _MFD_CLOEXEC))


def ftruncate(fd: int, length: int) -> None:
    """Set a real file's size in bytes."""
    _checked(_libc.ftruncate(fd, length))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Take pages of a real file away: its size stays."""
    _checked(_libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length))


def lseek(fd: int, offset: int, whence: int) -> int:
    """``lseek(2)`` on a real descriptor."""
    return _checked(_libc.lseek(fd, offset, whence))


def close(fd: int) -> None:
    """Give a real descriptor back."""
    _libc.close(fd)


CLOSE: Callable[[int], object] = _libc.close
"""The same for finalizers, as their default argument: at the end of the interpreter modules lose their names."""


def pipe() -> tuple[int, int]:
    """A real pipe: (read end, write end); the caller owns both."""
    ends = (ctypes.c_int * 2)()
    _checked(_libc.pipe2(ends, _CLOEXEC))
    return ends[0], ends[1]


def read(fd: int, address: int, length: int) -> int:
    """``read(2)`` to a raw address, once: EINTR is raised, as no retry of Python's stands between."""
    return _checked(_libc.read(fd, address, length))


def write(fd: int, address: int, length: int) -> int:
    """``write(2)`` from a raw address, once; EFAULT where the process could not read."""
    return _checked(_libc.write(fd, address, length))


def put(fd: int, data: bytes) -> None:
    """Write all of *data*, which must fit into the pipe."""
    buffer = ctypes.create_string_buffer(data, len(data))
    write(fd, ctypes.addressof(buffer), len(data))


def map_over(address: int, length: int, prot: int, flags: int, fd: int, offset: int) -> None:
    """Put pages of a real file in the place of what is mapped at *address*."""
    got = _libc.mmap(address, length, prot, flags | MAP_FIXED, fd, offset)
    if got is None or got == ctypes.c_void_p(-1).value:
        raise _error(ctypes.get_errno() or errno.ENOMEM)


def forbid(address: int, length: int) -> None:
    """mprotect(2): nobody may touch these pages any more."""
    _checked(_libc.mprotect(address, length, 0))


def populate(fd: int, offset: int, length: int) -> None:
    """Have a real file's pages allocated, zero where nothing was."""
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_POPULATE, fd, offset)
    if address is not None and address != ctypes.c_void_p(-1).value:
        _libc.munmap(address, length)


class _PyBuffer(ctypes.Structure):
    # Py_buffer of CPython's stable ABI.
    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address_of(mapping: mmap.mmap) -> int:
    """Where *mapping* lies; ctypes' own from_buffer refuses read-only objects, hence the buffer protocol
    by hand.
    """
    view = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapping), ctypes.byref(view), 0)
    address = view.buf
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    assert address is not None  # noqa: S101 - a mapping of at least a byte has an address
    return int(address)
