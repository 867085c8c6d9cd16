"""One window of CPU access: START before, END after, whatever happens between. After libcamera's ``DmaSyncer``."""

from __future__ import annotations

import gc
import sys
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from dmasync.access import SyncType
from dmasync.backend import Backend
from dmasync.interrupts import guarded
from dmasync.lane import MOVED, Grip, Lane, NoGrip, SpentGrip
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.source import BORROWED, descriptor_of
from dmasync.window import Ledger, check_window


class DmaSyncer:
    """One window over one dma-buf, as a context manager; can be used again and again, one window at a time.

    Threads that work side by side take a syncer each: a START or END of one syncer in two threads at once counts twice.

    *buffer_or_fd* is a DmaBuf, or the number of a dma-buf's file descriptor (or an object with ``fileno()``), which
    is borrowed: keep it open as long as the syncer is used. *backend* defaults to the buffer's own, and to the real
    kernel for a bare descriptor.

    START and END are repeated as *retry* says. A hard error raises :class:`dmasync.DmaSyncError` and is logged under
    ``dmasync``; with ``on_error="log"`` it is only logged, as in libcamera, and work goes on. END runs exactly once
    for every START that succeeded, and never for one that failed. An exception in the body is never replaced by an
    error of END: that one becomes a note of it, and the end of its ``__context__`` chain.
    """

    if TYPE_CHECKING:
        __slots__ = ("_lane", "_state")

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
        # The state lies where CPython looks for what it calls when the object is finalized: see dmasync.lane. A method
        # there would cost every short-lived window 300 instructions more. Below the class it gets its other name.
        __slots__ = ("__del__", "_lane")

        # The last three are keyword arguments with the defaults of the signature above; declaring them so at run time
        # costs every short-lived window 400 instructions. Where the last two are the same, neither was given: no value
        # is right for both.
        def __init__(self, buffer_or_fd, sync_type=SyncType.READ_WRITE, backend=None, retry=..., on_error=...):
            try:
                self._lane = self._state = buffer_or_fd._lanes[sync_type._lane]
                if backend is None and retry is on_error:
                    return
            except (AttributeError, LookupError, TypeError):
                pass
            if retry is on_error:
                retry, on_error = DEFAULT_RETRY, "raise"
            self._lane = self._state = _lane_of(
                buffer_or_fd,
                sync_type,
                backend,
                DEFAULT_RETRY if retry is ... else retry,
                "raise" if on_error is ... else on_error,
            )

    _lane: Lane
    _state: Lane | Grip
    """While the window is open it is held: the descriptor cannot be closed before END."""

    @property
    def active(self) -> bool:
        """Whether the window is open: START has succeeded, END has not run."""
        return self._state is not self._lane

    @property
    def sync_type(self) -> SyncType:
        """The access that the window brackets."""
        return self._lane.sync_type

    def __enter__(self) -> DmaSyncer:
        try:
            grip = self._state.grip
            for _ in grip.starts:
                self._state = grip  # type: ignore[assignment]  # what has STARTs is a grip
                return self
        except OSError:  # here and below without a name: each local variable costs every window its clearing
            try:
                self._start_slowly(grip, sys.exc_info()[1])  # type: ignore[arg-type]
                return self
            except BaseException:
                del grip  # the traceback will hold this frame, and must not keep the descriptor open
                if self._state is not self._lane:  # only a signal gets here: tests/unit/test_between_calls.py
                    self._end_slowly(None, ...)
                raise
        except BaseException:
            grip = None  # as above
            raise
        if self._lane is not MOVED:
            self._refuse()
        return self

    @guarded
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for _ in self._state:
                self._state = self._lane
                return
            if self._state is not self._lane:  # a StopIteration from below
                self._end_slowly(None, exc)
        except BaseException:
            self._end_slowly(..., exc)

    def start(self) -> None:
        """Open the window. Raises DmaSyncError where the kernel refuses for good, RuntimeError where it is open."""
        if self._state is not self._lane:
            self._refuse()
        try:
            self.__enter__()
        except BaseException as failure:
            if self._state is not self._lane:  # only a signal gets here: tests/unit/test_between_calls.py
                self._end_slowly(None, failure)
            raise

    def end(self) -> None:
        """Close the window; does nothing where none is open. Raises what leaving the ``with`` block would raise."""
        self.__exit__(None, None, None)

    def move(self) -> DmaSyncer:
        """A new syncer that has taken over everything, the open window too. This one does nothing from now on."""
        heir = object.__new__(DmaSyncer)
        if self._over():
            self._state = self._lane
        heir._lane = self._lane
        # No call in between: whatever a signal handler raises, exactly one of the two owes the END.
        heir._state = self._state
        self._state = MOVED
        self._lane = MOVED
        return heir

    def _start_slowly(self, grip: Grip, refused: OSError) -> None:
        """START after the kernel has *refused* the first try; raises where it refuses for good."""
        ledger = grip.terms.ledger(0)
        try:
            if isinstance(grip, SpentGrip):
                another = self._lane.unspent()
                if isinstance(another, NoGrip):  # pragma: no cover - closed by another thread meanwhile
                    self._refuse()
                grip = another
                del another
            ledger.start_rest(refused)
            if ledger.opened:
                self._state = grip
        except BaseException as failure:
            del grip  # the traceback will hold this frame, and must not keep the descriptor open
            if ledger.opened:  # only a signal gets here: tests/unit/test_between_calls.py
                self._state = self._lane
                ledger.finish(None, failure)
            raise

    @guarded
    def _end_slowly(
        self,
        surprise: BaseException | EllipsisType | None,
        body: BaseException | EllipsisType | None,
        ledger: Ledger | None = None,
    ) -> None:
        """END with all that can go wrong; raises what there is to raise. An ellipsis: what is being handled."""
        try:
            if surprise is ...:
                surprise = sys.exc_info()[1]
            if body is ...:
                body = sys.exc_info()[1]
            if ledger is None:  # only a signal gets past
                ledger = self._lane.terms.ledger(0 if self._over() else 1)
            ledger.finish(surprise, body)
            self._state = self._lane
        except BaseException as error:
            if ledger is None or ledger.opened:  # only a signal gets here: tests/unit/test_between_calls.py
                return self._end_slowly(error, body, ledger)
            self._state = self._lane
            raise
        return None

    def _over(self) -> bool:
        """Whether there is no END to make, because no window is open or because it was made when this was dropped."""
        return self._state is self._lane or (isinstance(self._state, SpentGrip) and gc.is_finalized(self))

    def _refuse(self) -> NoReturn:
        if self.active:
            raise RuntimeError("the window is already open: end it first, or use a syncer of its own for each window")
        raise ValueError("buffer_or_fd was closed: allocate or import it again")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a window cannot be copied or pickled, its END would run twice: use move()")

    def __repr__(self) -> str:
        state = "moved" if self._lane is MOVED else "open" if self.active else "shut"
        return f"<{type(self).__name__} fd={self._lane.terms.target.fd} {self.sync_type.name} {state}>"


if not TYPE_CHECKING:
    DmaSyncer._state = DmaSyncer.__dict__["__del__"]


def _lane_of(source: Any, sync_type: Any, backend: Backend | None, retry: RetryPolicy, on_error: OnError) -> Lane:
    """The lane for one kind of window on *source*; refuses what is no source, or what no window can work with."""
    if type(source) is int and backend is None and retry is DEFAULT_RETRY and on_error == "raise":
        try:
            known: Lane = BORROWED[source].lanes[sync_type._lane]
            return known
        except (LookupError, AttributeError):
            pass
    check_window(sync_type, retry, on_error)
    descriptor = descriptor_of(source, backend, "buffer_or_fd")
    # A number is its owner's; an object that has one in it would close that when nobody held it any more.
    own = type(source) is int or getattr(source, "_descriptor", None) is descriptor
    kept = None if own else source
    return descriptor.lane(sync_type, backend, retry, on_error, kept)
