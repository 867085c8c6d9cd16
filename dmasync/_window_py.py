"""File and Window in plain Python, for machines without the compiled core: dmasync/_window.c says what they are for.

They promise what the compiled ones promise, but for one thing: an exception that a signal handler raises between two
bytecodes of this file may delay an END until the window is dropped (or lose it, if it comes while a dropped window is
being finalized). Nor is a window that two threads use at once surely refused without the GIL. See ``_window.pyi``.
"""

from __future__ import annotations

import contextlib
import os
from itertools import islice, repeat, starmap
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
    __slots__ = (
        "__weakref__",
        "_argument",
        "_made",
        "_offset",
        "backend",
        "closed",
        "ioctl",
        "keeps",
        "owned",
        "users",
    )

    def __init__(self, fd: int | None, backend: Any, owned: bool = False, keeps: object = None, /) -> None:
        self._made: list[int] = [] if fd is None else [fd]
        self._offset, self._argument = None, b""
        self.closed, self.owned, self.keeps = False, owned, keeps
        self.backend, self.ioctl = backend, backend.ioctl
        self.users: set[object] = set()  # last: see __del__

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

    @property
    def windows(self) -> int:
        return len(self.users)

    def close(self) -> None:
        self.closed = True
        self._close_if_unused()

    def release(self) -> int:
        self.owned, self.closed = False, True
        return self.fd

    def _close_if_unused(self) -> None:
        if self.closed and self.owned and not self.users and self._made:
            fd, close = self.fd, self.backend.close
            self.owned = False  # forgotten first, closed second: the number may be another file's afterwards
            close(fd)

    def __del__(self) -> None:
        if hasattr(self, "users"):  # else it never got through __init__
            self.close()


class Window:
    __slots__ = (
        "__weakref__", "_busy", "_bytes_", "_ended", "_ends", "_log_only", "_made_in", "_moved", "_only", "_retry",
        "_started", "_starts", "_targets", "_timed", "_user", "_using", "_view",
    )  # fmt: skip
    _set_up: Any
    _refuse: Any

    def __new__(cls, *_: Any, **__: Any) -> Any:
        self: Any = super().__new__(cls)
        self._targets, self._starts, self._ends = (), [], []
        self._retry, self._timed, self._log_only, self._moved = None, False, False, False
        # What the kernel answered to each START, and to each END: the difference in length is how many are owed.
        self._started, self._ended, self._using, self._made_in = [], [], False, _generation
        self._busy, self._bytes_, self._view, self._only = False, None, None, None
        return self

    @property
    def _bytes(self) -> Any:
        return self._bytes_

    @_bytes.setter
    def _bytes(self, view: Any) -> None:
        self._bytes_, self._only = view, None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._set_up(*arguments, **options)

    def _prepare(self, targets: Any, ioctl: Any, retry: Any, timed: bool, log_only: bool, /) -> None:
        self._claim()
        self._busy = False
        if self._started:
            self._refuse("open")
        self._targets, self._retry, self._timed, self._log_only, self._moved = targets, retry, timed, log_only, False
        self._starts, self._ends = (
            [starmap(ioctl or f.ioctl, repeat((f.fd, _SYNC, uapi.dma_buf_sync.pack(a | step)))) for f, a in targets]
            for step in (_START, _END)
        )
        self._user = object()
        self._only = targets[0][0] if len(targets) == 1 and not timed and self._bytes_ is None else None

    def _move(self, heir: Any, /) -> None:
        self._claim()
        heir._retry, heir._timed, heir._log_only, heir._moved = self._retry, self._timed, self._log_only, self._moved
        heir._targets, heir._starts, heir._ends = self._targets, self._starts, self._ends
        heir._only, heir._user = self._only, self._user
        # No call in between: whatever a signal handler raises, exactly one of the two owes the END.
        heir._using, heir._made_in, heir._started = self._using, self._made_in, self._started
        self._targets, self._using, self._started, self._moved, self._busy = (), False, [], True, False
        self._only = None

    @property
    def active(self) -> bool:
        return bool(self._started) and self._made_in == _generation

    def start(self) -> None:
        """Open the window. Raises DmaSyncError where the kernel refuses for good, RuntimeError where it is open."""
        Window.__enter__(self)

    def end(self) -> None:
        """Close the window; does nothing where none is open. Raises what leaving the with block would raise."""
        Window.__exit__(self, None, None, None)

    def __enter__(self) -> Any:
        file = self._only
        # Written out for a window over one buffer: a method call more costs as much as the system call.
        if file is None or file.closed or self._busy or self._started or self._made_in != _generation:
            return self._enter_slowly()
        self._busy = self._using = True
        try:
            file.users.add(self._user)
            self._started.extend(islice(self._starts[0], 1))
        except BaseException as said:
            self._start_rest(said)
        else:
            if not self._started:
                self._start_rest(StopIteration())
        self._busy = False
        return self

    def __exit__(self, exc_type: Any, exc: Any, traceback: Any, /) -> None:
        file = self._only
        if file is None or not self._started or self._busy or self._made_in != _generation:
            return self._exit_slowly(exc, None)
        self._busy = True
        try:
            self._ended.extend(islice(self._ends[0], 1))
        except BaseException as said:
            return self._exit_slowly(exc, said)
        if not self._ended:
            return self._exit_slowly(exc, StopIteration())
        self._started, self._ended = [], []
        file.users.discard(self._user)
        if file.closed:
            file._close_if_unused()
        self._using = self._busy = False
        return None

    def _enter_slowly(self) -> Any:
        self._claim()
        targets = self._targets
        if self._started or not targets or any(file.closed for file, _ in targets):
            self._busy = False
            self._refuse("open" if self._started else "closed" if targets else "moved" if self._moved else "unset")
            return self
        self._using = True
        for file, _ in targets:
            file.users.add(self._user)
        self._start_rest(None)
        self._busy = False
        return self if self._view is None else self._view

    def _exit_slowly(self, body: Any, said: Any) -> None:
        if said is None:
            self._claim()
        interrupt, failures = self._make_ends(said)
        self._release_view()
        self._conclude(None, body, interrupt, failures)

    def _start_rest(self, said: Any) -> None:
        """START every target that has not had it; *said* came in place of the first success."""
        refusal = interrupt = None
        try:
            if self._bytes is not None:
                self._view = memoryview(self._bytes)
            while refusal is None and len(self._started) < len(self._targets):
                refusal = self._make_step(len(self._started), _START, self._starts, self._started, [], said)
                said = None
            if refusal is None and said is None:
                return
        except BaseException as surprise:
            interrupt = surprise
        try:
            self._conclude(refusal, interrupt or said, *self._make_ends(None))
            if interrupt is not None:
                raise interrupt
            if refusal is None:
                raise said
        except BaseException:
            self._release_view()
            raise

    def _make_ends(self, said: Any) -> tuple[BaseException | None, list[Any]]:
        """END everything that is open, last first, whatever is raised meanwhile: the first interrupt, all errors."""
        interrupt, failures, attempts, interrupts = None, [], [], 0
        while True:
            try:
                while (owed := len(self._started) - len(self._ended)) > 0:
                    said, answer = None, said
                    failure = self._make_step(owed - 1, _END, self._ends, self._ended, attempts, answer)
                    if failure is not None:
                        failures.append(failure)
                        self._ended.append(failure)
                    attempts = []
                self._started, self._ended = [], []
                self._stop_using_files()
                self._busy = False
                return interrupt or said, failures
            except BaseException as surprise:
                interrupt, interrupts = interrupt or surprise, interrupts + 1
                if interrupts > _MOST_INTERRUPTS and owed > 0:
                    file, access = self._targets[owed - 1]
                    failures.append(outcome.hopeless(file.fd, access | _END, surprise, interrupts))
                    self._ended.append(surprise)

    def _make_step(self, number: int, step: int, calls: Any, made: Any, attempts: Any, said: Any) -> Any:
        """One START or END, tried as often as the policy says: None, or the error to give up with; raises interrupts.

        *said* came in place of the success of a first try.
        """
        wanted = len(made) + 1
        while True:
            if not attempts and (said is not None or self._timed):
                attempts.append(outcome.Attempts(self._retry))
            if said is not None:
                file, access = self._targets[number]
                failure = outcome.refused(attempts[0], said, file.fd, access | step)
                if failure is not None:
                    return failure
            try:
                made.extend(islice(calls[number], 1))
                if len(made) < wanted:
                    raise StopIteration  # by the backend: to extend() it is the end of what there is
                return None
            except OSError as answer:
                if len(made) == wanted:
                    raise
                said = answer

    def _conclude(self, refusal: Any, body: Any, interrupt: Any, failures: Any) -> None:
        if refusal is not None or interrupt is not None or failures:
            outcome.conclude(refusal, interrupt, failures, body, self._log_only)

    def _claim(self) -> None:
        if self._made_in != _generation:
            # After a fork, what was open here is the parent's, who makes the END.
            self._made_in, self._busy, self._started, self._ended = _generation, False, [], []
            if self._using:
                outcome.inherited()
            self._stop_using_files()
        if self._busy:
            self._refuse("busy")
        self._busy = True

    def _stop_using_files(self) -> None:
        if self._using:
            for file, _ in self._targets:
                file.users.discard(self._user)
                file._close_if_unused()
            self._using = False  # last: where a signal came before, the finalizer does it again

    def _release_view(self) -> None:
        view, self._view = self._view, None
        with contextlib.suppress(BufferError):
            if view is not None:
                view.release()

    def __del__(self) -> None:
        if getattr(self, "_using", False) and self._made_in == _generation:
            open_ = bool(self._started)
            interrupt, failures = self._make_ends(None)
            if open_:
                outcome.dropped(type(self).__name__, interrupt, failures)
