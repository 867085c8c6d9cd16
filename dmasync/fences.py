"""Waits for a buffer's fences before START: a START sleeps in the kernel until they have signalled, come what may."""

from __future__ import annotations

import errno
import select
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import TYPE_CHECKING, Any

from dmasync import uapi
from dmasync.access import Step
from dmasync.backend import Backend
from dmasync.errors import DmaSyncTimeout

if TYPE_CHECKING:
    from dmasync.core import File
    from dmasync.retry import RetryPolicy

_LONGEST_POLL = 0x7FFFFFFF / 1000


def after_the_fences(
    files: Sequence[File], backend: Backend | None, policy: RetryPolicy
) -> Callable[[int, int, Any], Any]:
    """The ioctl of a window over *files*, which before a START polls for as long as *policy* says.

    *backend*, if there is one, is asked in place of each file's own.
    """
    ways = {file.fd: (file.ioctl, file.backend) if backend is None else (backend.ioctl, backend) for file in files}

    def ioctl(fd: int, request: int, argument: Any) -> Any:
        make, asked = ways[fd]
        flags = uapi.dma_buf_sync.get(argument, "flags")
        if not flags & uapi.DMA_BUF_SYNC_END:
            wait_for_fences(asked, fd, flags, policy)
        # One step, in C: an exception of a signal handler cannot come between the call's success and the return.
        for answer in starmap(make, ((fd, request, argument),)):
            return answer
        raise StopIteration  # the backend's own

    return ioctl


def wait_for_fences(backend: Backend, fd: int, flags: int, policy: RetryPolicy) -> None:
    """Return when a START with *flags* would not have to wait; DmaSyncTimeout where that is too long for *policy*."""
    assert policy.wait is not None  # noqa: S101 - for the type checker
    # dma_buf_poll() waits for those that START waits for: POLLIN for writers, POLLOUT for readers as well.
    events = select.POLLOUT if flags & uapi.DMA_BUF_SYNC_WRITE else select.POLLIN
    until = policy.clock() + policy.wait
    while True:
        left = min(max(0.0, until - policy.clock()), _LONGEST_POLL)
        try:
            if backend.poll(fd, events, -int(-left * 1000 // 1)):
                return  # also for what is no error of poll's: START says what it is
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
        if policy.clock() >= until:
            reason = f"a fence had not signalled after {policy.wait} s: the device is still at work"
            raise DmaSyncTimeout(errno.ETIMEDOUT, fd, flags, Step.START, 0, reason=reason)
