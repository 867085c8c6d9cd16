"""What dmasync raises, split by what the caller should do next. All are OSErrors that carry an errno."""

from __future__ import annotations

import errno as _errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmasync.access import Step


class DmaSyncError(OSError):
    """The kernel refused a START or END.

    After START: no window is open, nothing is to be ended. After END: the window is over, whether the device
    sees what the CPU wrote is unknown. ``fd`` is the descriptor, ``flags`` are the bits of ``struct dma_buf_sync``,
    ``step`` START or END, ``attempts`` how often it was tried (this one included).
    """

    def __init__(self, errno: int, fd: int, flags: int, step: Step, attempts: int, *, reason: str = "") -> None:
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(
            errno,
            f"{step.name} of dma-buf fd {fd} with flags {flags:#x} failed after {tries}: "
            f"{reason or os.strerror(errno)}",
        )
        self.fd = fd
        self.flags = flags
        self.step = step
        self.attempts = attempts
        self._reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.errno, self.fd, self.flags, self.step, self.attempts, self._reason)


class DmaSyncTimeout(DmaSyncError, TimeoutError):  # noqa: N818 - subprocess and asyncio call theirs so, too
    """The policy's deadline passed, or its wait for fences; errno is ETIMEDOUT.

    After a deadline the last refusal is the ``__cause__``. After a wait there were no attempts: ``attempts`` is 0.
    """


class AllocationError(OSError):
    """A provider was found but did not give the buffer; nothing of it is left. The kernel's error is the cause."""


class NoProviderError(OSError):
    """No node that the allocator may use could be opened.

    The message names each node tried, what the kernel said and what to do; ``tried`` holds (path, errno) pairs.
    errno is EACCES when a node is there but may not be opened, else ENOENT or what the last node said.
    """

    def __init__(self, errno: int, message: str, tried: tuple[tuple[str, int], ...] = ()) -> None:
        super().__init__(errno, message)
        self.tried = tried

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.errno, self.strerror, self.tried)


def _rebuild(
    cls: type[DmaSyncError], errno: int | None, fd: int, flags: int, step: Step, attempts: int, reason: str
) -> DmaSyncError:
    return cls(errno or _errno.EIO, fd, flags, step, attempts, reason=reason)
