"""Sleeping as the kernel sleeps: woken by an event, by the clock or by a signal.

The sleep is a real one, in a real system call on a real pipe, so that a signal ends it exactly where the
kernel's own sleep would end, also with ``SA_RESTART`` and in threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import select
import threading
import time
from collections.abc import Callable

from dmasync.fakes.kernel.errors import os_error
from dmasync.fakes.memory import host

_ASK_EVERY_MS = 2
_sleepers = threading.local()


def ask_for_interruptions(interrupted: Callable[[], bool] | None) -> None:
    """Whether a signal has arrived is from now on asked of *interrupted* in this thread, which sleeps for somebody
    else; None: it sleeps for itself again.
    """
    _sleepers.interrupted = interrupted


class Waker:
    """One sleeper: a pipe that whoever has news writes to. Use as a context manager; gives the pipe back."""

    def __init__(self) -> None:
        self._reader, self._writer = host.pipe()
        self._lock = threading.RLock()  # a signal handler may wake the sleeper that its thread is
        self._open = True
        self._woken = False

    def __enter__(self) -> Waker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._open = False
            host.close(self._reader)
            host.close(self._writer)

    def wake(self) -> None:
        """End the sleep; harmless when nobody sleeps any more."""
        with self._lock:
            if self._open and not self._woken:
                self._woken = True
                host.put(self._writer, b"!")

    def sleep_interruptibly(self) -> None:
        """Sleep until :meth:`wake`; OSError with EINTR where the kernel's interruptible sleep would return
        it.

        A pipe's read() sleeps as ``dma_fence_default_wait()`` does: a signal whose handler was installed
        without SA_RESTART (all of Python's are) ends it with EINTR, any other one resumes it.
        """
        interrupted = getattr(_sleepers, "interrupted", None)
        if interrupted is not None:
            poller = select.poll()
            poller.register(self._reader, select.POLLIN)
            while not poller.poll(_ASK_EVERY_MS):
                if interrupted():
                    raise os_error(errno.EINTR)
        self._drain()

    def sleep(self, timeout_ms: float | None) -> bool:
        """Sleep until :meth:`wake` (True) or for *timeout_ms* (False), as ``select.poll`` does: signals
        resume it.
        """
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        if not poller.poll(timeout_ms):
            return False
        self._drain()
        return True

    def _drain(self) -> None:
        into = ctypes.create_string_buffer(1)
        host.read(self._reader, ctypes.addressof(into), 1)
        self._woken = False


class WaitQueue:
    """Who wants to hear of a change (``wait_queue_head_t``)."""

    def __init__(self) -> None:
        self._wakers: list[Waker] = []

    def add(self, waker: Waker) -> None:
        self._wakers.append(waker)

    def remove(self, waker: Waker) -> None:
        with contextlib.suppress(ValueError):
            self._wakers.remove(waker)

    def wake_all(self) -> None:
        for waker in tuple(self._wakers):
            waker.wake()


class Deadline:
    """A time-out in ms as ``poll(2)`` takes it: None or negative never ends."""

    def __init__(self, timeout_ms: float | None) -> None:
        forever = timeout_ms is None or timeout_ms < 0
        self._end = None if timeout_ms is None or forever else time.monotonic() + timeout_ms / 1000

    def left_ms(self) -> float | None:
        """What is left of it in ms, 0 at the least; None when it never ends."""
        return None if self._end is None else max(0.0, (self._end - time.monotonic()) * 1000)
