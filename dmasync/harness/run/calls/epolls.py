"""epoll_ctl with a dma-buf: in the file that stands for it there is nothing to wait for, so a socket does that."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.opened import OpenFile
from dmasync.harness.run.program import memory
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import FakeSystem

_CTL_ADD: Final = 1
_CTL_DEL: Final = 2
_EVENT: Final = struct.Struct("<IQ" if platform.machine() == "x86_64" else "<IxxxxQ")
_LOOK_EVERY_S: Final = 0.002
_FILL: Final = bytes(4096)
_BOTH: Final = select.POLLIN | select.POLLOUT

_libc = ctypes.CDLL(None, use_errno=True)


class _Twin:
    """A socket that can be read and written exactly when its dma-buf is ready for that."""

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()
        self.socket.setblocking(False)
        self._other.setblocking(False)
        self._shows = select.POLLOUT
        self.numbers: dict[tuple[int, int, int], int] = {}
        """Our number in an epoll file, by the process and its numbers of that and of the buffer."""

    def show(self, ready: int) -> None:
        changed, self._shows = self._shows ^ ready, ready
        with contextlib.suppress(BlockingIOError):
            if changed & select.POLLIN:
                _ = self._other.send(b"!") if ready & select.POLLIN else len(self.socket.recv(16))
        with contextlib.suppress(BlockingIOError):
            while changed & select.POLLOUT:
                _ = len(self._other.recv(1 << 20)) if ready & select.POLLOUT else self.socket.send(_FILL)

    def close(self) -> None:
        for number in self.numbers.values():
            os.close(number)
        self.socket.close()
        self._other.close()


class Twins:
    """The twins of all buffers that are in an epoll file."""

    def __init__(self, system: FakeSystem) -> None:
        self._system = system
        self._twins: dict[OpenFile, tuple[_Twin, int]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def of(self, file: OpenFile, fd: int) -> _Twin:
        """The twin of a buffer, which *fd* of the backend is of."""
        with self._lock:
            if file not in self._twins:
                mine = self._system.descriptor(file.held, lambda: None)
                self._twins[file] = (_Twin(), mine)
                self._show(file)
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, name="dmasync-run-epoll", daemon=True)
                self._thread.start()
            return self._twins[file][0]

    def _show(self, file: OpenFile) -> None:
        twin, fd = self._twins[file]
        twin.show(self._system.kernel.poll(fd, _BOTH, 0))

    def gone(self, file: OpenFile) -> None:
        """No program has the buffer any more."""
        with self._lock:
            found = self._twins.pop(file, None)
        if found is not None:
            found[0].close()
            self._system.drop(found[1])

    def _follow(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY_S)
            with self._lock:
                for file in self._twins:
                    self._show(file)


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
