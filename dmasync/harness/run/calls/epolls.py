"""epoll_ctl with a dma-buf: in the file that stands for it there is nothing to wait for, so a socket does that."""

from __future__ import annotations

import ctypes
import os
import platform
import select
import struct
from typing import Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.program import memory
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

_CTL_DEL: Final = 2
_NEVER: Final = (
    select.EPOLLRDNORM | select.EPOLLRDBAND | select.EPOLLWRNORM | select.EPOLLWRBAND | select.EPOLLMSG | select.EPOLLET
)
_EVENT: Final = struct.Struct("<IQ" if platform.machine() == "x86_64" else "<IxxxxQ")

_libc = ctypes.CDLL(None, use_errno=True)


def _asked(event: bytes) -> bytes:
    """Without what a socket has, and a dma-buf has not. Nor does it know EPOLLET: whoever asks one that is ready wakes
    all that wait for it, so it is told again each time.
    """
    events, data = _EVENT.unpack(event)
    return _EVENT.pack(events & ~_NEVER, data)


def _epoll_ctl(run: Supervisor, call: Notification) -> Answer:
    epoll, operation, number = (value & 0xFFFF_FFFF for value in call.arguments[:3])
    known = run.find(call, number)
    twins = run.twins
    if known is None or known.file.kind != "dmabuf" or twins is None:
        return Said.CARRY_ON
    theirs = run.processes.take(call.process, epoll, call.thread)
    if theirs is None:
        return Said.CARRY_ON
    try:
        twin = twins.of(known.file, known.fd)
        mine = twin.number(number)
        event = b"" if operation == _CTL_DEL else _asked(memory.read(call.thread, call.arguments[3], _EVENT.size))
        if _libc.epoll_ctl(theirs, operation, mine, event or None) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(theirs)
    return 0


HANDLERS: Final = {"epoll_ctl": _epoll_ctl}
