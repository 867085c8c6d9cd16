"""What a window does when the kernel says no: try again, give up, log, attach, raise.

Nothing here runs while the kernel says yes. Called by the File and Window of dmasync.core.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from dmasync import uapi
from dmasync.access import Step
from dmasync.errors import DmaSyncError, DmaSyncTimeout

if TYPE_CHECKING:
    from dmasync.backend import Backend
    from dmasync.core import File

logger = logging.getLogger("dmasync")

_SPINS = 16
_FIRST_PAUSE = 10e-6
_LONGEST_PAUSE = 1e-3
_LONGEST_POLL = 0x7FFFFFFF / 1000


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
    """How a START or END is repeated; the default repeats EINTR and EAGAIN for ever, as libcamera does.

    *errnos* are repeated, every other errno is a hard error. *max_attempts* counts the first try; when it is used
    up the last refusal is a hard error. *deadline*, in seconds from the first try, raises DmaSyncTimeout; it is
    looked at between attempts and cuts no system call short: a START sleeps in the kernel until the device's fences
    have signalled. *wait* is for that: before each START, ``poll(2)`` waits for the fences for so many seconds at
    most, then DmaSyncTimeout is raised and no START is made. *backoff* maps (errno, attempts so far) to seconds.
    *clock* and *sleep* are the time that is used.
    """

    errnos: frozenset[int] = frozenset({errno.EINTR, errno.EAGAIN})
    max_attempts: int | None = None
    deadline: float | None = None
    backoff: Callable[[int, int], float] = default_backoff
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    wait: float | None = None

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
        for field in ("deadline", "wait"):
            seconds = getattr(self, field)
            if seconds is None:
                continue
            if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
                raise TypeError(f"{field} must be seconds or None, not {seconds!r}")
            if not seconds >= 0:
                raise ValueError(f"{field} must not be negative, it is {seconds} seconds")
        for field in ("backoff", "clock", "sleep"):
            if not callable(getattr(self, field)):
                raise TypeError(f"{field} must be callable, not {getattr(self, field)!r}")


DEFAULT_RETRY = RetryPolicy()

OnError = Literal["raise", "log"]
"""What a window does about a hard error."""


class Attempts:
    """The attempts at one START or END. Made at the first refusal, or before the first try if the policy is timed.

    *policy* comes with the backend to ask for fences, where that is not the file's own.
    """

    def __init__(self, policy: RetryPolicy | tuple[RetryPolicy, Backend] | None = None) -> None:
        self._asked: Backend | None = None
        if isinstance(policy, tuple):
            policy, self._asked = policy
        self.policy = policy or DEFAULT_RETRY
        self.count = 0
        deadline = self.policy.deadline
        self._until = None if deadline is None else self.policy.clock() + deadline

    def refused(self, error: OSError, fd: int, flags: int) -> DmaSyncError | None:
        """Count a refusal. None: try again (the pause is over). Otherwise: the error to give up with."""
        self.count += 1
        policy = self.policy
        code = error.errno or 0
        failure: DmaSyncError | None = None
        if code not in policy.errnos or self.count == policy.max_attempts:
            failure = DmaSyncError(code, fd, flags, _step(flags), self.count)
        else:
            pause = policy.backoff(code, self.count)
            if self._until is not None:
                left = self._until - policy.clock()
                pause = min(pause, left)
                if left <= 0:
                    reason = f"deadline of {policy.deadline} s passed"
                    failure = DmaSyncTimeout(errno.ETIMEDOUT, fd, flags, _step(flags), self.count, reason=reason)
        if failure is None:
            if pause > 0:
                policy.sleep(pause)
        else:
            failure.__cause__ = error
        return failure

    def before_the_first(self, file: File, flags: int) -> DmaSyncError | None:
        """Wait for the fences that a START would wait for, if the policy says so. None: try."""
        if self.policy.wait is None or _step(flags) is Step.END:
            return None
        try:
            _wait_for_fences(self._asked or file.backend, file.fd, flags, self.policy)
        except DmaSyncTimeout as timeout:
            return timeout
        except OSError as error:
            if error.errno is None:
                raise
            failure = DmaSyncError(error.errno, file.fd, flags, Step.START, 0, reason=f"poll: {error.strerror}")
            failure.__cause__ = error
            return failure
        return None


def _step(flags: int) -> Step:
    return Step.END if flags & uapi.DMA_BUF_SYNC_END else Step.START


def _wait_for_fences(backend: Backend, fd: int, flags: int, policy: RetryPolicy) -> None:
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


def refused(attempts: Attempts, answer: BaseException | None, file: File, flags: int) -> DmaSyncError | None:
    """None: try again. Otherwise: the error to give up with. Raises *answer* if no kernel says that.

    *answer* is None where there was no try yet. A backend's OSError with an errno is a kernel's answer. Everything else
    comes from a signal handler, or is a bug of the backend; a handler's TimeoutError mostly has no errno.
    """
    if answer is None:
        return attempts.before_the_first(file, flags)
    if not isinstance(answer, OSError) or answer.errno is None:
        raise_again(answer)
    # Where an exception is on its way through the window, Python has just made it the context of this answer.
    answer.__context__ = None
    return attempts.refused(answer, file.fd, flags)


def raise_again(exception: BaseException) -> NoReturn:
    """Raise what was raised before, with the context that it had then: Python would put what is being handled there."""
    context = exception.__context__
    try:
        raise exception
    finally:
        BaseException.__setattr__(exception, "__context__", context)


def hopeless(fd: int, flags: int, interrupt: BaseException, count: int) -> DmaSyncError:
    """The error to give an END up with that *count* exceptions other than refusals kept from its success."""
    failure = DmaSyncError(errno.EIO, fd, flags, Step.END, count, reason=f"never got through: {interrupt!r}")
    failure.__cause__ = interrupt
    return failure


def conclude(
    refusal: DmaSyncError | None,
    interrupt: BaseException | None,
    failures: Sequence[DmaSyncError] | None,
    body: BaseException | None,
    log_only: bool,
) -> None:
    """Log, attach and raise what went wrong with a window; no END is owed any more when this is called.

    *refusal* is what START gave up with, *failures* what ENDs gave up with, *interrupt* what a signal handler raised
    meanwhile, *body* the exception on its way. The interrupt is raised first, and nothing in place of the body's
    exception but that; whatever is not raised is attached to what is.
    """
    errors = [error for error in (refusal, *(failures or ())) if error is not None]
    for error in errors:
        try:
            logger.error("%s", error)
        except BaseException as surprise:
            interrupt = interrupt or surprise
    if log_only:
        errors = []
    if interrupt is body:
        interrupt = None  # a handler that raises what is on its way already
    if interrupt is None and body is not None:
        attach(body, errors)
        return
    if interrupt is not None:
        chosen = interrupt
        if body is not None and chosen.__context__ is None:
            chosen.__context__ = body
    elif errors:
        chosen, *errors = errors
    else:
        return
    context = chosen.__context__
    try:
        raise chosen
    except BaseException:
        # Only now: raising has just given it the exception that is being handled for its context.
        if context is not None:
            BaseException.__setattr__(chosen, "__context__", context)
        attach(chosen, errors)
        raise


def attach(exception: BaseException, errors: Sequence[DmaSyncError]) -> None:
    """Hang *errors* on an exception that must not be replaced: as notes, and at the end of its contexts."""
    for error in errors:
        notes = getattr(exception, "__notes__", [])
        if isinstance(notes, list):  # else they are no notes, and Python refuses to add one
            # An exception that is a frozen dataclass refuses every assignment but this.
            BaseException.__setattr__(exception, "__notes__", [*notes, f"and {error}"])
        last, seen = exception, {id(exception), id(error)}
        while last.__context__ is not None and id(last.__context__) not in seen:
            last = last.__context__
            seen.add(id(last))
        error.__context__ = None
        BaseException.__setattr__(last, "__context__", error)


def dropped(
    name: str,
    interrupt: BaseException | None,
    failures: Sequence[DmaSyncError] | None,
    file: Any = None,
    frames: int = 0,
) -> None:
    """An open window of the class *name* was dropped; its END has run by now. Logs, and warns with ResourceWarning.

    A backend that has ``window_dropped(fd)``, as a recorder does, is told with the first *file*'s descriptor.
    *frames*: how many Python frames lie between this and whoever dropped it.
    """
    for failure in failures or ():
        logger.error("%s", failure)
    tell = getattr(getattr(file, "backend", None), "window_dropped", None)
    if tell is not None:
        tell(file.fd)
    warnings.warn(
        f"a {name.rpartition('.')[2]} was dropped while its window was open; END has run now: use it in a with block, "
        "or call end()",
        ResourceWarning,
        stacklevel=2 + frames,
    )
    if interrupt is not None:
        raise interrupt


_told_in: int | None = None


def inherited() -> None:
    """A window was open when this process was forked: it is the parent's. Said once in each process, as a warning."""
    global _told_in
    if _told_in != os.getpid():
        _told_in = os.getpid()
        logger.warning(
            "a window that was open when this process was forked belongs to the parent, which makes its END; "
            "this process makes none"
        )
