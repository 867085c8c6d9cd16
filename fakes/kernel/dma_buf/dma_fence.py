"""Fences: events that happen once (``drivers/dma-buf/dma-fence.c``, ``dma-fence-array.c``,
``dma-fence-unwrap.c``).
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from dmasync.fakes.kernel.waiting import Waker

_LOCK = threading.RLock()
"""Guards the state of all fences. Re-entrant: a signal handler may signal a fence while its thread holds
it.
"""

_contexts = itertools.count(1)

Callback = Callable[[], None]


class Fence(Protocol):
    """``struct dma_fence`` as its users see it."""

    context: int
    seqno: int
    driver_name: str
    timeline_name: str

    @property
    def signaled_flag(self) -> bool:
        """``DMA_FENCE_FLAG_SIGNALED_BIT``: that it has signalled is known, without looking anew."""

    @property
    def timestamp_ns(self) -> int:
        """CLOCK_MONOTONIC ns of the signal, 0 before it."""

    def is_signaled(self) -> bool:
        """``dma_fence_is_signaled()``."""

    def status(self) -> int:
        """``dma_fence_get_status()``: 0 not yet, 1 signalled, a negative errno when it went wrong."""

    def add_callback(self, callback: Callback) -> bool:
        """Have *callback* called once at the signal; False, and no call, when that has been."""

    def remove_callback(self, callback: Callback) -> None:
        """Forget *callback* if it is still waiting."""


class FakeFence:
    """Work of a device that has not finished yet; :meth:`signal` finishes it.

    *context* and *seqno* place it on a time line, of which the kernel keeps only the latest; each fence is
    alone on one of its own unless told otherwise. The names are those that a sync file reports, vgem's unless
    told otherwise.
    """

    def __init__(
        self,
        driver_name: str = "vgem",
        timeline_name: str = "unbound",
        *,
        context: int | None = None,
        seqno: int = 1,
    ) -> None:
        self.driver_name = driver_name
        self.timeline_name = timeline_name
        self.context = next(_contexts) if context is None else context
        self.seqno = seqno
        self._signaled = False
        self._error = 0
        self._timestamp_ns = 0
        self._callbacks: list[Callback] = []

    def signal(self, error: int = 0, *, timestamp_ns: int | None = None) -> bool:
        """Wake all who wait; False when it had been signalled before.

        *error* is the errno (a positive number) that the work ended with, 0 for success.
        """
        with _LOCK:
            if self._signaled:
                return False
            self._signaled = True
            self._error = error
            self._timestamp_ns = time.monotonic_ns() if timestamp_ns is None else timestamp_ns
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        return True

    @property
    def timestamp_ns(self) -> int:
        """CLOCK_MONOTONIC ns of the signal, 0 before it."""
        return self._timestamp_ns

    @property
    def signaled_flag(self) -> bool:
        """Whether :meth:`signal` has been called."""
        return self._signaled

    def is_signaled(self) -> bool:
        """Whether :meth:`signal` has been called."""
        return self._signaled

    def status(self) -> int:
        """0 not yet, 1 signalled, a negative errno when it went wrong."""
        return (-self._error or 1) if self._signaled else 0

    def add_callback(self, callback: Callback) -> bool:
        """Have *callback* called once at the signal; False, and no call, when that has been."""
        with _LOCK:
            if self._signaled:
                return False
            self._callbacks.append(callback)
            return True

    def remove_callback(self, callback: Callback) -> None:
        """Forget *callback* if it is still waiting."""
        with _LOCK:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def __repr__(self) -> str:
        state = "signalled" if self._signaled else "pending"
        timeline = f"{self.driver_name}-{self.timeline_name}{self.context}-{self.seqno}"
        return f"<{type(self).__name__} {timeline} {state}>"


class FenceArray(FakeFence):
    """All of several fences; what a buffer with more than one exports."""

    def __init__(self, fences: Iterable[Fence]) -> None:
        super().__init__("dma_fence_array", "unbound")
        self.fences = tuple(fences)
        self._enabled = False
        self._left = len(self.fences)
        self._pending_error = 0

    def is_signaled(self) -> bool:
        """Looks at the members itself until somebody waits; then the members tell it."""
        if not self._signaled and (
            self._left <= 0 if self._enabled else all(fence.is_signaled() for fence in self.fences)
        ):
            self.signal(self._pending_error)
        return self._signaled

    def status(self) -> int:
        """A member's error is seen only when it came to an array that somebody had waited for."""
        self.is_signaled()
        return super().status()

    def add_callback(self, callback: Callback) -> bool:
        """Have *callback* called once at the signal; False, and no call, when that has been."""
        with _LOCK:
            self._enable()
            return super().add_callback(callback)

    def _enable(self) -> None:
        if self._enabled or self._signaled:
            return
        self._enabled = True
        for fence in self.fences:
            if not fence.add_callback(functools.partial(self._member_signaled, fence)):
                self._note_error(fence)
                self._left -= 1
        if self._left <= 0:
            self.signal(self._pending_error)

    def _member_signaled(self, fence: Fence) -> None:
        with _LOCK:
            self._note_error(fence)
            self._left -= 1
            last = self._left <= 0
        if last:
            self.signal(self._pending_error)

    def _note_error(self, fence: Fence) -> None:
        status = fence.status()
        if status < 0 and not self._pending_error:
            self._pending_error = -status


def signaled_stub(timestamp_ns: int | None = None) -> FakeFence:
    """A fence that has been signalled already: what stands for "nothing to wait for"."""
    fence = FakeFence("stub", "stub", context=0, seqno=0)
    fence.signal(timestamp_ns=timestamp_ns)
    return fence


def names(fence: Fence, *, detached: bool) -> tuple[str, str]:
    """``dma_fence_driver_name()``, ``dma_fence_timeline_name()``; *detached*: a signalled one has none of its own."""
    if detached and fence.signaled_flag:
        return "detached-driver", "signaled-timeline"
    return fence.driver_name, fence.timeline_name


def unwrapped(fence: Fence) -> Iterator[Fence]:
    """The fences that *fence* is made of."""
    if isinstance(fence, FenceArray):
        yield from fence.fences
    else:
        yield fence


def merged(*heads: Fence) -> Fence:
    """``dma_fence_unwrap_merge()``: what is pending of *heads*, the latest of each context."""
    members = [fence for head in heads for fence in unwrapped(head)]
    pending = [fence for fence in members if not fence.is_signaled()]
    if not pending:
        return signaled_stub(max((fence.timestamp_ns for fence in members), default=0))
    latest: list[Fence] = []
    for fence in sorted(pending, key=lambda fence: (fence.context, -fence.seqno)):
        if not latest or latest[-1].context != fence.context:
            latest.append(fence)
    return latest[0] if len(latest) == 1 else FenceArray(latest)


def wait_interruptibly(fence: Fence) -> None:
    """``dma_fence_wait(intr=true)``: return at the signal; OSError with EINTR when a signal handler ran
    first.
    """
    with Waker() as waker:
        if not fence.add_callback(waker.wake):
            return
        try:
            while not fence.is_signaled():
                waker.sleep_interruptibly()
        finally:
            fence.remove_callback(waker.wake)
