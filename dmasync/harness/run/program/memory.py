"""A program's memory, read and written as the kernel reads arguments: what is not there is EFAULT."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from typing import Any, Final

from dmasync.harness.run.program import processes

_PAGE: Final = 4096
"""No fault comes within so many bytes: pages are this long, or a multiple of it."""
_ADDRESSES: Final = (1 << 64) - 1
_FIRST_PART: Final = 128
_NO_WAY: Final = (errno.EPERM, errno.ENOSYS)


_libc = ctypes.CDLL(None, use_errno=True)
for _function in (_libc.process_vm_readv, _libc.process_vm_writev):
    _function.restype = ctypes.c_ssize_t
    # Addresses as numbers: objects that stand for them take twice the time.
    _function.argtypes = (ctypes.c_int, *[ctypes.c_size_t] * 5)


class _Scratch:
    """A buffer of one thread, and the two struct iovec that name it and the program's bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.buffer = ctypes.create_string_buffer(room)
        self.bytes = memoryview(self.buffer)
        self.vectors = (ctypes.c_uint64 * 4)(ctypes.addressof(self.buffer))
        self.mine = ctypes.addressof(self.vectors)
        self.theirs = self.mine + 16


_local = threading.local()


def _scratch(size: int) -> _Scratch:
    scratch: _Scratch | None = getattr(_local, "scratch", None)
    if scratch is None or scratch.room < size:
        scratch = _local.scratch = _Scratch(max(size, _PAGE))
    return scratch


def _move(function: Any, thread: int, scratch: _Scratch, address: int, length: int) -> int:
    vectors = scratch.vectors
    vectors[1] = vectors[3] = length
    vectors[2] = address
    return int(function(thread, scratch.mine, 1, scratch.theirs, 1, 0))


def peek(thread: int, address: int, size: int) -> bytes:
    """As many bytes at *address* as can be read, *size* at most."""
    scratch = _scratch(size)
    address &= _ADDRESSES
    if size and address % _PAGE + size <= _PAGE:
        got = _move(_libc.process_vm_readv, thread, scratch, address, size)
        if got == size:
            return bytes(scratch.bytes[:size])
        if ctypes.get_errno() not in _NO_WAY:
            return b""
    found = b""
    while len(found) < size:
        here = (address + len(found)) & _ADDRESSES
        part = min(size - len(found), _PAGE - here % _PAGE)
        got = _move(_libc.process_vm_readv, thread, scratch, here, part)
        if got < 0 and ctypes.get_errno() in _NO_WAY:
            return _through_file(thread, address, size)
        if got <= 0:
            break
        found += bytes(scratch.bytes[:got])
    return found


def _through_file(thread: int, address: int, size: int) -> bytes:
    """Where a container forbids process_vm_readv()."""
    found = b""
    try:
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            while len(found) < size:
                here = address + len(found)
                try:
                    memory.seek(here)
                    part = memory.read(min(size - len(found), _PAGE - here % _PAGE))
                except (OSError, OverflowError, ValueError):
                    break
                if not part:
                    break
                found += part
    except PermissionError:
        processes.tell_hidden(thread)
    return found


def read(thread: int, address: int, size: int) -> bytes:
    """*size* bytes at *address*; EFAULT."""
    found = peek(thread, address, size)
    if len(found) < size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return found


def write(thread: int, address: int, data: bytes) -> None:
    """Put *data* at *address*; EFAULT where it cannot all be written."""
    if not data:
        return
    scratch = _scratch(len(data))
    ctypes.memmove(scratch.buffer, data, len(data))
    done = _move(_libc.process_vm_writev, thread, scratch, address & _ADDRESSES, len(data))
    if done < 0 and ctypes.get_errno() in _NO_WAY:
        with open(f"/proc/{thread}/mem", "r+b", buffering=0) as memory:
            try:
                memory.seek(address)
                done = memory.write(data) or 0
            except (OSError, OverflowError, ValueError):
                done = 0
    if done != len(data):
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))


def string(thread: int, address: int, limit: int) -> bytes:
    """The C string at *address* without its NUL: EFAULT where it cannot be read up to there. One that has no NUL
    within *limit* bytes comes back as those bytes.
    """
    text = b""
    while len(text) < limit:
        want = min(_FIRST_PART if not text else 1024, limit - len(text))
        part = peek(thread, address + len(text), want)
        head, nul, _ = part.partition(b"\0")
        text += head
        if nul:
            return text
        if len(part) < want:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return text
