"""The states of a window, and how it gets from one to the other.

What a :class:`dmasync.DmaSyncer` knows of its window is one reference: to :data:`SHUT`, or to the :class:`Grip` of
its :class:`Lane`. It lies in the slot that CPython calls when the object is finalized, so that a syncer that is
dropped needs no Python function of its own: calling SHUT does nothing, in C, and calling a Grip makes the END.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat, starmap
from typing import Any, Protocol, cast

from dmasync.access import SyncType
from dmasync.edge import sync_arguments, take_the_time
from dmasync.errors import DmaSyncError
from dmasync.interrupts import guarded
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.share import Share
from dmasync.window import Ledger, Target, warn_dropped


class Shut(Protocol):
    """The state of a window that is not open."""

    ends: tuple[()]

    def __call__(self) -> object: ...


SHUT = cast(Shut, partial(bool))
"""Called, it does nothing: it is the cheapest callable that can have attributes."""
SHUT.ends = ()

SPENT: Iterator[Any] = starmap(take_the_time, repeat(()))
"""In place of the ``ends`` of a grip that was called: its windows have to look whether theirs was the END made."""


class Grip:
    """The state of an open window: it holds the open file, and its END.

    Fetching from ``ends`` makes one END. All windows of a lane share it, for it has no other state, until one of
    them is dropped.
    """

    __slots__ = ("ends", "lane", "on_error", "retry", "share", "target")

    def __init__(
        self,
        share: Share,
        ends: Iterator[Any],
        target: Target,
        retry: RetryPolicy,
        on_error: OnError,
        lane: Callable[[], Lane | None],
    ) -> None:
        self.share = share
        self.ends = ends
        self.target = target
        self.retry = retry
        self.on_error: OnError = on_error
        self.lane = lane

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
        lane, ends = self.lane(), self.ends
        if lane is not None and lane.grip is self and ends is not SPENT:
            lane.grip = Grip(self.share, ends, self.target, self.retry, self.on_error, self.lane)
            if not lane.starts:  # pragma: no cover - closed by another thread meanwhile
                lane.grip = None
        self.ends = SPENT


class Lane:
    """Everything that the windows of one kind on one descriptor have in common, made once.

    ``starts`` and ``grip.ends`` are endless: fetching from them makes one START or END, in C
    (:mod:`dmasync.interrupts`). They keep no state of their own, so that any number of windows and threads use them
    at the same time.
    """

    __slots__ = ("__weakref__", "fd", "grip", "ioctl", "on_error", "retry", "starts", "sync_type")

    def __init__(
        self,
        share: Share | None,
        fd: int,
        sync_type: SyncType,
        ioctl: Callable[[int, int, Any], Any],
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> None:
        """*share* is None for a descriptor that was closed: such a lane has neither START nor END."""
        self.fd = fd
        self.sync_type = sync_type
        self.ioctl = ioctl
        self.retry = retry
        self.on_error: OnError = on_error
        self.grip: Grip | None = None
        """None once the descriptor was closed."""
        self.starts: Iterator[Any] | tuple[()] = ()
        """Empty once the descriptor was closed."""
        if share is not None:
            starts: Iterator[Any] = starmap(ioctl, repeat(sync_arguments(fd, sync_type._start)))
            ends: Iterator[Any] = starmap(ioctl, repeat(sync_arguments(fd, sync_type._end)))
            if retry.deadline is not None:
                starts = ends = starmap(take_the_time, repeat(()))
            self.grip = Grip(share, ends, Target(ioctl, fd, sync_type), retry, on_error, weakref.ref(self))
            self.starts = starts

    def ledger(self, opened: int) -> Ledger:
        """The books of a window that needs more than the short way; *opened* of its one STARTs are owed an END."""
        return Ledger((Target(self.ioctl, self.fd, self.sync_type),), self.retry, self.on_error, opened)

    def close(self) -> None:
        """No window opens any more; those that are open have their grip. Harmless when called again."""
        # In this order: whoever has seen no grip sees no START either.
        self.starts = ()
        self.grip = None
