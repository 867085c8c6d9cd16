"""The one seam between dmasync and the kernel.

Everything that reaches the kernel goes through a :class:`Backend` that arrives as an argument. A fake, a recorder
or a fault injector is another object with the same methods; nobody patches ``fcntl``, ``os`` or ``builtins``.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if sys.version_info >= (3, 12):  # pragma: no cover - not in every version
    from collections.abc import Buffer
else:
    Buffer = Any
_Mapping = TypeVar("_Mapping")


class Mapping(Protocol):
    """What :meth:`Backend.mmap` returns: a buffer, ``memoryview(mapping)``, that close() or a with block unmaps."""

    def close(self) -> None:
        """Unmap; raises BufferError while somebody still looks at the bytes."""

    def __len__(self) -> int: ...
    def __enter__(self: _Mapping) -> _Mapping: ...
    def __exit__(self, *exc_info: Any) -> None: ...

    if TYPE_CHECKING:  # what is written in C has the buffer protocol without such a method before CPython 3.12

        def __buffer__(self, flags: int, /) -> memoryview: ...


class Backend(Protocol):
    """The system calls that dmasync makes, with the kernel's own meaning.

    Each call returns what the system call returns and raises ``OSError`` with its errno. A call that raises
    anything at all (also KeyboardInterrupt) has not succeeded: a layer that runs Python code after the inner call
    must return the inner result and deliver its exception later.
    """

    def open(self, path: str, flags: int, /) -> int:
        """``open(2)``: a new file descriptor, owned by the caller."""

    def close(self, fd: int, /) -> None:
        """``close(2)``: the descriptor is gone afterwards, whatever is raised."""

    def dup(self, fd: int, /) -> int:
        """``fcntl(fd, F_DUPFD_CLOEXEC, 0)``: a new descriptor of the same file, close-on-exec, owned by the caller."""

    # A read-only property rather than a method, so that fcntl.ioctl itself can stand here without a Python frame.
    @property
    def ioctl(self) -> Callable[[int, int, Any], Any]:
        """``ioctl(2)`` as ``ioctl(fd, request, arg)``: arg is a bytearray, changed in place, or an int."""

    def memfd_create(self, name: str, flags: int, /) -> int:
        """``memfd_create(2)``: a new file descriptor, owned by the caller."""

    def ftruncate(self, fd: int, length: int, /) -> None:
        """``ftruncate(2)``; length in bytes."""

    def add_seals(self, fd: int, seals: int, /) -> None:
        """``fcntl(fd, F_ADD_SEALS, seals)``."""

    def get_seals(self, fd: int, /) -> int:
        """``fcntl(fd, F_GET_SEALS)``."""

    def mmap(self, fd: int, length: int, prot: int, flags: int, offset: int = 0, /) -> Mapping:
        """``mmap(2)``: a buffer of *length* bytes, read-only without PROT_WRITE, with close()."""

    def lseek(self, fd: int, offset: int, whence: int, /) -> int:
        """``lseek(2)``: the resulting offset in bytes; a dma-buf tells its size to (0, SEEK_END)."""

    def poll(self, fd: int, events: int, timeout_ms: int | None, /) -> int:
        """``poll(2)`` on one descriptor: the revents, 0 at the time-out; None waits for ever."""


class LinuxBackend:
    """The kernel itself. Holds no state; every instance is as good as another.

    Where the standard library has the call it stands here as it is: no Python frame is added, and so no place where
    an exception from a signal handler could hide that the call succeeded.
    """

    ioctl = staticmethod(fcntl.ioctl)
    open = staticmethod(os.open)
    close = staticmethod(os.close)
    dup = staticmethod(os.dup)  # F_DUPFD_CLOEXEC, as PEP 446 has it
    memfd_create = staticmethod(os.memfd_create)
    ftruncate = staticmethod(os.ftruncate)
    lseek = staticmethod(os.lseek)

    def add_seals(self, fd: int, seals: int, /) -> None:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)

    def get_seals(self, fd: int, /) -> int:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS)

    def mmap(self, fd: int, length: int, prot: int, flags: int, offset: int = 0, /) -> mmap.mmap:
        # To mmap.mmap -1 is an anonymous mapping and 0 bytes are the whole file; to mmap(2) they are mistakes.
        if fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if length == 0:
            fcntl.fcntl(fd, fcntl.F_GETOWN)  # the kernel looks at the descriptor first, and one of O_PATH is none
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if sys.version_info >= (3, 13):  # pragma: no cover - not in every version
            # Without trackfd=False the mapping would hold a duplicate of the descriptor until it is closed.
            return mmap.mmap(fd, length, flags, prot, offset=offset, trackfd=False)
        return mmap.mmap(fd, length, flags, prot, offset=offset)

    def poll(self, fd: int, events: int, timeout_ms: int | None, /) -> int:
        poller = select.poll()
        poller.register(fd, events)
        ready = poller.poll(timeout_ms)
        return ready[0][1] if ready else 0


LINUX: Backend = LinuxBackend()
"""The backend of everything that was not given another."""

_MOST_LAYERS = 16


def kernel_beneath(backend: object) -> object:
    """Whose descriptors *backend* speaks of: what lies below all its layers, LINUX for the kernel itself.

    A layer around another backend may call that ``inner``; one that does not stands for a kernel of its own.
    """
    for _ in range(_MOST_LAYERS):  # a mock has every attribute, without end
        if isinstance(backend, LinuxBackend):
            return LINUX
        below = getattr(backend, "inner", None)
        if below is None:
            break
        backend = below
    return backend


def retried(call: Callable[..., Any], *arguments: Any) -> Any:
    """``call(*arguments)``, again for as long as a signal interrupts it (EINTR)."""
    while True:
        try:
            return call(*arguments)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
