"""SIGINT and SIGQUIT are the program's to answer: what this process alone was sent is passed on to it."""

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
            # Held back, so that a thread of ours takes them.
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
    def passed_on(self, pass_on: Callable[[int], object]) -> Iterator[None]:
        """In the block, what is sent to this process is given to *pass_on*, which knows whether the program has it."""
        if not self._before:
            yield
            return
        over = threading.Event()

        def take() -> None:
            while True:
                number = signal.sigwait(NUMBERS)
                if over.is_set():
                    return
                pass_on(number)

        thread = threading.Thread(target=take, name="dmasync-run-keyboard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            assert thread.ident is not None  # noqa: S101 - it has been started
            signal.pthread_kill(thread.ident, signal.SIGINT)
            thread.join()
