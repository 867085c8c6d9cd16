"""The states of a window, and how it gets from one to the other.

What a :class:`dmasync.DmaSyncer` knows of its window is one reference: to its :class:`Lane` while it is shut, to a
:class:`Grip` while it is open. It lies in the slot that CPython calls when the object is finalized, so that a syncer
that is dropped needs no Python function of its own: calling a lane does nothing, in C, and calling a grip makes the
END. Neither way through a window asks which state it is in: a lane has STARTs and no ENDs, a grip the reverse.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat, starmap
from typing import Any

from dmasync.access import SyncType
from dmasync.backend import LINUX
from dmasync.edge import ioctl_of, sync_arguments, take_the_time
from dmasync.errors import DmaSyncError
from dmasync.interrupts import guarded
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.share import Share
from dmasync.window import Ledger, Target, warn_dropped


def _fetched(
    ioctl: Callable[[int, int, Any], Any], fd: int, argument: bytearray, retry: RetryPolicy
) -> tuple[Callable[..., Any], Iterator[tuple[Any, ...]]]:
    """What a starmap calls at each fetch to make one edge, or to say that it has made none."""
    if retry.deadline is None:
        return ioctl, repeat(sync_arguments(fd, argument))
    return take_the_time, repeat(())


class Grip(starmap):  # type: ignore[type-arg]  # it has none at run time
    """The state of an open window: it holds the open file, and its END.

    Fetching from it makes one END. All windows of a lane share it, for it has no other state, until one of them is
    dropped.
    """

    __slots__ = ("lane", "on_error", "retry", "share", "target")

    share: Share
    target: Target
    retry: RetryPolicy
    on_error: OnError
    lane: weakref.ref[Lane]

    grip = None
    starts: tuple[()] = ()

    def __new__(cls, share: Share, target: Target, retry: RetryPolicy, on_error: OnError, lane: Lane) -> Grip:
        edges = _fetched(target.ioctl, target.fd, target.sync_type._end, retry)
        self: Grip = super().__new__(cls, *edges)  # type: ignore[assignment]
        self.share = share
        self.target = target
        self.retry = retry
        self.on_error = on_error
        self.lane = weakref.ref(lane)
        return self

    @guarded
    def __call__(self, ledger: Ledger | None = None) -> None:
        """The syncer of an open window was dropped: its END, and a ResourceWarning."""
        try:
            if ledger is None:  # only a signal gets past
                self._spend()
                ledger = Ledger((self.target,), self.retry, self.on_error, 1)
            ledger.finish(None, None)
            warn_dropped("DmaSyncer")
        except DmaSyncError:
            warn_dropped("DmaSyncer")  # the error was logged, and nobody is there to catch it
        except BaseException:
            if ledger is None or ledger.opened:  # only a signal gets here: tests/unit/test_between_calls.py
                self(ledger)
            raise

    def _spend(self) -> None:
        """No window gets this grip any more, and those that have it ask whether they were dropped before they end.

        Garbage collection finalizes the objects of a cycle in any order: a generator, or an owner's ``__del__``, may
        end the window after this, and which syncer it was that was dropped nobody tells.
        """
        lane = self.lane()
        if lane is not None and lane.grip is self:
            lane.grip = Grip(self.share, self.target, self.retry, self.on_error, lane)
            if not lane.starts:  # pragma: no cover - closed by another thread meanwhile
                lane.grip = None
        self.__class__ = SpentGrip


class SpentGrip(Grip):
    """A grip that was called: its windows have to look whether theirs was the END that was made."""

    __slots__ = ()

    __iter__: Callable[..., Any] = starmap(take_the_time, repeat(())).__iter__


class Lane(partial[bool]):
    """Everything that the windows of one kind on one descriptor have in common, made once.

    Fetching from ``starts``, which is endless, makes one START, in C (:mod:`dmasync.interrupts`). It keeps no state of
    its own, so that any number of windows and threads use it at the same time.

    A partial, because that is the cheapest callable that can have attributes: called, it makes a bool.
    """

    __slots__ = ("fd", "grip", "ioctl", "kept", "on_error", "retry", "starts", "sync_type")

    __iter__: Callable[..., Any] = ().__iter__
    """No END to fetch."""

    def __new__(cls, *_: Any, **__: Any) -> Lane:
        return super().__new__(cls, bool)

    def __init__(
        self,
        share: Share | None,
        fd: int,
        sync_type: SyncType,
        ioctl: Callable[[int, int, Any], Any],
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
        kept: Any = None,
    ) -> None:
        """*share* is None for a descriptor that was closed: such a lane has no START. *kept* lives as long as it."""
        self.fd = fd
        self.sync_type = sync_type
        self.ioctl = ioctl
        self.retry = retry
        self.on_error: OnError = on_error
        self.kept = kept
        self.grip: Grip | None = None
        """None once the descriptor was closed."""
        self.starts: Iterator[Any] | tuple[()] = ()
        """Empty once the descriptor was closed."""
        if share is not None:
            self.grip = Grip(share, Target(ioctl, fd, sync_type), retry, on_error, self)
            self.starts = starmap(*_fetched(ioctl, fd, sync_type._start, retry))

    def ledger(self, opened: int) -> Ledger:
        """The books of a window that needs more than the short way; *opened* of its one STARTs are owed an END."""
        return Ledger((Target(self.ioctl, self.fd, self.sync_type),), self.retry, self.on_error, opened)

    def close(self) -> None:
        """No window opens any more; those that are open have their grip. Harmless when called again."""
        # In this order: whoever has seen no grip sees no START either.
        self.starts = ()
        self.grip = None


MOVED = Lane(None, -1, SyncType.READ_WRITE, ioctl_of(LINUX))
"""The lane of a window that was moved away."""
