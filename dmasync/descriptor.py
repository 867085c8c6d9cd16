"""One open file descriptor of a dma-buf, and what windows share of it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from itertools import repeat, starmap
from typing import Any, Protocol

from dmasync import uapi
from dmasync.access import SyncType
from dmasync.backend import Backend
from dmasync.interrupts import guarded
from dmasync.retry import DEFAULT_RETRY, OnError, RetryPolicy


class Share:
    """The right to the open file: its owner holds one reference, each open window another.

    The number is closed when the last of them lets go, so that the END of a window whose buffer was closed under it
    reaches its own file and never one that got the number next. References are what counts because they cost a
    window nothing: it has to store something to know that it is open. A share that is not ``owned`` closes nothing.
    """

    __slots__ = ("backend", "fd", "owned")

    def __init__(self, backend: Backend, fd: int) -> None:
        self.owned = False
        self.backend = backend
        self.fd = fd

    @guarded
    def close(self) -> None:
        """Close the number, if it is owned and was not closed before."""
        try:
            if self.owned:
                closing = map(self.backend.close, (self.fd,))
                # Forgotten first: whatever close() raises, the number may be another file's by now.
                self.owned = False
                for _ in closing:  # pragma: no branch - it yields once
                    break
        except BaseException:
            if self.owned:  # pragma: no cover - only a signal gets here: tests/unit/test_signals.py
                self.close()
            raise

    @guarded
    def __del__(self) -> None:
        try:
            self.close()
        except AttributeError:
            pass  # never got through __init__
        except BaseException:
            self.close()
            raise


class Grip:
    """What an open window holds: the open file, and its END."""

    __slots__ = ("ends", "share")

    def __init__(self, share: Share, ends: Iterator[Any]) -> None:
        self.share = share
        self.ends = ends


class Lane:
    """Everything that the windows of one kind on one descriptor have in common, made once.

    ``starts`` and ``grip.ends`` are endless: fetching from them makes one START or END, in C
    (:mod:`dmasync.interrupts`). They keep no state of their own, so that any number of windows and threads use them
    at the same time.
    """

    __slots__ = ("__weakref__", "descriptor", "grip", "ioctl", "on_error", "retry", "starts", "sync_type")

    def __init__(
        self,
        descriptor: Descriptor,
        sync_type: SyncType,
        ioctl: Callable[[int, int, Any], Any],
        retry: RetryPolicy = DEFAULT_RETRY,
        on_error: OnError = "raise",
    ) -> None:
        self.descriptor = descriptor
        self.sync_type = sync_type
        self.ioctl = ioctl
        self.retry = retry
        self.on_error: OnError = on_error
        start = sync_arguments(descriptor.fd, sync_type._start)
        end = sync_arguments(descriptor.fd, sync_type._end)
        self.starts: Iterator[Any] = starmap(ioctl, repeat(start))
        ends: Iterator[Any] = starmap(ioctl, repeat(end))
        if retry.deadline is not None:
            # The time of each first try matters: the short way, which never looks at the clock, must not succeed.
            self.starts = ends = starmap(_take_the_time, repeat(()))
        self.grip = None if descriptor.share is None else Grip(descriptor.share, ends)
        """None once the descriptor was closed."""


class Untried(OSError):  # noqa: N818 - never raised to a caller
    """In place of a refusal: the edge has not been tried yet."""


def _take_the_time() -> None:
    raise Untried


class Group(Protocol):
    """What wants to know when one of its descriptors is closed."""

    def _buffer_closed(self, share: Share) -> None: ...


class Descriptor:
    """A file descriptor with its backend; owned where :meth:`Acquired.give` made it so, else borrowed."""

    __slots__ = ("_groups", "_others", "backend", "fd", "ioctl", "lanes", "share")

    def __init__(self, backend: Backend, fd: int) -> None:
        self.backend = backend
        self.fd = fd
        self.ioctl = ioctl_of(backend)
        self.share: Share | None = Share(backend, fd)
        self.lanes: list[Lane | None] = [None, None, None, None]
        """By the bits of the access, made when first asked for."""
        self._others: weakref.WeakSet[Lane] | None = None
        self._groups: weakref.WeakSet[Any] | None = None

    @property
    def closed(self) -> bool:
        """Whether the owner has let go; windows that are open go on to their END, no new one opens."""
        return self.share is None

    def own(self) -> None:
        """Close the number some day: it came from the caller, who has given it away."""
        if self.share is not None:
            self.share.owned = True

    def lane(self, sync_type: SyncType, backend: Backend | None, retry: RetryPolicy, on_error: OnError) -> Lane:
        """The lane for *sync_type*, a private one where anything else is out of the ordinary."""
        if backend is None and retry is DEFAULT_RETRY and on_error == "raise":
            lane = self.lanes[sync_type._lane]
            if lane is None:
                lane = self.lanes[sync_type._lane] = Lane(self, sync_type, self.ioctl)
            return lane
        ioctl = self.ioctl if backend is None else ioctl_of(backend)
        lane = Lane(self, sync_type, ioctl, retry, on_error)
        if self._others is None:
            self._others = weakref.WeakSet()
        self._others.add(lane)
        return lane

    def join(self, group: Group) -> None:
        """Tell *group* (held weakly) when this descriptor is closed."""
        if self._groups is None:
            self._groups = weakref.WeakSet()
        self._groups.add(group)

    @guarded
    def close(self) -> None:
        """The owner lets go: closes the number, or leaves that to the END of the last window that is open.

        Harmless when called again.
        """
        try:
            share = self.share
            if share is None:
                return
            for lane in (*self.lanes, *(self._others or ())):
                if lane is not None:
                    lane.grip = None
            for group in self._groups or ():
                group._buffer_closed(share)
            self.share = None
        except BaseException:  # pragma: no cover - only a signal gets here: tests/unit/test_signals.py
            share = None  # the traceback will hold this frame, and must not keep the descriptor open
            if self.share is not None:
                self.close()
            raise
        if sys.getrefcount(share) == _ALONE:
            # Now rather than when the reference goes, so that an error of close() reaches the caller.
            share.close()

    def release(self) -> int:
        """The number, which somebody else closes from now on."""
        if self.share is not None:
            self.share.owned = False
        self.close()
        return self.fd


def ioctl_of(backend: Backend) -> Callable[[int, int, Any], Any]:
    """The backend's ``ioctl``; TypeError for what is no backend."""
    ioctl = getattr(backend, "ioctl", None)
    if not callable(ioctl):
        raise TypeError(f"backend must have the methods of dmasync.Backend, {backend!r} has no ioctl")
    return ioctl  # type: ignore[no-any-return]  # callable() says no more than that


def sync_arguments(fd: int, argument: bytearray) -> tuple[int, int, bytearray]:
    """What ``ioctl`` takes for one edge."""
    return fd, uapi.DMA_BUF_IOCTL_SYNC, argument


def _references_of_a_local() -> int:
    local = object()
    return sys.getrefcount(local)


_ALONE = _references_of_a_local()
"""What getrefcount says of an object that one local variable holds."""
