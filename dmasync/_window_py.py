"""File and Window in plain Python, for machines without the compiled core: dmasync/_window.c says what they are for.

They promise what the compiled ones promise, but for one thing: an exception that a signal handler raises between two
bytecodes of this file may delay an END until the window is dropped (or lose it, if it comes while a dropped window is
being finalized). Nor is a window that two threads use at once surely refused without the GIL. See ``_window.pyi``.

What is done in C, or in statements without a call, no signal handler comes between. So ``for _ in calls: opened = 1``
is one step: *calls* is an endless iterator that makes a system call, in C, whenever it is asked for the next answer.
"""

import contextlib
import os
from itertools import repeat, starmap
from typing import Any

from dmasync import retry as outcome
from dmasync import uapi
from dmasync.backend import LINUX

_MOST_INTERRUPTS = 100
_START, _END, _SYNC = uapi.DMA_BUF_SYNC_START, uapi.DMA_BUF_SYNC_END, uapi.DMA_BUF_IOCTL_SYNC


_open, _busy = object(), object()
"""What a window can be, if not shut: None. After a fork these are others: it is the parent's, who makes its END."""


def _begin_process() -> None:
    global _open, _busy
    _open, _busy = object(), object()


os.register_at_fork(after_in_child=_begin_process)


class File:
    def __init__(self, fd: Any, backend: Any, owned: bool = False, keeps: object = None, /) -> None:
        self.backend, self.ioctl, self.owned, self.keeps = backend, backend.ioctl, owned, keeps
        self.closed, self.windows = False, 0
        self._made = self._number = [fd]

    @staticmethod
    def opened(backend: Any, offset: Any, call: Any, /, *arguments: Any) -> Any:
        file: Any = File(None, backend)
        file._made = file._number = []
        file.owned = True
        if offset is not None:
            file._number = memoryview(arguments[-1])[offset : offset + 4].cast("i")
        # One step: list.extend, in C, appends what map, in C, has called.
        file._made.extend(map(call, *((argument,) for argument in arguments)))
        return file

    fd = property(lambda self: self._number[0])

    def close(self) -> None:
        self.closed = True
        self.close_if_unused()

    def release(self) -> Any:
        self.owned, self.closed = False, True
        return self.fd

    def close_if_unused(self) -> None:
        if self.closed and self.owned and not self.windows and self._made:
            fd, close = self.fd, self.backend.close
            self.owned = False  # forgotten first, closed second: the number may be another file's afterwards
            close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_made"):  # else it never got through __init__
            self.close()


def _endless(ioctl: Any, fd: Any, flags: int) -> Any:
    packed = uapi.dma_buf_sync.pack(flags)
    if ioctl is LINUX.ioctl:
        return starmap(ioctl, repeat((fd, _SYNC, packed)))
    # Other backends may change their argument in place: each call has one of its own.
    return map(ioctl, repeat(fd), repeat(_SYNC), map(bytearray, repeat(bytes(packed))))


def quicken(subclass: Any, /) -> Any:
    return subclass


class Window:
    _opened: int
    """So many of the targets are owed an END."""
    _used: int
    """So many of their files know that a window uses them."""
    _view: Any
    _set_up: Any
    _refuse: Any

    def __new__(cls, *_: Any, **__: Any) -> Any:
        self: Any = super().__new__(cls)
        self._targets, self._starts, self._ends = (), (), ()
        self._only, self._only_start, self._only_end = None, (), ()
        self._retry, self._timed, self._log_only, self._moved = None, False, False, False
        self._opened, self._used, self._phase = 0, 0, None
        self._lent, self._view = None, None
        return self

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._set_up(*arguments, **options)

    def _prepare(self, targets: Any, ioctl: Any, retry: Any, timed: bool, log_only: bool, /) -> None:
        self._claim()
        self._phase = _open if self._opened else None
        if self._opened:
            self._refuse("open")
        self._targets, self._retry, self._timed, self._log_only, self._moved = targets, retry, timed, log_only, False
        self._starts, self._ends = (
            [_endless(f.ioctl if ioctl is None else ioctl, f.fd, a | step) for f, a in targets]
            for step in (_START, _END)
        )
        self._only, self._only_start, self._only_end = None, self._starts[0], self._ends[0]
        if len(targets) == 1 and not timed and self._lent is None:
            self._only = targets[0][0]

    def _move(self, heir: Any, /) -> None:
        if heir._targets or heir._phase is not None or heir is self:
            raise TypeError("heir must be a Window that is not set up")
        self._claim()
        heir._retry, heir._timed, heir._log_only, heir._moved = self._retry, self._timed, self._log_only, self._moved
        heir._targets, heir._starts, heir._ends = self._targets, self._starts, self._ends
        heir._only, heir._only_start, heir._only_end = self._only, self._only_start, self._only_end
        # No call in between: exactly one of the two owes the END.
        heir._used, heir._opened, heir._phase = self._used, self._opened, _open if self._opened else None
        self._targets, self._only, self._used, self._opened, self._moved, self._phase = (), None, 0, 0, True, None

    def _lend(self, view: Any) -> None:
        self._lent, self._only = view, None

    _bytes = property(lambda self: self._lent, _lend)

    @property
    def active(self) -> bool:
        return 0 < len(self._targets) == self._opened and self._phase in (_open, _busy)

    def start(self) -> None:
        """Open the window. Raises DmaSyncError where the kernel refuses for good, RuntimeError where it is open."""
        Window.__enter__(self)

    def end(self) -> None:
        """Close the window; does nothing where none is open. Raises what leaving the with block would raise."""
        Window.__exit__(self, None, None, None)

    def __enter__(self) -> Any:
        file = self._only
        # A window over one buffer, written out: a method call more costs as much as the system call.
        if file is not None and self._phase is None and not file.closed:
            afterwards = _open
            self._phase = _busy
            self._used = 1
            file.windows += 1
            try:
                for _ in self._only_start:
                    self._opened = 1
                    self._phase = afterwards  # which is _open no longer if the backend has forked
                    return self
                raise StopIteration  # the backend's: to the loop it was the end of what there is
            except BaseException as said:
                self._start(said)
        else:
            self._claim()
            while self._used < len(self._targets):  # before the look at closed: no number is closed from here on
                self._targets[self._used][0].windows += 1
                self._used += 1
            closed = not self._opened and any(file.closed for file, _ in self._targets)
            if self._opened or closed or not self._targets:
                if not self._opened:
                    self._stop_using_files()
                self._phase = _open if self._opened else None
                reason = "open" if self._opened else "closed" if closed else "moved" if self._moved else "unset"
                self._refuse(reason)
                return self
            self._start(None)
        self._phase = _open if self._opened else None
        return self if self._view is None else self._view

    def __exit__(self, exc_type: Any, exc: Any, traceback: Any, /) -> None:
        file = self._only
        if file is not None and self._phase is _open:
            self._phase = _busy
            try:
                for _ in self._only_end:
                    self._opened = self._used = 0
                    file.windows -= 1
                    self._phase = None
                    if file.closed:
                        file.close_if_unused()
                    return
                raise StopIteration
            except BaseException as answer:
                said = answer
        else:
            said = None
            self._claim()
        self._conclude(None, said, exc)

    def _start(self, said: Any) -> None:
        """START every target that has not had it; *said* came in place of the first success, or behind the last."""
        refusal = None
        try:
            while self._used < len(self._targets):
                self._targets[self._used][0].windows += 1
                self._used += 1
            if self._lent is not None:
                self._view = memoryview(self._lent)
            while refusal is None and self._opened < len(self._targets) and self._phase is _busy:
                refusal, said = self._make_step(_START, [], said), None
        except BaseException as surprise:
            said = surprise
        if self._phase is not _busy:
            self._claim()  # the backend, or a signal handler, has forked: what the kernel says is for the parent
            said = None if isinstance(said, OSError) else said
        if refusal is not None or said is not None:
            self._conclude(refusal, None, said)
            if said is not None:
                outcome.raise_again(said)

    def _conclude(self, refusal: Any, said: Any, body: Any) -> None:
        """Make the ENDs that are owed, then log, attach and raise what there is."""
        interrupt, failures = self._make_ends(said)
        if refusal is None or not self._log_only:
            self._release_view()
        self._phase = None
        if refusal is not None or interrupt is not None or failures:
            outcome.conclude(refusal, interrupt, failures, body, self._log_only)

    def _release_view(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            with contextlib.suppress(BufferError):
                view.release()

    def _make_ends(self, said: Any) -> Any:
        """END everything that is open, last first, whatever is raised meanwhile: the first interrupt, all errors.

        *said* came in place of the first END, or behind it.
        """
        interrupt, interrupts = (None, 0) if self._opened else (said, 1)
        failures: list[Any] = []
        attempts: list[Any] = []
        while True:
            try:
                while self._opened:
                    if self._phase is not _busy:
                        self._claim()  # forked, as above: nothing is owed here
                        break
                    left, answer, said = self._opened - 1, said, None
                    failure = self._make_step(_END, attempts, answer)
                    if failure is not None:
                        failures.append(failure)
                        self._opened = left
                    attempts, interrupts = [], 0
                self._stop_using_files()
                return interrupt, failures
            except BaseException as surprise:
                interrupt, interrupts = surprise if interrupt is None else interrupt, interrupts + 1
                if interrupts > _MOST_INTERRUPTS and self._opened:
                    file, access = self._targets[self._opened - 1]
                    failures.append(outcome.hopeless(file.fd, access | _END, surprise, interrupts))
                    self._opened -= 1
                    attempts, interrupts = [], 0

    def _make_step(self, step: int, attempts: list[Any], said: Any) -> Any:
        """The next START or END, tried as often as the policy says: None, or the error to give up with.

        *said* came in place of the success of a first try. Raises what is no answer of a kernel.
        """
        number, opened = (self._opened, self._opened + 1) if step == _START else (self._opened - 1, self._opened - 1)
        file, access = self._targets[number]
        while self._phase is _busy:
            if said is not None or self._timed:
                if not attempts:
                    attempts.append(outcome.Attempts(self._retry))
                failure = outcome.refused(attempts[0], said, file, access | step)
                if failure is not None:
                    return failure
            try:
                for _ in (self._starts if step == _START else self._ends)[number]:
                    self._opened = opened
                    return None
                raise StopIteration
            except OSError as answer:
                if self._opened == opened:
                    raise
                said = answer
        return None  # in a child of a fork: the parent goes on with it

    def _claim(self) -> None:
        if self._phase is _busy:
            self._refuse("busy")
        elif self._phase not in (None, _open):  # from before a fork
            self._phase, self._opened = _busy, 0
            if self._used:
                outcome.inherited()
            self._stop_using_files()
        self._phase = _busy

    def _stop_using_files(self) -> None:
        while self._used:
            file, _ = self._targets[self._used - 1]
            file.windows -= 1
            self._used -= 1
            file.close_if_unused()

    def __del__(self) -> None:
        if getattr(self, "_used", 0):
            if self._phase is not _busy:
                self._claim()
            was_open = self._opened
            interrupt, failures = self._make_ends(None)
            self._release_view()
            self._phase = None
            if was_open:
                outcome.dropped(type(self).__name__, interrupt, failures, self._targets[0][0], 1)
