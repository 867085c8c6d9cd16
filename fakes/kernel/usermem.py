"""``copy_from_user`` and ``copy_to_user`` for the argument of an ioctl.

An argument is what ``fcntl.ioctl`` takes. A writable buffer stands for a pointer to its bytes. An int is the
pointer itself: the process's memory is then read and written at that address by the host's kernel, so that a
bad pointer is EFAULT here as there.

A buffer shorter than the structure: ``fcntl.ioctl`` copies up to 1,024 bytes into an array of 1,025 on its
stack, so that the kernel never faults, sees a NUL behind the last byte and after that whatever lies there.
The fake makes that zeros. What the kernel writes beyond the buffer is lost, as ``fcntl.ioctl`` copies only
the buffer's length back.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Any

from dmasync.fakes.kernel.errors import os_error
from dmasync.fakes.memory import host

_POINTER_MASK = (1 << 8 * ctypes.sizeof(ctypes.c_void_p)) - 1
_CHUNK = 4096  # always fits into a pipe

Argument = Any
"""A bytearray or another writable buffer, or an int."""


def _fetch(address: int, length: int) -> bytes:
    """As many bytes at *address* as are readable, *length* at most."""
    address &= _POINTER_MASK
    got = b""
    while len(got) < length and address + len(got) <= _POINTER_MASK:
        # Page by page: the pipe takes all of a chunk or stops at the first byte that cannot be read.
        here = address + len(got)
        part = min(length - len(got), _CHUNK - here % _CHUNK)
        reader, writer = host.pipe()
        try:
            host.write(writer, here, part)
            into = ctypes.create_string_buffer(part)
            host.read(reader, ctypes.addressof(into), part)
        except OSError:
            break  # EFAULT: nothing more can be read
        finally:
            host.close(reader)
            host.close(writer)
        got += into.raw
    return got


def copy_from(arg: Argument, size: int, offset: int = 0) -> bytes:
    """*size* bytes at *offset* bytes behind *arg*; EFAULT when they cannot all be read."""
    if isinstance(arg, int):
        data = _fetch(arg + offset, size)
        if len(data) < size:
            raise os_error(errno.EFAULT)
        return data
    return bytes(memoryview(arg).cast("B")[offset : offset + size]).ljust(size, b"\0")


def copy_to(arg: Argument, data: bytes, offset: int = 0) -> None:
    """Write *data* at *offset* bytes behind *arg*; EFAULT when it cannot all be written."""
    if isinstance(arg, int):
        address = (arg + offset) & _POINTER_MASK
        for start in range(0, len(data), _CHUNK):
            part = data[start : start + _CHUNK]
            reader, writer = host.pipe()
            try:
                host.put(writer, part)
                # All or EFAULT: a pipe does not split what was written to it in one piece.
                host.read(reader, address + start, len(part))
            finally:
                host.close(reader)
                host.close(writer)
        return
    view = memoryview(arg).cast("B")
    end = min(offset + len(data), len(view))
    if offset < end:
        view[offset:end] = data[: end - offset]


def copy_words_to(arg: Argument, data: bytes, *, whole: bool) -> None:
    """:func:`copy_to`; *whole*: what is written where memory ends is as ``Machine.copies_words`` has it."""
    if whole and isinstance(arg, int):
        room = len(_fetch(arg, len(data)))
        if room < len(data):
            copy_to(arg, data[: _in_words(len(data), room)])
            raise os_error(errno.EFAULT)
    copy_to(arg, data)


def _in_words(length: int, room: int) -> int:
    """Bytes of *length* that fit into *room* in words of eight, then of four, two and one; one byte where none does."""
    done = room // 8 * 8
    for word in (4, 2, 1):
        if length - done < 8 and (length - done) & word:
            if done + word > room:
                break
            done += word
    return done or min(room, 1)


def put_user(arg: Argument, data: bytes) -> None:
    """Write one number: EFAULT, and nothing of it is written, where it cannot all be."""
    if isinstance(arg, int) and len(_fetch(arg, len(data))) < len(data):
        raise os_error(errno.EFAULT)
    copy_to(arg, data)


def copy_string(arg: Argument, limit: int) -> bytes:
    """``strndup_user``: the C string at *arg* without its NUL.

    EFAULT when it cannot be read up to the NUL, EINVAL when it does not fit into *limit* bytes with its NUL.
    """
    if isinstance(arg, int):
        data = _fetch(arg, limit)
        text, nul, _ = data.partition(b"\0")
        if not nul:
            raise os_error(errno.EINVAL if len(data) == limit else errno.EFAULT)
        return text
    text = bytes(memoryview(arg).cast("B")[:limit]).partition(b"\0")[0]
    if len(text) >= limit:
        raise os_error(errno.EINVAL)
    return text
