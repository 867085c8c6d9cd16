"""Sync files: the fences of a dma-buf as a file descriptor (``linux/sync_file.h``)."""

from __future__ import annotations

import errno
import math
import os
import select
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from dmasync import uapi
from dmasync.arguments import file_number
from dmasync.backend import LINUX, Backend
from dmasync.core import File
from dmasync.owners import check_free, forget_owner, note_owner

_FOR_EVER = 1e9
"""Seconds, thirty years: a longer time-out is none, and no arithmetic on it can overflow."""


class SyncFile:
    """Owns the descriptor of a sync file; a context manager that closes it.

    ``SyncFile(fd)`` takes *fd* over; TypeError or ValueError if it cannot be a descriptor, or another object closes it.
    """

    def __init__(self, fd: int, *, backend: Backend | None = None) -> None:
        fd = file_number(fd, "fd")
        backend = LINUX if backend is None else backend
        check_free(fd, backend)
        self._file = File(fd, backend, True)
        note_owner(self, fd, backend)

    @classmethod
    def _of(cls, file: File) -> SyncFile:
        sync_file = cls.__new__(cls)
        sync_file._file = file
        note_owner(sync_file, file.fd, file.backend)
        return sync_file

    _process: int
    _let_go = False
    """Whether close() or release() was called."""

    def fileno(self) -> int:
        """The descriptor's number, which stays this object's. Raises ValueError after close()."""
        if self._file.closed:
            raise ValueError("the SyncFile was closed: export it again")
        return self._file.fd

    @property
    def closed(self) -> bool:
        return self._file.closed

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every fence in the file has signalled; *timeout* in seconds, None for ever, 0 to ask only.

        True when they have, False when the time was over first. A fence that signalled an error (a job that failed)
        counts as signalled and raises OSError with its errno.
        """
        fd = self.fileno()
        if timeout is not None:
            if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
                raise TypeError(f"timeout must be seconds or None, not {timeout!r}")
            if not timeout >= 0:
                raise ValueError(f"timeout must not be negative, it is {timeout} seconds")
        until = None if timeout is None or timeout > _FOR_EVER else time.monotonic() + timeout
        while True:
            left = None if until is None else min(max(0, math.ceil((until - time.monotonic()) * 1000)), 0x7FFFFFFF)
            try:
                ready = self._file.backend.poll(fd, select.POLLIN, left)
            except OSError as error:
                if error.errno != errno.EINTR:
                    raise
                continue
            if ready & select.POLLIN:
                break
            if ready:
                raise OSError(errno.EBADF, "the SyncFile's descriptor was closed by somebody else")
            if until is not None and time.monotonic() >= until:
                return False
        info = uapi.sync_file_info.pack(b"", 0, 0, 0, 0, 0)
        self._file.ioctl(fd, uapi.SYNC_IOC_FILE_INFO, info)
        status = uapi.sync_file_info.get(info, "status")
        if status < 0:
            raise OSError(-status, f"a fence of the sync file failed: {os.strerror(-status)}")
        return True

    def release(self) -> int:
        """The descriptor's number, which the caller has to close from now on."""
        self.fileno()
        self._let_go = True
        forget_owner(self)
        return self._file.release()

    def close(self) -> None:
        """Close the descriptor; harmless when called again."""
        self._let_go = True
        self._file.close()

    def __enter__(self) -> SyncFile:
        self.fileno()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        warn_unclosed(self, self.close)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SyncFile cannot be copied or pickled, both would close its descriptor")

    def __repr__(self) -> str:
        return f"<SyncFile {'closed' if self.closed else f'fd={self._file.fd}'}>"


def warn_unclosed(owner: Any, tidy_up: Callable[[], object]) -> None:
    """For ``__del__`` of an owner of a File: *tidy_up* what was dropped without close(), and say so as files do."""
    # Not file.closed: where both are garbage of one cycle, the File may have been finalized first.
    if owner._let_go or not hasattr(owner, "_file"):
        return
    name = repr(owner)
    tidy_up()
    if getattr(owner, "_process", None) != os.getpid():
        return  # in a child of a fork: this was its copy, the parent's is the parent's to close
    warnings.warn(f"unclosed {name}: close it, or use it in a with block", ResourceWarning, stacklevel=3, source=owner)
