"""What DmaSyncer and DmaSyncerGroup share: retries, and the END that comes whatever happens.

The edges run as C iterators, ``map(ioctl, fds, requests, arguments)``, and every change of state stands directly
behind the system call that it records, with no call and no backward jump between: see :mod:`dmasync.interrupts`.
"""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Literal, NamedTuple

from dmasync import uapi
from dmasync.access import Step, SyncType
from dmasync.descriptor import Descriptor
from dmasync.errors import DmaSyncError
from dmasync.interrupts import guarded
from dmasync.retry import Attempts, RetryPolicy

OnError = Literal["raise", "log"]

logger = logging.getLogger("dmasync")

REQUESTS = repeat(uapi.DMA_BUF_IOCTL_SYNC)

_MOST_INTERRUPTS = 100
"""Exceptions other than OSError that an END survives: signals come to an end some time, a broken backend does not."""


class Target(NamedTuple):
    """One dma-buf of a window."""

    ioctl: Callable[[int, int, Any], Any]
    descriptor: Descriptor
    sync_type: SyncType

    def flags(self, step: Step) -> int:
        return self.sync_type.value | step.value


class Window:
    """STARTs that are owed an END. A context manager; :meth:`start` and :meth:`end` do the same by hand."""

    __slots__ = ("__weakref__", "_on_error", "_open", "_reserved", "_retry")

    _open: int
    """How many targets have had START and not yet END: always the first ones; END takes the last of them."""
    _reserved: int
    """How many targets behind those count this window as a user although their START is still to come."""
    _retry: RetryPolicy
    _on_error: OnError

    @abstractmethod
    def _targets(self) -> Sequence[Target]:
        """The dma-bufs in START order."""

    @property
    def active(self) -> bool:
        """Whether the window is open: START has succeeded, END has not run."""
        return self._open > 0

    def _start_rest(self, refused: OSError | None) -> None:
        """START every target that has not had it; *refused* is what the first of them just answered.

        A START that fails for good is logged, and raised unless errors are only logged: then the window stays shut.
        """
        targets = self._targets()
        while self._open < len(targets):
            opened = self._open
            target = targets[opened]
            attempts = Attempts(self._retry)
            while self._open == opened:
                if refused is not None:
                    failure = attempts.refused(
                        refused, target.descriptor.fd, target.flags(Step.START), Step.START
                    )
                    if failure is not None:
                        logger.error("%s", failure)
                        if self._on_error == "raise":
                            raise failure
                        return self._abandon(None)
                refused = None
                try:
                    for _ in map(target.ioctl, target.descriptor.fds, REQUESTS, target.sync_type._starts):
                        self._open += 1
                        self._reserved -= 1
                        break
                except OSError as error:
                    refused = error
        return None

    @guarded
    def _abandon(self, failure: BaseException | None) -> None:
        """After *failure* at START: let go of what was not opened, END what was."""
        try:
            targets = self._targets()
            while self._reserved:
                descriptor = targets[self._open + self._reserved - 1].descriptor
                self._reserved -= 1
                descriptor.users -= 1
                descriptor.settle()
            if self._open:
                self._finish(None, failure)
        except BaseException:
            if self._open or self._reserved:
                self._abandon(failure)
            raise

    @guarded
    def _finish(
        self, surprise: BaseException | None, body: BaseException | None, ending: _Ending | None = None
    ) -> None:
        """END everything that is open, last first, whatever is raised meanwhile; then raise what there is to raise.

        *surprise* is what the END of the last open target just raised, *body* the exception that is on its way.
        """
        try:
            if ending is None:
                ending = _Ending(self._retry)
            targets = self._targets()
            while self._open:
                target = targets[self._open - 1]
                if surprise is not None and ending.is_over(surprise, target):
                    self._open -= 1
                    target.descriptor.users -= 1
                surprise = None
                if ending.attempts is None:
                    ending.attempts = Attempts(self._retry)
                try:
                    if self._open:
                        target = targets[self._open - 1]
                        for _ in map(target.ioctl, target.descriptor.fds, REQUESTS, target.sync_type._ends):
                            self._open -= 1
                            target.descriptor.users -= 1
                            ending.attempts = None
                            break
                except BaseException as error:
                    surprise = error
            if surprise is not None:
                ending.interrupt = ending.interrupt or surprise
            for target in targets:
                target.descriptor.settle()
        except BaseException as error:
            # Between two system calls; the END is still owed. Bounded by the depth of the stack.
            return self._finish(error, body, ending)
        return ending.report(body, self._on_error)

    @guarded
    def __del__(self) -> None:
        try:
            if self._open:
                self._dropped()
        except AttributeError:  # never got through __init__
            pass
        except BaseException:
            self._dropped()
            raise

    @guarded
    def _dropped(self) -> None:
        try:
            if self._open:
                self._finish(None, None)
        except DmaSyncError:
            pass  # was logged, and nobody is there to catch it
        except BaseException:
            if self._open:
                self._dropped()
            raise
        warnings.warn(
            f"a {type(self).__name__} was dropped while its window was open; END has run now: "
            "use it in a with block, or call end()",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


class _Ending:
    """What happened while the ENDs of one window ran."""

    def __init__(self, retry: RetryPolicy) -> None:
        self.retry = retry
        self.attempts: Attempts | None = None
        self.interrupt: BaseException | None = None
        self.failures: list[DmaSyncError] = []
        self._interrupts = 0

    def is_over(self, surprise: BaseException, target: Target) -> bool:
        """Whether the END of *target* is to be given up after *surprise*; if not, it is to be tried at once."""
        fd, flags = target.descriptor.fd, target.flags(Step.END)
        if isinstance(surprise, OSError) and surprise.errno is not None:
            attempts = self.attempts or Attempts(self.retry)
            failure = attempts.refused(surprise, fd, flags, Step.END)
        else:
            # A signal handler's exception, KeyboardInterrupt first of all: END goes on, the exception comes later.
            self.interrupt = self.interrupt or surprise
            self._interrupts += 1
            failure = None
            if self._interrupts > _MOST_INTERRUPTS:
                failure = DmaSyncError(
                    errno.EIO,
                    fd,
                    flags,
                    Step.END,
                    self._interrupts,
                    reason=f"never got through: {surprise!r}",
                )
                failure.__cause__ = surprise
        if failure is None:
            return False
        # What was being handled when the kernel refused is somebody else's; without this it would be its own context.
        if failure.__cause__ is not None:
            failure.__cause__.__context__ = None
        self.failures.append(failure)
        self.attempts = None
        return True

    def report(self, body: BaseException | None, on_error: OnError) -> None:
        """Log the failures, and raise what is to be raised: an interrupt first, never in place of *body*."""
        for failure in self.failures:
            logger.error("%s", failure)
        failures = self.failures if on_error == "raise" else []
        if self.interrupt is not None:
            attach(self.interrupt, failures)
            raise self.interrupt
        if body is not None:
            attach(body, failures)
        elif failures:
            attach(failures[0], failures[1:])
            raise failures[0]


def attach(exc: BaseException, failures: Sequence[DmaSyncError]) -> None:
    """Hang errors of END on an exception that must not be replaced: as notes, and behind its ``__context__``s."""
    for failure in failures:
        note = f"and {failure}"
        if sys.version_info >= (3, 11):
            exc.add_note(note)
        else:
            exc.__notes__ = [*getattr(exc, "__notes__", ()), note]
        last, seen = exc, {id(exc), id(failure)}
        while last.__context__ is not None and id(last.__context__) not in seen:
            last = last.__context__
            seen.add(id(last))
        failure.__context__ = None
        if last is not failure:
            last.__context__ = failure


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
