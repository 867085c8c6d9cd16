"""File and Window in plain Python, for machines that have no compiled core: dmasync/_window.c says what they are for.

They promise what the compiled ones promise, but for one thing: an exception that a signal handler raises between two
bytecodes of this file may delay an END until the window is dropped (or lose it, if it comes while a dropped window is
being finalized). Without the GIL, a window that two threads use at once may not be refused. ``_window.pyi`` documents
each method.
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


def _count_fork() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_count_fork)


class File:
    __slots__ = (
        "__weakref__",
        "_argument",
        "_offset",
        "_result",
        "backend",
        "closed",
        "ioctl",
        "keeps",
        "owned",
        "windows",
    )

    def __init__(self, fd: int | None, backend: Any, owned: bool = False, keeps: object = None, /) -> None:
        self._result, self.owned = [] if fd is None else [fd], owned
        self._offset, self._argument = None, b""
        self.backend, self.ioctl, self.keeps = backend, backend.ioctl, keeps
        self.closed, self.windows = False, 0

    @staticmethod
    def opened(backend: Any, offset: int | None, call: Any, /, *arguments: Any) -> File:
        file = File(None, backend, True)
        file._offset, file._argument = offset, arguments[-1]
        # One step: list.extend, in C, appends what map, in C, has called.
        file._result.extend(map(call, *((argument,) for argument in arguments)))
        return file

    @property
    def fd(self) -> int:
        if self._offset is None:
            return self._result[0]
        return int(memoryview(self._argument)[self._offset : self._offset + 4].cast("i")[0])

    def close(self) -> None:
        self.closed = True
        self._close_if_unused()

    def release(self) -> int:
        self.owned = False
        self.close()
        return self.fd

    def _close_if_unused(self) -> None:
        if self.closed and self.owned and not self.windows and self._result:
            fd, close = self.fd, self.backend.close
            self.owned = False  # forgotten first, closed second: the number may be another file's afterwards
            close(fd)

    def __del__(self) -> None:
        self.close()


class Window:
    __slots__ = (
        "__weakref__", "_busy", "_bytes", "_ended", "_ends", "_log_only", "_made_in", "_moved", "_retry", "_started",
        "_starts", "_targets", "_timed", "_using", "_view",
    )  # fmt: skip

    def __new__(cls, *_: Any, **__: Any) -> Any:
        self = super().__new__(cls)
        self._targets, self._retry, self._timed, self._log_only = (), None, False, False
        # What the kernel answered to each START, and to each END; the difference in length is how many are owed.
        self._started, self._ended = [], []
        self._busy = self._moved = self._using = False
        self._bytes = self._view = None
        self._made_in = _generation
        return self

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._set_up(*arguments, **options)

    def _prepare(self, targets: Any, ioctl: Any, retry: Any, timed: bool, log_only: bool, /) -> None:
        self._claim()
        self._busy = False
        if self._started:
            self._refuse("open")
        self._targets, self._retry, self._timed, self._log_only, self._moved = targets, retry, timed, log_only, False
        self._starts, self._ends = (
            [
                starmap(ioctl or file.ioctl, repeat((file.fd, _SYNC, uapi.dma_buf_sync.pack(access | step))))
                for file, access in targets
            ]
            for step in (_START, _END)
        )

    def _move(self, heir: Any, /) -> None:
        self._claim()
        heir._retry, heir._timed, heir._log_only, heir._moved = self._retry, self._timed, self._log_only, self._moved
        if self._targets:
            heir._starts, heir._ends, heir._targets = self._starts, self._ends, self._targets
        # No call in between: whatever a signal handler raises, exactly one of the two owes the END.
        heir._using, heir._made_in, heir._started = self._using, self._made_in, self._started
        self._targets, self._using, self._started, self._moved, self._busy = (), False, [], True, False

    @property
    def active(self) -> bool:
        return bool(self._started) and self._made_in == _generation

    def start(self) -> None:
        Window.__enter__(self)

    def end(self) -> None:
        Window.__exit__(self, None, None, None)

    def __enter__(self) -> Any:
        if self._busy or self._made_in != _generation:
            self._claim()
        self._busy = True
        targets = self._targets
        if self._started or not targets or not self._use_files():
            self._busy = False
            self._refuse("open" if self._started else "closed" if targets else "moved" if self._moved else "unset")
            return self
        try:
            if self._bytes is not None:
                self._view = memoryview(self._bytes)
            if len(targets) == 1 and not self._timed:
                self._started.extend(islice(self._starts[0], 1))
            else:
                self._start_rest(None)
        except BaseException as said:
            self._start_rest(said)
        self._busy = False
        return self if self._view is None else self._view

    def __exit__(self, exc_type: Any, exc: Any, traceback: Any, /) -> None:
        if self._busy or self._made_in != _generation:
            self._claim()
        self._busy = True
        if self._started and len(self._targets) == 1 and not self._timed:
            try:
                self._ended.extend(islice(self._ends[0], 1))
            except BaseException as said:
                return self._conclude(None, exc, *self._make_ends(said))
            self._started, self._ended = [], []
            self._stop_using_files()
            if self._view is not None:
                self._release_view()
            return None
        ended = self._make_ends(None)
        self._release_view()
        return self._conclude(None, exc, *ended)

    def _start_rest(self, said: BaseException | None) -> None:
        """START every target that has not had it; *said* came in place of the first success."""
        refusal = interrupt = None
        try:
            while refusal is None and len(self._started) < len(self._targets):
                number = len(self._started)
                refusal = self._make_step(number, _START, self._starts, self._started, [], said)
                said = None
        except BaseException as surprise:
            interrupt = surprise
        if refusal is None and interrupt is None:
            return
        try:
            self._conclude(refusal, interrupt, *self._make_ends(None))
            if interrupt is not None:
                raise interrupt
        except BaseException:
            self._release_view()
            raise

    def _make_ends(self, said: BaseException | None) -> tuple[BaseException | None, list[Any]]:
        """END everything that is open, last first, whatever is raised meanwhile: the first interrupt, and all errors."""
        interrupt: BaseException | None = None
        failures: list[Any] = []
        attempts: list[Any] = []
        count = 0
        while True:
            failure = None
            try:
                while len(self._ended) < len(self._started):
                    number = len(self._started) - len(self._ended) - 1
                    failure = self._make_step(number, _END, self._ends, self._ended, attempts, said)
                    said, attempts = None, []
                    if failure is not None:
                        failures.append(failure)
                        self._ended.append(failure)
                self._started, self._ended = [], []
                self._stop_using_files()
                self._busy = False
                return interrupt, failures
            except BaseException as surprise:
                said, interrupt, count = None, interrupt or surprise, count + 1
                if count > _MOST_INTERRUPTS and len(self._ended) < len(self._started):
                    file, access = self._targets[len(self._started) - len(self._ended) - 1]
                    failures.append(outcome.hopeless(file.fd, access | _END, surprise, count))
                    self._ended.append(surprise)

    def _make_step(self, number: int, step: int, calls: Any, made: Any, attempts: Any, said: Any) -> Any:
        """One START or END, tried as often as the policy says: None, or the error to give up with. Raises interrupts."""
        wanted = len(made) + 1
        file, access = self._targets[number]
        while True:
            if not attempts and (self._timed or said is not None):
                attempts.append(outcome.Attempts(self._retry))
            if said is not None:
                failure = outcome.refused(attempts[0], said, file.fd, access | step)
                if failure is not None:
                    return failure
            try:
                made.extend(islice(calls[number], 1))
                return None
            except OSError as error:
                if len(made) == wanted:
                    raise
                said = error

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

    def _use_files(self) -> bool:
        for file, _ in self._targets:
            if file.closed:
                return False
        for file, _ in self._targets:
            file.windows += 1
        self._using = True
        return True

    def _stop_using_files(self) -> None:
        if self._using:
            self._using = False
            for file, _ in self._targets:
                file.windows -= 1
                if file.closed:
                    file._close_if_unused()

    def _release_view(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            with contextlib.suppress(BufferError):
                view.release()

    def __del__(self) -> None:
        if self._started and self._made_in == _generation:
            outcome.dropped(type(self).__name__, *self._make_ends(None))
