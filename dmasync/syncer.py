"""One window of CPU access: START before, END after, whatever happens between. After libcamera's ``DmaSyncer``."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from dmasync.access import SyncType
from dmasync.backend import LINUX, Backend
from dmasync.descriptor import Descriptor, Grip, Lane
from dmasync.errors import DmaSyncError
from dmasync.interrupts import guarded
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.source import descriptor_of
from dmasync.window import Ledger, Target, check_window, warn_dropped

_RAISE: OnError = "raise"


class DmaSyncer:
    """One window over one dma-buf, as a context manager; can be used again and again, one window at a time.

    *buffer_or_fd* is a DmaBuf, or the number of a dma-buf's file descriptor (or an object with ``fileno()``), which
    is borrowed: keep it open as long as the syncer is used. *backend* defaults to the buffer's own, and to the real
    kernel for a bare descriptor.

    START and END are repeated as *retry* says. A hard error raises :class:`dmasync.DmaSyncError` and is logged under
    ``dmasync``; with ``on_error="log"`` it is only logged, as in libcamera, and work goes on. END runs exactly once
    for every START that succeeded, and never for one that failed. An exception in the body is never replaced by an
    error of END: that one becomes a note of it, and the end of its ``__context__`` chain.
    """

    __slots__ = ("_buffer", "_lane", "_open")

    if TYPE_CHECKING:

        def __init__(
            self,
            buffer_or_fd: Any,
            sync_type: SyncType = SyncType.READ_WRITE,
            *,
            backend: Backend | None = None,
            retry: RetryPolicy = DEFAULT_RETRY,
            on_error: OnError = "raise",
        ) -> None: ...

    else:
        # The last three are keyword arguments, as the signature above says; declaring them so at run time costs every
        # short-lived window 350 instructions.
        def __init__(
            self,
            buffer_or_fd,
            sync_type=SyncType.READ_WRITE,
            backend=None,
            retry=DEFAULT_RETRY,
            on_error=_RAISE,
        ):
            self._open = None
            try:
                lane = buffer_or_fd._lanes[sync_type._lane]
            except AttributeError:
                lane = None
            if lane is None or backend is not None or retry is not DEFAULT_RETRY or on_error is not _RAISE:
                check_window(sync_type, retry, on_error)
                descriptor = descriptor_of(buffer_or_fd, backend, "buffer_or_fd")
                lane = descriptor.lane(sync_type, backend, retry, on_error)
            if lane.grip is None:
                raise ValueError("buffer_or_fd was closed: allocate or import it again")
            self._lane = lane
            self._buffer = buffer_or_fd  # kept: a buffer that nobody else holds would be closed

    _buffer: Any
    _lane: Lane
    _open: Grip | None
    """Held while the window is open: the descriptor cannot be closed before END."""

    @property
    def active(self) -> bool:
        """Whether the window is open: START has succeeded, END has not run."""
        return self._open is not None

    @property
    def sync_type(self) -> SyncType:
        """The access that the window brackets."""
        return self._lane.sync_type

    def __enter__(self) -> DmaSyncer:
        lane = self._lane
        grip = lane.grip
        if grip is None or self._open is not None:
            if lane is _MOVED:
                return self
            self._refuse()
        try:
            for _ in lane.starts:  # pragma: no branch - the iterator is endless
                self._open = grip
                break
        except OSError as refused:
            ledger = self._ledger(0)
            try:
                ledger.start_rest(refused)
                if ledger.opened:
                    self._open = grip
            except BaseException as failure:
                grip = None  # the traceback will hold this frame, and must not keep the descriptor open
                if ledger.opened:  # pragma: no cover - only a signal gets here: tests/unit/test_signals.py
                    self._open = None
                    ledger.finish(None, failure)
                raise
        return self

    @guarded
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            grip = self._open
            if grip is not None:
                for _ in grip.ends:  # pragma: no branch - the iterator is endless
                    self._open = None
                    return
        except BaseException as error:
            grip = None
            self._end_slowly(error, exc)

    def start(self) -> None:
        """Open the window. Raises DmaSyncError where the kernel refuses for good, RuntimeError where it is open."""
        if self._open is not None:
            self._refuse()
        try:
            self.__enter__()
        except BaseException as failure:
            if self._open is not None:  # pragma: no cover - only a signal gets here: tests/unit/test_signals.py
                self._end_slowly(None, failure)
            raise

    def end(self) -> None:
        """Close the window; does nothing where none is open. Raises what leaving the ``with`` block would raise."""
        self.__exit__(None, None, None)

    def move(self) -> DmaSyncer:
        """A new syncer that has taken over everything, the open window too. This one does nothing from now on."""
        heir = object.__new__(DmaSyncer)
        heir._open = None
        heir._buffer = self._buffer
        heir._lane = self._lane
        # No call in between: whatever a signal handler raises, exactly one of the two owes the END.
        heir._open = self._open
        self._open = None
        self._lane = _MOVED
        self._buffer = None
        return heir

    @guarded
    def _end_slowly(
        self, surprise: BaseException | None, body: BaseException | None, ledger: Ledger | None = None
    ) -> None:
        """END with all that can go wrong; raises what there is to raise."""
        try:
            if ledger is None:  # pragma: no branch - only a signal gets past
                ledger = self._ledger(0 if self._open is None else 1)
            ledger.finish(surprise, body)
            self._open = None
        except BaseException as error:
            if (
                ledger is None or ledger.opened
            ):  # pragma: no cover - only a signal gets here: tests/unit/test_signals.py
                return self._end_slowly(error, body, ledger)
            self._open = None
            raise
        return None

    def _ledger(self, opened: int) -> Ledger:
        lane = self._lane
        return Ledger((Target(lane.ioctl, lane.descriptor.fd, lane.sync_type),), lane.retry, lane.on_error, opened)

    def _refuse(self) -> None:
        if self._open is not None:
            raise RuntimeError("the window is already open: end it first, or use a syncer of its own for each window")
        raise ValueError("buffer_or_fd was closed: allocate or import it again")

    @guarded
    def __del__(self) -> None:
        try:
            if self._open is not None:
                self._dropped()
        except AttributeError:
            pass  # never got through __init__
        except BaseException:  # pragma: no cover - only a signal gets here: tests/unit/test_signals.py
            self._dropped()
            raise

    @guarded
    def _dropped(self) -> None:
        try:
            if self._open is not None:  # pragma: no branch - only a signal gets past
                self._end_slowly(None, None)
                warn_dropped(self)
        except DmaSyncError:
            warn_dropped(self)  # the error was logged, and nobody is there to catch it
        except AttributeError:  # pragma: no cover - only a signal gets here: tests/unit/test_signals.py
            pass  # never got through __init__
        except BaseException:
            self._dropped()
            raise

    def __repr__(self) -> str:
        state = "moved" if self._lane is _MOVED else "shut" if self._open is None else "open"
        return f"<{type(self).__name__} fd={self._lane.descriptor.fd} {self.sync_type.name} {state}>"


def _moved() -> Lane:
    nowhere = Descriptor(LINUX, -1)
    nowhere.close()
    return Lane(nowhere, SyncType.READ_WRITE, nowhere.ioctl)


_MOVED = _moved()
