"""Calls that others make for a program, or answer: io_uring, whose requests nobody can stop, the older ``io_submit``,
and a listener of the program's own.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.calls.refused import stream_error
from dmasync.harness.run.program import memory
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.seccomp.numbers import SET_MODE_FILTER
from dmasync.harness.run.supervisor import Supervisor

_POINTER: Final = struct.Struct("=Q")
_REQUEST: Final = struct.Struct("=12xIHhIQQq16x")
"""struct iocb: flags, operation, priority, descriptor, buffer, length, offset."""
_MOST: Final = 4096
_READS: Final = (0, 7)  # IOCB_CMD_PREAD, IOCB_CMD_PREADV
_WRITES: Final = (1, 8)
_POLL: Final = 5
_EVENTS: Final = 0xFFFF


def _io_uring_setup(run: Supervisor, call: Notification) -> Answer:
    if not run.system.is_fake:
        run.note("io_uring_setup(): what the program does by io_uring goes past dmasync run: no plan, trace or finding")
        return Said.CARRY_ON
    run.note(
        "io_uring_setup(): calls by io_uring would go past dmasync run; the program got EPERM, as on a kernel whose"
        " kernel.io_uring_disabled is 2"
    )
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _io_submit(run: Supervisor, call: Notification) -> Answer:
    count, table = min(call.arguments[1], _MOST), call.arguments[2]
    for place in range(count):
        pointer = memory.peek(call.thread, table + place * _POINTER.size, _POINTER.size)
        request = b""
        if len(pointer) == _POINTER.size:
            request = memory.peek(call.thread, _POINTER.unpack(pointer)[0], _REQUEST.size)
        if len(request) < _REQUEST.size:
            return Said.CARRY_ON  # the kernel does those before it, and says EFAULT
        flags, operation, _, number, buffer, length, offset = _REQUEST.unpack(request)
        known = run.find(call, number)
        if known is None:
            continue
        waits = operation == _POLL and not (flags or length or offset or buffer > _EVENTS)
        if place or waits:
            from dmasync.fakes.kernel import UnmodelledCallError

            raise UnmodelledCallError("a dma-buf behind other files' requests, or one to wait for it")
        if operation in (*_READS, *_WRITES):
            raise stream_error(run, known, writes=operation in _WRITES)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return Said.CARRY_ON


def _seccomp(run: Supervisor, call: Notification) -> Answer:
    if call.arguments[0] & 0xFFFF_FFFF == SET_MODE_FILTER:
        run.note(
            "seccomp(): the program asked for SECCOMP_FILTER_FLAG_NEW_LISTENER; Linux allows one such listener alone,"
            " and that is dmasync run's: the program got EBUSY"
        )
    return Said.CARRY_ON


HANDLERS: Final = {"io_uring_setup": _io_uring_setup, "io_submit": _io_submit, "seccomp": _seccomp}
