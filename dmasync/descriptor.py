"""One open file descriptor of a dma-buf, and what windows share of it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from dmasync.access import BY_LANE, SyncType
from dmasync.backend import Backend
from dmasync.edge import ioctl_of
from dmasync.interrupts import guarded
from dmasync.lane import Lane, Terms
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy
from dmasync.share import ALONE, Share
from dmasync.window import Target

Referent = TypeVar("Referent")

_MOST_RECENT = 16


class Group(Protocol):
    """What wants to know when one of its descriptors is closed."""

    def _buffer_closed(self) -> None: ...


class Descriptor:
    """A file descriptor with its backend; owned where :meth:`Acquired.give` made it so, else borrowed."""

    __slots__ = ("_closing", "_groups", "_others", "_recent", "backend", "fd", "ioctl", "lanes", "share")

    def __init__(self, backend: Backend, fd: int) -> None:
        self.backend = backend
        self.fd = fd
        self.ioctl = ioctl_of(backend)
        self.share: Share | None = Share(backend, fd)
        self.lanes: list[Lane] = []
        """By the access's ``_lane``; empty until one of them is asked for, and from close() on."""
        self._recent: dict[tuple[int, int, OnError], Lane] = {}
        """Lanes with a policy of their own: making one costs more than a window."""
        # Not WeakSets: going through one of those fails while another thread adds to it.
        self._others: set[weakref.ref[Lane]] = set()
        self._groups: set[weakref.ref[Any]] = set()
        self._closing = False

    @property
    def closed(self) -> bool:
        """Whether the owner has let go; windows that are open go on to their END, no new one opens."""
        return self.share is None

    def own(self) -> None:
        """Close the number some day: it came from the caller, who has given it away."""
        if self.share is not None:
            self.share.owned = True

    def lane(
        self,
        sync_type: SyncType,
        backend: Backend | None,
        retry: RetryPolicy,
        on_error: OnError,
        kept: Any = None,
    ) -> Lane:
        """The lane for *sync_type*, another where anything else is out of the ordinary; *kept* lives with it."""
        if backend is not None or kept is not None:
            return self._another(sync_type, self.ioctl if backend is None else ioctl_of(backend), retry, on_error, kept)
        if retry is DEFAULT_RETRY and on_error == "raise":
            lanes = list(self.lanes)  # another thread's close() may empty it
            if not lanes:
                lanes = [Lane.on(self.share, Terms(Target(self.ioctl, self.fd, access))) for access in BY_LANE]
                self.lanes += lanes  # no call: a signal between this and the next line would hide them from close()
                if self._closing:  # pragma: no cover - a race: the close() of another thread may not have seen them
                    for lane in lanes:
                        lane.close()
            return lanes[sync_type._lane]
        # The number of a policy that the lane holds is no other's.
        key = sync_type._lane, id(retry), on_error
        known = self._recent.get(key)
        if known is None:
            if len(self._recent) >= _MOST_RECENT:
                self._recent.clear()
            known = self._recent[key] = self._another(sync_type, self.ioctl, retry, on_error)
        return known

    def _another(
        self,
        sync_type: SyncType,
        ioctl: Callable[[int, int, Any], Any],
        retry: RetryPolicy,
        on_error: OnError,
        kept: Any = None,
    ) -> Lane:
        lane = Lane.on(self.share, Terms(Target(ioctl, self.fd, sync_type), retry, on_error), kept)
        self._others.add(weakref.ref(lane, self._others.discard))
        if self._closing:
            lane.close()
        return lane

    def join(self, group: Group) -> None:
        """Tell *group* (held weakly) when this descriptor is closed."""
        self._groups.add(weakref.ref(group, self._groups.discard))
        if self._closing:
            group._buffer_closed()

    @guarded
    def close(self) -> None:
        """The owner lets go: closes the number, or leaves that to the END of the last window that is open.

        Harmless when called again.
        """
        try:
            share = self.share
            if share is None:
                return
            # Whoever makes a lane or a group puts it where it is seen here, then looks at this.
            self._closing = True
            for lane in (*self.lanes, *_living(self._others)):
                lane.close()
            # No new syncer gets past here either: DmaSyncer asks the descriptor itself where there is no lane.
            self.lanes.clear()
            self._recent.clear()
            for group in _living(self._groups):
                group._buffer_closed()
            self.share = None
        except BaseException:  # only a signal gets here: tests/unit/test_between_calls.py
            share = None  # the traceback will hold this frame, and must not keep the descriptor open
            if self.share is not None:  # pragma: no branch - else a signal on the way into a second close()
                self.close()
            raise
        if sys.getrefcount(share) == ALONE:
            # Now rather than when the reference goes, so that an error of close() reaches the caller.
            share.close()

    def abandon(self) -> None:
        """The owner is gone without a close(): syncers and groups that are left keep the number until they go too."""
        self.lanes.clear()
        self._recent.clear()
        share, self.share = self.share, None
        if share is not None and sys.getrefcount(share) == ALONE:
            share.close()

    def release(self) -> int:
        """The number, which somebody else closes from now on."""
        if self.share is not None:
            self.share.owned = False
        self.close()
        return self.fd


def _living(references: set[weakref.ref[Referent]]) -> list[Referent]:
    """What is still there; other threads may add to the set and take from it meanwhile."""
    return [found for reference in list(references) if (found := reference()) is not None]
