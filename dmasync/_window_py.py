"""File and Window in plain Python, for machines without the compiled core: dmasync/_window.c says what they are for.

They promise what the compiled ones promise, but for one thing: an exception that a signal handler raises between two
bytecodes of this file may delay an END until the window is dropped (or lose it, if it comes while a dropped window is
being finalized). Nor is a window that two threads use at once surely refused without the GIL. See ``_window.pyi``.
"""

from __future__ import annotations

import contextlib
import os
from itertools import repeat, starmap
from typing import Any

from dmasync import retry as outcome
from dmasync import uapi

_MOST_INTERRUPTS = 100
_START, _END, _SYNC = uapi.DMA_BUF_SYNC_START, uapi.DMA_BUF_SYNC_END, uapi.DMA_BUF_IOCTL_SYNC
_generation = 0
"""How many forks lie between this process and the one that loaded the module."""


def _count_fork() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_count_fork)


class File:
    def __init__(self, fd: int | None, backend: Any, owned: bool = False, keeps: object = None, /) -> None:
        self._made: list[int] = [] if fd is None else [fd]
        self._offset: int | None = None
        self._argument: Any = b""
        self.closed, self.windows, self.owned, self.keeps = False, 0, owned, keeps
        self.backend, self.ioctl = backend, backend.ioctl

    @staticmethod
    def opened(backend: Any, offset: Any, call: Any, /, *arguments: Any) -> File:
        file = File(None, backend, True)
        file._offset, file._argument = offset, arguments[-1]
        # One step: list.extend, in C, appends what map, in C, has called.
        file._made.extend(map(call, *((argument,) for argument in arguments)))
        return file

    @property
    def fd(self) -> int:
        if self._offset is None:
            return self._made[0]
        return int(memoryview(self._argument)[self._offset : self._offset + 4].cast("i")[0])

    def close(self) -> None:
        self.closed = True
        self._close_if_unused()

    def release(self) -> int:
        self.owned, self.closed = False, True
        return self.fd

    def _close_if_unused(self) -> None:
        if self.closed and self.owned and not self.windows and self._made:
            fd, close = self.fd, self.backend.close
            self.owned = False  # forgotten first, closed second: the number may be another file's afterwards
            close(fd)

    def __del__(self) -> None:
        if hasattr(self, "ioctl"):  # else it never got through __init__
            self.close()


class Window:
    """Whatever is done in C, or in one statement without a call, no signal handler comes between.

    So ``for _ in calls: self._opened = 1`` is one step: *calls* is an endless iterator that makes a system call, in C,
    each time that it is asked for the next answer.
    """

    _opened: int
    """So many of the targets are owed an END."""
    _used: int
    """So many of their files have been told that a window uses them."""
    _made_in: int
    _bytes_: Any
    _view: Any
    _set_up: Any
    _refuse: Any

    def __new__(cls, *_: Any, **__: Any) -> Any:
        self: Any = super().__new__(cls)
        self._targets, self._starts, self._ends, self._only = (), (), (), None
        self._retry, self._timed, self._log_only, self._moved = None, False, False, False
        self._opened, self._used, self._made_in = 0, 0, _generation
        self._busy, self._bytes_, self._view = False, None, None
        return self

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._set_up(*arguments, **options)

    def _prepare(self, targets: Any, ioctl: Any, retry: Any, timed: bool, log_only: bool, /) -> None:
        self._claim()
        self._busy = False
        if self._opened:
            self._refuse("open")
        self._targets, self._retry, self._timed, self._log_only, self._moved = targets, retry, timed, log_only, False
        self._starts, self._ends = (
            [starmap(ioctl or f.ioctl, repeat((f.fd, _SYNC, uapi.dma_buf_sync.pack(a | step)))) for f, a in targets]
            for step in (_START, _END)
        )
        self._only = targets[0][0] if len(targets) == 1 and not timed and self._bytes_ is None else None

    def _move(self, heir: Any, /) -> None:
        self._claim()
        heir._retry, heir._timed, heir._log_only, heir._moved = self._retry, self._timed, self._log_only, self._moved
        heir._targets, heir._starts, heir._ends, heir._only = self._targets, self._starts, self._ends, self._only
        # No call in between: exactly one of the two owes the END.
        heir._used, heir._made_in, heir._opened = self._used, self._made_in, self._opened
        self._targets, self._only, self._used, self._opened, self._moved, self._busy = (), None, 0, 0, True, False

    def _set_bytes(self, view: Any) -> None:
        self._bytes_, self._only = view, None

    _bytes = property(lambda self: self._bytes_, _set_bytes)

    @property
    def active(self) -> bool:
        return self._opened > 0 and self._made_in == _generation

    def start(self) -> None:
        """Open the window. Raises DmaSyncError where the kernel refuses for good, RuntimeError where it is open."""
        Window.__enter__(self)

    def end(self) -> None:
        """Close the window; does nothing where none is open. Raises what leaving the with block would raise."""
        Window.__exit__(self, None, None, None)

    def __enter__(self) -> Any:
        file = self._only
        # Written out for a window over one buffer: a method call more costs as much as the system call.
        if file is None or file.closed or self._busy or self._opened or self._made_in != _generation:
            return self._enter_slowly()
        self._busy = True
        self._used = 1
        file.windows += 1
        try:
            for _ in self._starts[0]:
                self._opened = 1
                break
        except BaseException as said:
            self._start_rest(said)
        else:
            if not self._opened:
                self._start_rest(StopIteration())  # the backend's: to the loop it was the end of what there is
        self._busy = False
        return self

    def __exit__(self, exc_type: Any, exc: Any, traceback: Any, /) -> None:
        file = self._only
        if file is None or not self._opened or self._busy or self._made_in != _generation:
            self._claim()
            return self._exit_slowly(exc, None)
        self._busy = True
        try:
            for _ in self._ends[0]:
                self._opened = 0
                break
        except BaseException as said:
            return self._exit_slowly(exc, said)
        if self._opened:
            return self._exit_slowly(exc, StopIteration())
        file.windows -= 1
        self._used = 0
        if file.closed:
            file._close_if_unused()
        self._busy = False
        return None

    def _enter_slowly(self) -> Any:
        self._claim()
        targets = self._targets
        if self._opened or not targets or any(file.closed for file, _ in targets):
            self._busy = False
            self._refuse("open" if self._opened else "closed" if targets else "moved" if self._moved else "unset")
            return self
        for file, _ in targets:
            file.windows += 1
            self._used += 1
        self._start_rest(None)
        self._busy = False
        return self if self._view is None else self._view

    def _exit_slowly(self, body: Any, said: Any) -> None:
        interrupt, failures = self._make_ends(said)
        self._release_view()
        self._conclude(None, body, interrupt, failures)

    def _start_rest(self, said: Any) -> None:
        """START every target that has not had it; *said* came in place of the first success, or behind the last."""
        refusal = interrupt = None
        try:
            if self._bytes_ is not None:
                self._view = memoryview(self._bytes_)
            while refusal is None and self._opened < len(self._targets):
                number = self._opened
                refusal, said = self._make_step(number, _START, self._starts[number], number + 1, [], said), None
        except BaseException as surprise:
            said = surprise
        interrupt = said
        if refusal is None and interrupt is None:
            return
        try:
            self._conclude(refusal, interrupt, *self._make_ends(None))
            if interrupt is not None:
                outcome.raise_again(interrupt)
        except BaseException:
            self._release_view()
            raise

    def _make_ends(self, said: Any) -> tuple[BaseException | None, list[Any]]:
        """END everything that is open, last first, whatever is raised meanwhile: the first interrupt, all errors.

        *said* came in place of the first END, or behind it.
        """
        failures: list[Any] = []
        attempts: list[Any] = []
        interrupt, interrupts = (None, 0) if self._opened else (said, 1)
        while True:
            try:
                while self._opened:
                    number, answer, said = self._opened - 1, said, None
                    failure = self._make_step(number, _END, self._ends[number], number, attempts, answer)
                    if failure is not None:
                        failures.append(failure)
                        self._opened = number
                    attempts = []
                self._stop_using_files()
                self._busy = False
                return interrupt, failures
            except BaseException as surprise:
                interrupt, interrupts = interrupt or surprise, interrupts + 1
                if interrupts > _MOST_INTERRUPTS and self._opened:
                    file, access = self._targets[self._opened - 1]
                    failures.append(outcome.hopeless(file.fd, access | _END, surprise, interrupts))
                    self._opened -= 1

    def _make_step(self, number: int, step: int, calls: Any, opened: int, attempts: Any, said: Any) -> Any:
        """One START or END, tried as often as the policy says: None, or the error to give up with; raises interrupts.

        *opened*: how many targets are owed an END after it. *said* came in place of the success of a first try.
        """
        while True:
            if not attempts and (said is not None or self._timed):
                attempts.append(outcome.Attempts(self._retry))
            if said is not None:
                file, access = self._targets[number]
                failure = outcome.refused(attempts[0], said, file.fd, access | step)
                if failure is not None:
                    return failure
            try:
                for _ in calls:
                    self._opened = opened
                    return None
                raise StopIteration  # the backend's, as above
            except OSError as answer:
                if self._opened == opened:
                    raise
                said = answer

    def _conclude(self, refusal: Any, body: Any, interrupt: Any, failures: Any) -> None:
        if refusal is not None or interrupt is not None or failures:
            outcome.conclude(refusal, interrupt if interrupt is not body else None, failures, body, self._log_only)

    def _claim(self) -> None:
        if self._made_in != _generation:
            # After a fork, what was open here is the parent's, who makes the END.
            self._made_in, self._busy, self._opened = _generation, False, 0
            if self._used:
                outcome.inherited()
            self._stop_using_files()
        if self._busy:
            self._refuse("busy")
        self._busy = True

    def _stop_using_files(self) -> None:
        while self._used:
            file, _ = self._targets[self._used - 1]
            file.windows -= 1
            self._used -= 1
            file._close_if_unused()

    def _release_view(self) -> None:
        view, self._view = self._view, None
        with contextlib.suppress(BufferError):
            if view is not None:
                view.release()

    def __del__(self) -> None:
        if getattr(self, "_used", 0):
            was_open = self.active
            if self._made_in != _generation:
                self._claim()
            self._busy = True
            interrupt, failures = self._make_ends(None)
            if was_open:
                outcome.dropped(type(self).__name__, interrupt, failures, 1)
