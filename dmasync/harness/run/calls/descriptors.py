"""Calls on a descriptor: close, dup, fcntl, lseek, ftruncate."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.calls.locks import LOCKS, keep_mark
from dmasync.harness.run.calls.paths import changed_flags
from dmasync.harness.run.open_files import Descriptor
from dmasync.harness.run.program import processes
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor, limit_of

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import FakeSystem

_CLOSE_RANGE_UNSHARE: Final = 2
_CLOSE_RANGE_CLOEXEC: Final = 4
_SEAL_EXEC: Final = 0x20
_ALL_SEALS: Final = 0x3F
_LAST: Final = (1 << 31) - 1


def _number(value: int) -> int:
    return ctypes.c_int(value & 0xFFFF_FFFF).value


def _close(run: Supervisor, call: Notification) -> Answer:
    number = _number(call.arguments[0])
    known = run.find(call, number)
    if known is None:
        gone = run.files.closed(call.process, number)
        if gone is not None and not processes.is_open(call.process, number):
            run.system.backend.close(gone)  # EBADF, and written down as what it is
        return Said.CARRY_ON
    run.files.close(call.process, number)
    run.files.keep(known.fd)
    try:
        run.system.backend.close(known.fd)
    except OSError:
        # A plan's error: the number is free all the same, as close(2) has it, so something else comes in its place.
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            run.listener.give(call, nothing, number, close_on_exec=True, answer=False)
        finally:
            os.close(nothing)
        raise
    return Said.CARRY_ON


def _close_range(run: Supervisor, call: Notification) -> Answer:
    first, last, flags = (value & 0xFFFF_FFFF for value in call.arguments[:3])
    run.processes.parted |= bool(flags & _CLOSE_RANGE_UNSHARE)
    if not flags & _CLOSE_RANGE_CLOEXEC:
        _forget(run, call, run.files.numbers_of(call.process, first, min(last, _LAST)))
    return Said.CARRY_ON


def _forget(run: Supervisor, call: Notification, numbers: list[int]) -> None:
    """The kernel closes these."""
    for number in numbers:
        known = run.files.close(call.process, number)
        if known is not None:
            with contextlib.suppress(OSError):
                run.system.backend.close(known.fd)


def _dup(run: Supervisor, call: Notification) -> Answer:
    return _duplicate(run, call, close_on_exec=False)


def _duplicate(run: Supervisor, call: Notification, *, close_on_exec: bool) -> Answer:
    number = _number(call.arguments[0])
    known = run.find(call, number)
    if known is None or known.file.is_borrowed:
        return Said.CARRY_ON
    host = run.processes.take(call.process, number, call.thread)
    if host is None:
        return Said.CARRY_ON  # a low number then: ioctl and mmap find it there as well
    try:
        fd = int(run.system.backend.dup(known.fd))
        try:
            new = run.give(call, host, Descriptor(fd, known.file), close_on_exec=close_on_exec)
        except BaseException:
            run.system.drop(fd)
            raise
    finally:
        os.close(host)
    return new


def _dup2(run: Supervisor, call: Notification) -> Answer:
    old, new = _number(call.arguments[0]), _number(call.arguments[1])
    odd = run.name_of(call) == "dup3" and _number(call.arguments[2]) & ~os.O_CLOEXEC
    if old == new or odd or not processes.is_open(call.process, old) or not 0 <= new < limit_of(call.process):
        return Said.CARRY_ON  # it does nothing, or is an error
    known = run.find(call, old)
    _forget(run, call, [new])
    if known is not None and not known.file.is_borrowed:
        from dmasync.fakes.foreign.memfds import ours

        with ours():  # it needs no free number
            fd = int(run.system.backend.dup(known.fd))
        run.files.put(call.process, new, Descriptor(fd, known.file))
    return Said.CARRY_ON


def _fcntl(run: Supervisor, call: Notification) -> Answer:
    command, argument = _number(call.arguments[1]), call.arguments[2]
    if command == fcntl.F_ADD_SEALS:
        return _add_seals(run, call, argument)
    known = run.find(call, call.arguments[0])
    if known is None:
        return Said.CARRY_ON
    if command in (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC):
        if not 0 <= _number(argument) <= run.files.base or _number(argument) >= limit_of(call.process):
            return Said.CARRY_ON
        return _duplicate(run, call, close_on_exec=command == fcntl.F_DUPFD_CLOEXEC)
    if not run.system.is_fake:
        return Said.CARRY_ON
    if known.file.kind == "place" and command != fcntl.F_GETFL:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if command == fcntl.F_GETFL:
        system: FakeSystem = run.system  # type: ignore[assignment]
        flags = int(system.kernel.fdinfo(known.fd)["flags"]) & ~os.O_CLOEXEC
        return changed_flags(flags, processes.flags_of(call.thread, _number(call.arguments[0])))
    if command == fcntl.F_GET_SEALS:
        return int(run.system.backend.get_seals(known.fd))
    if command in LOCKS:
        return keep_mark(run, call, known)
    if command in (fcntl.F_SETPIPE_SZ, fcntl.F_GETPIPE_SZ):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # what stands for a sync file is a pipe
    if command == fcntl.F_SETLEASE or (command == fcntl.F_SETFL and argument & os.O_DIRECT):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return Said.CARRY_ON


def _add_seals(run: Supervisor, call: Notification, seals: int) -> Answer:
    known = run.find(call, call.arguments[0])
    if known is not None:
        run.system.backend.add_seals(known.fd, seals & 0xFFFF_FFFF)
        return 0
    is_pinned = getattr(run.system, "is_pinned", None)
    key = processes.file_of(call.thread, _number(call.arguments[0]))
    if key is not None:
        run.files.sweep(key)  # one that has just gone holds no page any more
    if is_pinned is not None and key is not None and _brings_write(run, call, seals) and is_pinned(key):
        if _refuses_all_seals(run, call, seals):
            return Said.CARRY_ON
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))  # a udmabuf holds its pages
    return Said.CARRY_ON


def _brings_write(run: Supervisor, call: Notification, seals: int) -> bool:
    """Whether the memfd may not be written then: F_SEAL_EXEC of one that can be executed seals that as well, and some
    releases then look for pages that are held.
    """
    if seals & fcntl.F_SEAL_WRITE or not seals & _SEAL_EXEC:
        return bool(seals & fcntl.F_SEAL_WRITE)
    system: FakeSystem = run.system  # type: ignore[assignment]
    mode = os.stat(f"/proc/{call.thread}/fd/{_number(call.arguments[0])}").st_mode
    return system.kernel.profile.exec_seal_denies and bool(mode & 0o111)


def _refuses_all_seals(run: Supervisor, call: Notification, seals: int) -> bool:
    """Whether the kernel has another reason than pages that are held, which it looks at first."""
    number = _number(call.arguments[0])
    if processes.flags_of(call.thread, number) & os.O_ACCMODE == os.O_RDONLY or seals & ~_ALL_SEALS:
        return True
    mine = run.processes.take(call.process, number, call.thread)
    if mine is None:
        return False
    try:
        return bool(fcntl.fcntl(mine, fcntl.F_GET_SEALS) & (fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE))
    finally:
        os.close(mine)


def _lseek(run: Supervisor, call: Notification) -> Answer:
    known = run.find(call, call.arguments[0])
    if known is None:
        return Said.CARRY_ON
    offset = ctypes.c_int64(call.arguments[1]).value
    return int(run.system.backend.lseek(known.fd, offset, _number(call.arguments[2])))


def _ftruncate(run: Supervisor, call: Notification) -> Answer:
    known = run.find(call, call.arguments[0])
    if known is None:
        return Said.CARRY_ON
    run.system.backend.ftruncate(known.fd, ctypes.c_int64(call.arguments[1]).value)
    return 0


HANDLERS: Final = {
    "close": _close,
    "close_range": _close_range,
    "dup": _dup,
    "dup2": _dup2,
    "dup3": _dup2,
    "fcntl": _fcntl,
    "lseek": _lseek,
    "ftruncate": _ftruncate,
}
