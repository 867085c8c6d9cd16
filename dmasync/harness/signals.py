"""The signals that ask a command to end: what it does on them, and that the caller's own handlers come back."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
"""A job is ended by the first, a closed terminal sends the second."""


@contextlib.contextmanager
def answering(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call *handler* on each of :data:`ENDING` while the block runs.

    One that is ignored stays so, as nohup wants it. In a thread other than the main one, which may set no handler,
    nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    answered = [number for number in ENDING if before[number] is not signal.SIG_IGN]
    try:
        for number in answered:
            signal.signal(number, handler)
        yield
    finally:
        for number in answered:
            # None: somebody set it without Python, which cannot set that again.
            signal.signal(number, before[number] or signal.SIG_DFL)


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that machines and processes that a command started are ended first."""
    raise SystemExit(128 + number)
