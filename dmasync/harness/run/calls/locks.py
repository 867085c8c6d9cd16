"""Locks on a range of a file of ours: fcntl with F_SETLK, F_OFD_SETLK and their like."""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.open_files import FIRST_MARK, Descriptor
from dmasync.harness.run.program import memory
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

LOCKS: Final = frozenset({5, 6, 7, 36, 37, 38})
"""F_GETLK, F_SETLK, F_SETLKW, and the same of open files."""
_FLOCK: Final = struct.Struct("=hhxxxxqqixxxx")  # struct flock of a 64-bit machine
_LENGTH_AT: Final = 16
_UNLOCK: Final = 2
_LAST: Final = FIRST_MARK - 1
"""Where a program's lock ends at the latest: of two locks that touch, and are of one kind, the host makes one."""


def keep_mark(run: Supervisor, call: Notification, known: Descriptor) -> Answer:
    """Let the host do it, but not to the lock that tells our files apart, which lies far behind any buffer's end.

    A program that locks or unlocks "to the end of the file" would meet that lock, or take it away: its range then ends
    before it, and the length in its structure says so afterwards.
    """
    address = call.arguments[2]
    raw = memory.peek(call.thread, address, _FLOCK.size)
    if len(raw) < _FLOCK.size:
        return Said.CARRY_ON
    kind, whence, start, length, _ = _FLOCK.unpack(raw)
    size = _size(known) if whence == os.SEEK_END else 0
    if not os.SEEK_SET <= whence <= os.SEEK_END or start + size < 0 or length < 0:
        return Said.CARRY_ON  # refused, or it ends where it says it begins
    begin = start + size
    if length and begin + length <= _LAST:
        return Said.CARRY_ON
    if begin >= _LAST:
        if kind == _UNLOCK:
            return 0
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    memory.write(call.thread, address + _LENGTH_AT, struct.pack("=q", _LAST - begin))
    return Said.CARRY_ON


def _size(known: Descriptor) -> int:
    return 0 if known.file.witness is None else os.fstat(known.file.witness).st_size


__all__ = ["LOCKS", "keep_mark"]
