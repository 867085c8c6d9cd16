"""What all windows share: which START is owed an END, retries, and the END that comes whatever happens.

Every change of state stands directly behind the system call that it records, with no call and no backward jump
between: see :mod:`dmasync.interrupts`. The short ways through START and END are the windows' own; here is what
happens when the kernel, or a signal, says no.
"""

from __future__ import annotations

import errno
import logging
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any, NamedTuple

from dmasync.access import Step, SyncType
from dmasync.edge import Untried, sync_arguments
from dmasync.errors import DmaSyncError
from dmasync.interrupts import guarded
from dmasync.retry import Attempts, OnError, RetryPolicy

logger = logging.getLogger("dmasync")

_MOST_INTERRUPTS = 100
"""Exceptions other than OSError that an END survives: signals come to an end some time, a broken backend does not."""


class Target(NamedTuple):
    """One dma-buf of a window."""

    ioctl: Callable[[int, int, Any], Any]
    fd: int
    sync_type: SyncType

    def flags(self, step: Step) -> int:
        return self.sync_type.value | step.value


class Ledger:
    """Which targets of a window are owed an END: the first ``len(opened)``, and END takes the last of them first."""

    __slots__ = ("on_error", "opened", "retry", "targets")

    def __init__(self, targets: Sequence[Target], retry: RetryPolicy, on_error: OnError, opened: int = 0) -> None:
        self.targets = targets
        self.retry = retry
        self.on_error = on_error
        self.opened: deque[Any] = deque([0] * opened)
        """What the kernel answered to each START that is owed an END; only the length counts. Unlike a list, a deque
        that grows and shrinks all the time takes no memory for it."""

    def start_rest(self, refused: OSError | None) -> None:
        """START every target that has not had it; *refused* is what the first of them just answered.

        A START that fails for good is logged; then those before it get their END, and the error is raised unless
        errors are only logged. Whatever else is raised leaves the ENDs to :meth:`finish`.
        """
        opened = self.opened
        while len(opened) < len(self.targets):
            number = len(opened)
            target = self.targets[number]
            attempts = Attempts(self.retry)
            while len(opened) == number:
                if refused is not None and not isinstance(refused, Untried):
                    if refused.errno is None:
                        # No kernel says that: a signal handler's exception (TimeoutError most often).
                        raise refused
                    failure = attempts.refused(refused, target.fd, target.flags(Step.START), Step.START)
                    if failure is not None:
                        logger.error("%s", failure)
                        if self.on_error == "raise":
                            raise failure
                        return self.finish(None, None)
                refused = None
                try:
                    opened += starmap(target.ioctl, [sync_arguments(target.fd, target.sync_type._start)])
                except OSError as error:
                    refused = error
        return None

    @guarded
    def finish(
        self,
        surprise: BaseException | None,
        body: BaseException | None,
        ending: _Ending | None = None,
        stray: BaseException | None = None,
    ) -> None:
        """END everything that is open, last first, whatever is raised meanwhile; then raise what there is to raise.

        *surprise* is what was just raised in place of the last open target's END, *body* the exception on its way,
        *stray* what certainly is no answer to an END.
        """
        try:
            if ending is None:
                ending = _Ending(self.retry)
            while self.opened:
                target = self.targets[len(self.opened) - 1]
                if surprise is not None and ending.is_over(surprise, target, surprise is stray):
                    del self.opened[-1]
                    surprise = None
                    continue
                surprise = None
                ending.begin()
                try:
                    for _ in starmap(target.ioctl, [sync_arguments(target.fd, target.sync_type._end)]):
                        del self.opened[-1]
                        ending.attempts = None
                except BaseException as error:
                    surprise = error
            if surprise is not None and not isinstance(surprise, Untried):
                # only a signal gets here: tests/unit/test_between_calls.py
                ending.interrupt = ending.interrupt or surprise
        except BaseException as error:
            # Between two system calls; an END may still be owed. The depth of the stack bounds this.
            return self.finish(error, body, ending, error)
        return ending.report(body, self.on_error)


class _Ending:
    """What happened while the ENDs of one window ran."""

    def __init__(self, retry: RetryPolicy) -> None:
        self.retry = retry
        self.attempts: Attempts | None = None
        self.interrupt: BaseException | None = None
        self.failures: list[DmaSyncError] = []
        self._interrupts = 0

    def begin(self) -> Attempts:
        """The attempts at the END that is being made, from its first try on."""
        if self.attempts is None:
            self.attempts = Attempts(self.retry)
        return self.attempts

    def is_over(self, surprise: BaseException, target: Target, stray: bool) -> bool:
        """Whether the END of *target* is to be given up after *surprise*; if not, it is to be tried at once.

        A *stray* one came from a signal handler, or from the policy's clock, sleep or backoff.
        """
        flags = target.flags(Step.END)
        if isinstance(surprise, Untried):
            return False
        if isinstance(surprise, OSError) and surprise.errno is not None and not stray:
            failure = self.begin().refused(surprise, target.fd, flags, Step.END)
        else:
            # A signal handler's exception, KeyboardInterrupt first of all: END goes on, the exception comes later.
            self.interrupt = self.interrupt or surprise
            self._interrupts += 1
            failure = None
            if self._interrupts > _MOST_INTERRUPTS:
                reason = f"never got through: {surprise!r}"
                failure = DmaSyncError(errno.EIO, target.fd, flags, Step.END, self._interrupts, reason=reason)
                failure.__cause__ = surprise
        if failure is None:
            return False
        # The refusal came while the body's exception was being handled, which is no reason for it.
        if failure.__cause__ is not None:  # pragma: no branch - all have one
            failure.__cause__.__context__ = None
        self.failures.append(failure)
        self.attempts = None
        return True

    def report(self, body: BaseException | None, on_error: OnError) -> None:
        """Log the failures, and raise what is to be raised: an interrupt first, never in place of *body*."""
        for failure in self.failures:
            logger.error("%s", failure)
        failures = self.failures if on_error == "raise" else []
        chosen = self.interrupt
        if chosen is None and body is not None:
            attach(body, failures)
            return
        if chosen is None:
            if not failures:
                return
            chosen, *failures = failures
        try:
            raise chosen
        except BaseException:
            # Only now: raising has just given it the exception being handled for its context.
            attach(chosen, failures)
            raise


def attach(exc: BaseException, failures: Sequence[DmaSyncError]) -> None:
    """Hang errors of END on an exception that must not be replaced: as notes, and at the end of its contexts."""
    for failure in failures:
        notes = getattr(exc, "__notes__", [])
        if isinstance(notes, list):  # else they are no notes, and Python refuses to add one
            # An exception that is a frozen dataclass refuses every assignment but this.
            BaseException.__setattr__(exc, "__notes__", [*notes, f"and {failure}"])
        last, seen = exc, {id(exc), id(failure)}
        while last.__context__ is not None and id(last.__context__) not in seen:
            last = last.__context__
            seen.add(id(last))
        failure.__context__ = None
        BaseException.__setattr__(last, "__context__", failure)


def warn_dropped(what: str, depth: int = 0) -> None:
    """A window was dropped while it was open; its END has run by now. *depth*: Python frames around the caller."""
    warnings.warn(
        f"a {what} was dropped while its window was open; END has run now: use it in a with block, or call end()",
        ResourceWarning,
        stacklevel=3 + depth,
    )


def check_window(sync_type: object, retry: object, on_error: object) -> None:
    """Refuse what no window can work with, naming the argument."""
    check_sync_type(sync_type)
    if not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy, not {retry!r}")
    if on_error not in ("raise", "log"):
        raise ValueError(f"on_error must be 'raise' or 'log', not {on_error!r}")


def check_sync_type(sync_type: object) -> None:
    """Refuse what is not READ, WRITE or both."""
    if not isinstance(sync_type, SyncType):
        raise TypeError(f"sync_type must be a SyncType, not {sync_type!r}")
    if not sync_type.value:
        raise ValueError("sync_type must be SyncType.READ, WRITE or READ_WRITE, not an empty SyncType")
