"""SIGINT and SIGQUIT are the program's to answer: a terminal sends them to it as well, anybody else to this process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final

NUMBERS: Final = (signal.SIGINT, signal.SIGQUIT)


class KeyboardSignals:
    """A context manager: in its block they end nothing here."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._mask: set[Any] = set()

    def __enter__(self) -> KeyboardSignals:
        if threading.current_thread() is threading.main_thread():  # no other may set a handler
            # Held back, so that a thread of ours takes them and is told who sent them.
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
            self._before = {number: signal.signal(number, signal.SIG_IGN) for number in NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)  # what still waits is dropped: it is ignored
            self._put_back()

    def restore(self) -> None:
        """In the child that becomes the program: it gets them as this process did."""
        if self._before:
            self._put_back()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    @contextlib.contextmanager
    def passed_on(self, send: Callable[[int], object]) -> Iterator[None]:
        """In the block, what somebody sends to this process alone is given to *send*."""
        if not self._before:
            yield
            return
        over = threading.Event()

        def pass_on() -> None:
            while True:
                taken = signal.sigwaitinfo(NUMBERS)
                if over.is_set():
                    return
                if taken.si_code <= 0:  # a process sent it; the terminal's own, from the kernel, the program has
                    send(taken.si_signo)

        thread = threading.Thread(target=pass_on, name="dmasync-run-keyboard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            assert thread.ident is not None  # noqa: S101 - it has been started
            signal.pthread_kill(thread.ident, signal.SIGINT)
            thread.join()
