"""When a refused START or END is tried again, how soon, and when to give up."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from dmasync.access import Step
from dmasync.errors import DmaSyncError, DmaSyncTimeout

_SPINS = 16
_FIRST_PAUSE = 10e-6
_LONGEST_PAUSE = 1e-3


def default_backoff(code: int, attempts: int) -> float:
    """Seconds to wait after the *attempts*-th refusal with errno *code*.

    EINTR is over as soon as it is reported: try at once. EAGAIN means that somebody else is busy: try at once
    a few times, then leave the core to them, twice as long each time, up to a millisecond.
    """
    if code != errno.EAGAIN or attempts <= _SPINS:
        return 0.0
    doublings = min(attempts - _SPINS - 1, 7)
    return min(_FIRST_PAUSE * 2.0**doublings, _LONGEST_PAUSE)


@dataclass(frozen=True)
class RetryPolicy:
    """How one edge of a window is repeated; the default repeats EINTR and EAGAIN for ever, as libcamera does.

    *errnos* are repeated, every other errno is a hard error. *max_attempts* counts the first try; when it is used
    up the last refusal is a hard error. *deadline*, in seconds from the first try, raises DmaSyncTimeout; it is
    looked at between attempts and cuts no system call short. *backoff* maps (errno, attempts so far) to seconds.
    *clock* and *sleep* are the time that is used.
    """

    errnos: frozenset[int] = frozenset({errno.EINTR, errno.EAGAIN})
    max_attempts: int | None = None
    deadline: float | None = None
    backoff: Callable[[int, int], float] = default_backoff
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        errnos: object = self.errnos
        if (
            isinstance(errnos, (str, bytes))
            or not isinstance(errnos, Iterable)
            or not all(isinstance(code, int) for code in errnos)
        ):
            raise TypeError(f"errnos must be a set of errno numbers, not {self.errnos!r}")
        object.__setattr__(self, "errnos", frozenset(self.errnos))
        if self.max_attempts is not None:
            if not isinstance(self.max_attempts, int) or isinstance(self.max_attempts, bool):
                raise TypeError(f"max_attempts must be an int or None, not {self.max_attempts!r}")
            if self.max_attempts < 1:
                raise ValueError(f"max_attempts must be at least 1, or None for no limit, not {self.max_attempts}")
        if self.deadline is not None:
            if not isinstance(self.deadline, (int, float)) or isinstance(self.deadline, bool):
                raise TypeError(f"deadline must be seconds or None, not {self.deadline!r}")
            if not self.deadline >= 0:
                raise ValueError(f"deadline must not be negative, it is {self.deadline} seconds from the first try")
        for field in ("backoff", "clock", "sleep"):
            if not callable(getattr(self, field)):
                raise TypeError(f"{field} must be callable, not {getattr(self, field)!r}")


DEFAULT_RETRY = RetryPolicy()

OnError = Literal["raise", "log"]
"""What a window does about a hard error."""


class Attempts:
    """The attempts at one edge. Made at the first refusal, or before the first try where there is a deadline."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self.count = 0
        self._until = None if policy.deadline is None else policy.clock() + policy.deadline

    def refused(self, error: OSError, fd: int, flags: int, step: Step) -> DmaSyncError | None:
        """Count a refusal. None: try again (the pause is over). Otherwise: the error that ends the edge."""
        self.count += 1
        policy = self.policy
        code = error.errno or 0
        if code not in policy.errnos or self.count == policy.max_attempts:
            failure = DmaSyncError(code, fd, flags, step, self.count)
            failure.__cause__ = error
            return failure
        pause = policy.backoff(code, self.count)
        if self._until is not None:
            left = self._until - policy.clock()
            if left <= 0:
                timeout = DmaSyncTimeout(
                    errno.ETIMEDOUT,
                    fd,
                    flags,
                    step,
                    self.count,
                    reason=f"deadline of {policy.deadline} s passed",
                )
                timeout.__cause__ = error
                return timeout
            pause = min(pause, left)
        if pause > 0:
            policy.sleep(pause)
        return None
