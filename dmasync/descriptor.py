"""One open file descriptor that windows may outlive the owner's wish to close."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

from dmasync.backend import Backend
from dmasync.interrupts import guarded


class Descriptor:
    """A file descriptor with its backend and the number of its users.

    The owner is one user, each open window another: the number is closed when the last has gone, so that the END
    of a window whose buffer was closed under it reaches its own file and never one that got the number next.
    A borrowed descriptor (``owned=False``) is never closed.
    """

    __slots__ = ("backend", "closed", "fd", "fds", "ioctl", "owned", "users")

    def __init__(self, backend: Backend, fd: int, *, owned: bool = True) -> None:
        self.backend = backend
        self.fd = fd
        self.users = 1
        self.closed = False
        """Whether the owner has let go; windows that are open go on to their END, no new one opens."""
        self.owned = owned
        # Prepared for the C loops of dmasync.window: an endless iterator over one number, shared by all windows.
        self.fds: Iterator[int] = repeat(fd)
        self.ioctl: Callable[[int, int, Any], Any] = backend.ioctl

    def close(self) -> None:
        """The owner lets go; harmless when called again."""
        if not self.closed:
            self.closed = True
            self.users -= 1
        self.settle()

    @guarded
    def settle(self) -> None:
        """Close the file if nobody uses it any more; harmless otherwise, and when called again."""
        try:
            if not self.users and self.owned:
                closing = map(self.backend.close, (self.fd,))
                # Forgotten first: whatever close() raises, the number may be another file's by now.
                self.owned = False
                for _ in closing:
                    break
        except BaseException:
            if self.owned:
                self.settle()
            raise

    def release(self) -> int:
        """The number, which somebody else closes from now on."""
        self.owned = False
        self.close()
        return self.fd
