"""The table of file descriptors."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager
from typing import Any

from dmasync.fakes.kernel.errors import bad_descriptor, os_error
from dmasync.fakes.kernel.files.file import File, PathFile

FIRST = 1 << 30
"""Far above what RLIMIT_NOFILE allows a process: no descriptor of the fake can be one of the process's
own.
"""
_LAST = (1 << 31) - 1


class Descriptors:
    """Numbers for open files.

    Numbers are given out in ascending order and used again only after all of them have been: a descriptor
    that was closed stays EBADF for the rest of any test.
    """

    def __init__(self, lock: AbstractContextManager[Any], limit: int | None) -> None:
        self.files: dict[int, File] = {}
        self.close_on_exec: set[int] = set()
        self.limit = limit
        self._lock = lock
        self._next = FIRST

    def reserve(self) -> int:
        """``get_unused_fd_flags()``: a number that nobody else gets; EMFILE at the limit."""
        with self._lock:
            if self.limit is not None and len(self.files) >= self.limit:
                raise os_error(
                    errno.EMFILE,
                    f"the fake kernel's descriptor_limit, its ulimit -n, is {self.limit}, and {len(self.files)} are "
                    "open: raise it, or look for a leak in kernel.open_fds()",
                )
            fd = self._next
            while fd in self.files:
                fd = FIRST if fd == _LAST else fd + 1
            self._next = FIRST if fd == _LAST else fd + 1
            return fd

    def install(self, fd: int, file: File, *, close_on_exec: bool) -> int:
        """``fd_install()``: let *fd*, which was reserved, be a descriptor of *file*; the caller returns at once.

        The last thing that a system call does, and nothing in it can be interrupted once the number is known: an
        exception from a signal handler comes before it, and there is no descriptor, or after the call has returned.
        """
        file.get()
        if close_on_exec:
            self.close_on_exec.add(fd)
        self.files[fd] = file
        return fd

    def add(self, file: File, *, close_on_exec: bool) -> int:
        """A new descriptor of *file*; EMFILE at the limit."""
        return self.install(self.reserve(), file, close_on_exec=close_on_exec)

    def any_file(self, fd: int) -> File:
        """The file behind *fd*, also one opened with O_PATH; EBADF."""
        file = self.files.get(fd)
        if file is None:
            raise bad_descriptor(fd)
        return file

    def file(self, fd: int) -> File:
        """The file behind *fd*; EBADF, also for one opened with O_PATH."""
        file = self.any_file(fd)
        if isinstance(file, PathFile):
            raise os_error(errno.EBADF)
        return file

    def find(self, fd: int) -> File | None:
        """``fget()``: the file behind *fd*, None where :meth:`file` would say EBADF."""
        file = self.files.get(fd)
        return None if isinstance(file, PathFile) else file

    def remove(self, fd: int) -> File:
        """Forget *fd*; its file keeps the reference, for the caller to drop."""
        with self._lock:
            file = self.any_file(fd)
            del self.files[fd]
            self.close_on_exec.discard(fd)
            return file
