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
from typing import TYPE_CHECKING, Any, NamedTuple

from dmasync.access import SyncType
from dmasync.backend import LINUX
from dmasync.edge import sync_arguments, take_the_time
from dmasync.errors import DmaSyncError
from dmasync.interrupts import guarded
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.share import Share
from dmasync.window import Ledger, Target, warn_dropped


class Terms(NamedTuple):
    """What a window is opened on, and how."""

    target: Target
    retry: RetryPolicy = DEFAULT_RETRY
    on_error: OnError = "raise"

    def ledger(self, opened: int) -> Ledger:
        """The books of a window that needs more than the short way; *opened* of its one STARTs are owed an END."""
        return Ledger((self.target,), self.retry, self.on_error, opened)

    def edges(self, argument: bytearray) -> tuple[Callable[..., Any], Iterator[tuple[Any, ...]]]:
        """What a starmap calls at each fetch to make one START or END, or to say that it has made none."""
        if self.retry.deadline is None:
            return self.target.ioctl, repeat(sync_arguments(self.target.fd, argument))
        return take_the_time, repeat(())


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
        sync_type = terms.target.sync_type
        self: Grip = super().__new__(cls, *terms.edges(sync_type._end))  # type: ignore[assignment]
        self.starts = starmap(*terms.edges(sync_type._start))
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
        lane = self.lane()
        if lane is not None and lane.grip is self:
            lane.grip = Grip(self.share, self.terms, lane)
            if lane.closed:  # pragma: no cover - by another thread meanwhile
                lane.grip = NO_GRIP
        self.__class__ = SpentGrip


class SpentGrip(Grip):
    """A grip that was called: its windows have to look whether theirs was the END that was made."""

    __slots__ = ()

    __iter__: Callable[..., Any] = starmap(take_the_time, repeat(())).__iter__


if TYPE_CHECKING:

    class _Callable:
        def __init__(self, called: Callable[[], object]) -> None: ...

        def __call__(self) -> object: ...

else:
    # The cheapest callable that can have attributes.
    _Callable = staticmethod


class Lane(_Callable):
    """The state of a shut window, and what all windows of one kind on one descriptor have in common, made once.

    Called, which is what happens when a syncer that is shut is finalized, it makes a bool that nobody wants.
    """

    __slots__ = ("__weakref__", "closed", "grip", "kept", "sync_type", "terms")

    __iter__: Callable[..., Any] = ().__iter__
    """No END to fetch."""

    def __init__(self, share: Share | None, terms: Terms, kept: Any = None) -> None:
        """*share* is None for a descriptor that was closed: such a lane has no START. *kept* lives as long as it."""
        super().__init__(bool)
        self.terms = terms
        self.sync_type = terms.target.sync_type
        self.kept = kept
        self.closed = share is None
        self.grip: Grip | NoGrip = NO_GRIP if share is None else Grip(share, terms, self)
        """What a window has while it is open."""

    def close(self) -> None:
        """No window opens any more; those that are open have their grip. Harmless when called again."""
        self.closed = True
        self.grip = NO_GRIP


MOVED = Lane(None, Terms(Target(LINUX.ioctl, -1, SyncType.READ_WRITE)))
"""The lane of a window that was moved away."""
