"""epoll_ctl with a dma-buf: in the file that stands for it there is nothing to wait for, so a socket does that."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.program import memory
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

_CTL_ADD: Final = 1
_CTL_DEL: Final = 2
_EVENT: Final = struct.Struct("<IQ" if platform.machine() == "x86_64" else "<IxxxxQ")

_libc = ctypes.CDLL(None, use_errno=True)


def _epoll_ctl(run: Supervisor, call: Notification) -> Answer:
    epoll, operation, number = (value & 0xFFFF_FFFF for value in call.arguments[:3])
    known = run.find(call, number)
    twins = run.twins
    if known is None or known.file.kind != "dmabuf" or twins is None:
        return Said.CARRY_ON
    theirs = run.processes.take(call.process, epoll)
    if theirs is None:
        return Said.CARRY_ON
    try:
        twin = twins.of(known.file, known.fd)
        place = (call.process, epoll, number)
        mine = twin.numbers.get(place)
        if operation == _CTL_ADD and mine is None:
            mine = os.dup(twin.socket.fileno())
        if mine is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        event = b"" if operation == _CTL_DEL else memory.read(call.thread, call.arguments[3], _EVENT.size)
        if _libc.epoll_ctl(theirs, operation, mine, event or None) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        if operation == _CTL_DEL:
            os.close(twin.numbers.pop(place))
        else:
            twin.numbers[place] = mine
    finally:
        os.close(theirs)
    return 0


HANDLERS: Final = {"epoll_ctl": _epoll_ctl}
