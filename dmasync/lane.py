"""The states of a window, and how it gets from one to the other.

What a :class:`dmasync.DmaSyncer` knows of its window is one reference: to its :class:`Lane` while it is shut, to a
:class:`Grip` while it is open. It lies in the slot that CPython calls when the object is finalized, so that a syncer
that is dropped needs no Python function of its own: calling a lane does nothing, in C, and calling a grip makes the
END. Neither way through a window asks which state it is in: a lane has STARTs and no ENDs, a grip the reverse.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from itertools import repeat, starmap
from typing import Any

from dmasync.access import SyncType
from dmasync.backend import LINUX
from dmasync.edge import sync_arguments, take_the_time
from dmasync.errors import DmaSyncError
from dmasync.interrupts import guarded
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.share import Share
from dmasync.window import Ledger, Target, warn_dropped


class Terms:
    """What a window is opened on, and how."""

    __slots__ = ("on_error", "retry", "target")

    def __init__(self, target: Target, retry: RetryPolicy = DEFAULT_RETRY, on_error: OnError = "raise") -> None:
        self.target = target
        self.retry = retry
        self.on_error: OnError = on_error

    def ledger(self, opened: int) -> Ledger:
        """The books of a window that needs more than the short way; *opened* of its one STARTs are owed an END."""
        return Ledger((self.target,), self.retry, self.on_error, opened)


class NoGrip:
    """In place of the grip where no window can be opened: there are no STARTs."""

    __slots__ = ()

    starts: tuple[()] = ()


NO_GRIP = NoGrip()


class Grip(starmap):  # type: ignore[type-arg]  # it has none at run time
    """The state of an open window: it holds the open file, and its END.

    Fetching from it makes one END, fetching from ``starts`` one START, in C (:mod:`dmasync.interrupts`); both are
    endless. All windows of a lane share it, in any number of threads, for it has no other state, until one of them is
    dropped.
    """

    __slots__ = ("lane", "share", "starts", "terms")

    lane: weakref.ref[Lane]
    share: Share
    starts: Iterator[Any]
    terms: Terms

    grip = NO_GRIP
    """No window is opened twice."""

    def __new__(cls, share: Share, terms: Terms, lane: Lane) -> Grip:
        if terms.retry.deadline is None:
            ioctl, fd, sync_type = terms.target
            starts = starmap(ioctl, repeat(sync_arguments(fd, sync_type._start)))
            ends = super().__new__(cls, ioctl, repeat(sync_arguments(fd, sync_type._end)))
        else:
            starts = starmap(take_the_time, repeat(()))
            ends = super().__new__(cls, take_the_time, repeat(()))
        self: Grip = ends  # type: ignore[assignment]
        self.starts = starts
        self.share = share
        self.terms = terms
        self.lane = weakref.ref(lane)
        return self

    @guarded
    def __call__(self, ledger: Ledger | None = None) -> None:
        """The syncer of an open window was dropped: its END, and a ResourceWarning."""
        try:
            if ledger is None:  # only a signal gets past
                self._spend()
                ledger = self.terms.ledger(1)
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
        self.__class__ = SpentGrip
        lane = self.lane()
        if lane is not None:  # else it is finalized as well, and the next START finds out: Lane.unspent()
            lane.unspent()


class SpentGrip(Grip):
    """A grip that was called: its windows have to look whether theirs was the END that was made."""

    __slots__ = ()

    starts: Iterator[Any] = starmap(take_the_time, repeat(()))
    __iter__: Callable[..., Any] = starts.__iter__


class _Forever:
    """What every lane refers to; it is never gone."""


_FOREVER = _Forever()


class Lane(weakref.ref[_Forever]):
    """The state of a shut window, and what all windows of one kind on one descriptor have in common, made once.

    A weak reference, because that is the cheapest callable that can have attributes: called, which is what happens when
    a syncer that is shut is finalized, it says what it refers to, and nobody listens.
    """

    __slots__ = ("__weakref__", "closed", "grip", "kept", "sync_type", "terms")

    terms: Terms
    sync_type: SyncType
    kept: Any
    closed: bool
    grip: Grip | NoGrip
    """What a window has while it is open."""

    __iter__: Callable[..., Any] = ().__iter__
    """No END to fetch."""

    # Else all lanes were equal, for they refer to the same.
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    @classmethod
    def on(cls, share: Share | None, terms: Terms, kept: Any = None) -> Lane:
        """*share* is None for a descriptor that was closed: such a lane has no START. *kept* lives as long as it."""
        self = cls(_FOREVER)
        self.terms = terms
        self.sync_type = terms.target.sync_type
        self.kept = kept
        self.closed = share is None
        self.grip = NO_GRIP if share is None else Grip(share, terms, self)
        return self

    def unspent(self) -> Grip | NoGrip:
        """The grip for another window, a new one if the last was spent."""
        grip = self.grip
        if isinstance(grip, SpentGrip):
            self.grip = grip = Grip(grip.share, self.terms, self)
            if self.closed:  # pragma: no cover - by another thread meanwhile
                self.grip = grip = NO_GRIP
        return grip

    def close(self) -> None:
        """No window opens any more; those that are open have their grip. Harmless when called again."""
        self.closed = True
        self.grip = NO_GRIP


MOVED = Lane.on(None, Terms(Target(LINUX.ioctl, -1, SyncType.READ_WRITE)))
"""The lane of a window that was moved away."""
