"""Sockets that stand in for dma-bufs in a program's epoll files."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.open_files import OpenFile

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import FakeSystem

_LOOK_EVERY_S: Final = 0.002
_FILL: Final = bytes(4096)
_BOTH: Final = select.POLLIN | select.POLLOUT


class _Twin:
    """A socket that can be read and written exactly when its dma-buf is ready for that."""

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()
        self.socket.setblocking(False)
        self._other.setblocking(False)
        self._shows = select.POLLOUT
        self._numbers: dict[int, int] = {}
        """Ours in epoll files, by those that programs have of the buffer: an epoll file tells one buffer's numbers
        apart, and no processes, so that it may be inherited or sent.
        """

    def number(self, of_program: int) -> int:
        """That by which an epoll file knows what the program calls *of_program*."""
        if of_program not in self._numbers:
            self._numbers[of_program] = os.dup(self.socket.fileno())
        return self._numbers[of_program]

    def show(self, ready: int) -> None:
        changed, self._shows = self._shows ^ ready, ready
        with contextlib.suppress(BlockingIOError):
            if changed & select.POLLIN:
                _ = self._other.send(b"!") if ready & select.POLLIN else len(self.socket.recv(16))
        with contextlib.suppress(BlockingIOError):
            while changed & select.POLLOUT:
                _ = len(self._other.recv(1 << 20)) if ready & select.POLLOUT else self.socket.send(_FILL)

    def close(self) -> None:
        for number in self._numbers.values():
            os.close(number)
        self.socket.close()
        self._other.close()


class Twins:
    """The twins of all buffers that are in an epoll file."""

    def __init__(self, system: FakeSystem) -> None:
        self._system = system
        self._twins: dict[OpenFile, tuple[_Twin, int]] = {}
        self._lock = threading.Lock()
        """Taken while that of the open files is held, as they go: whoever has it must not ask for that one."""
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
