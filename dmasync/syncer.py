"""One window of CPU access: START before, END after, whatever happens between. After libcamera's ``DmaSyncer``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from dmasync.access import SyncType
from dmasync.backend import LINUX, Backend
from dmasync.descriptor import Descriptor
from dmasync.interrupts import guarded
from dmasync.retry import DEFAULT_RETRY, RetryPolicy
from dmasync.source import descriptor_of
from dmasync.window import REQUESTS, OnError, Target, Window, check_window


class DmaSyncer(Window):
    """One window over one dma-buf, as a context manager; can be used again and again, one window at a time.

    *buffer_or_fd* is a DmaBuf, or the number of a dma-buf's file descriptor (or an object with ``fileno()``), which
    is borrowed: it must stay open as long as the syncer is used. *backend* defaults to the buffer's own, and to the
    real kernel for a bare descriptor.

    START and END are repeated as *retry* says. A hard error raises :class:`dmasync.DmaSyncError` and is logged under
    ``dmasync``; with ``on_error="log"`` it is only logged, as in libcamera, and work goes on. END runs exactly once
    for every START that succeeded, and never for one that failed. An exception in the body is never replaced by an
    error of END: that one becomes a note of it, and the end of its ``__context__`` chain.
    """

    __slots__ = ("_buffer", "_descriptor", "_ends", "_ioctl", "_starts", "_sync_type")

    def __init__(
        self,
        buffer_or_fd: Any,
        sync_type: SyncType = SyncType.READ_WRITE,
        *,
        backend: Backend | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> None:
        self._open = 0
        if (
            sync_type.__class__ is not SyncType
            or retry is not DEFAULT_RETRY
            or on_error != "raise"
            or not sync_type
        ):
            check_window(sync_type, retry, on_error)
        descriptor = descriptor_of(buffer_or_fd, backend, "buffer_or_fd")
        ioctl = descriptor.ioctl if backend is None else backend.ioctl
        self._buffer = buffer_or_fd  # kept, so that it stays open as long as somebody may START it
        self._descriptor = descriptor
        self._ioctl = ioctl
        self._on_error = on_error
        self._reserved = 0
        self._retry = retry
        self._sync_type = sync_type
        fds = descriptor.fds
        self._starts: Iterator[Any] = map(ioctl, fds, REQUESTS, sync_type._starts)
        self._ends: Iterator[Any] = map(ioctl, fds, REQUESTS, sync_type._ends)
        if retry.deadline is not None:
            # The time of the first try matters: leave the short way, which never looks at the clock, nothing to do.
            self._starts = self._ends = iter(())

    @property
    def sync_type(self) -> SyncType:
        """The access that the window brackets."""
        return self._sync_type

    def __enter__(self) -> DmaSyncer:
        descriptor = self._descriptor
        if descriptor.closed or self._open:
            if descriptor is _MOVED:
                return self
            self._refuse()
        descriptor.users += 1
        self._reserved = 1
        try:
            try:
                for _ in self._starts:
                    self._open = 1
                    self._reserved = 0
                    return self
            except OSError as refused:
                self._start_rest(refused)
            else:
                self._start_rest(None)
            return self
        except BaseException as failure:
            self._abandon(failure)
            raise

    @guarded
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._open:
                for _ in self._ends:
                    self._open = 0
                    descriptor = self._descriptor
                    descriptor.users -= 1
                    if not descriptor.users:
                        descriptor.settle()
                    return
                self._finish(None, exc)
        except BaseException as error:
            self._finish(error, exc)

    def start(self) -> None:
        """Open the window. Raises DmaSyncError where the kernel refuses for good, RuntimeError where it is open."""
        if self._open:
            self._refuse()
        try:
            self.__enter__()
        except BaseException as failure:
            self._abandon(failure)
            raise

    def end(self) -> None:
        """Close the window; does nothing where none is open. Raises what leaving the ``with`` block would raise."""
        self.__exit__(None, None, None)

    def move(self) -> DmaSyncer:
        """A new syncer that has taken over everything, the open window too. This one does nothing from now on."""
        heir = object.__new__(DmaSyncer)
        heir._open = 0
        heir._buffer = self._buffer
        heir._descriptor = self._descriptor
        heir._ioctl = self._ioctl
        heir._on_error = self._on_error
        heir._reserved = 0
        heir._retry = self._retry
        heir._sync_type = self._sync_type
        heir._starts = self._starts
        heir._ends = self._ends
        # No call in between: whatever a signal handler raises, exactly one of the two owes the END.
        heir._open = self._open
        self._open = 0
        self._descriptor = _MOVED
        self._buffer = None
        return heir

    def _targets(self) -> Sequence[Target]:
        return (Target(self._ioctl, self._descriptor, self._sync_type),)

    def _refuse(self) -> None:
        if self._open:
            raise RuntimeError(
                "the window is already open: end it first, or use a syncer of its own for each window"
            )
        raise ValueError("buffer_or_fd was closed: allocate or import it again")

    def __repr__(self) -> str:
        state = "moved" if self._descriptor is _MOVED else "open" if self._open else "shut"
        return f"<DmaSyncer fd={self._descriptor.fd} {self._sync_type.name} {state}>"


_MOVED = Descriptor(LINUX, -1, owned=False)
_MOVED.closed = True
