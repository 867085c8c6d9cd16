"""Storms of real signals, and descriptors counted in /proc."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import pytest


class Tick(BaseException):
    """What the signal handler raises."""


Storm = Callable[..., int]

DISTANCES = (4e-6, 15e-6, 40e-6, 100e-6)
"""Seconds from one signal to the next."""

# CPython 3.10 also runs handlers on entry to an except clause, where nothing can protect what the clause is about to
# do: there a second exception must not come while the first is being dealt with (see dmasync.interrupts).
ONE_AT_A_TIME = sys.version_info < (3, 11)


def restore(number: int, handler: Any) -> None:
    """Put a signal's handler back. Where there was none, one that does nothing stays: CPython says "ignored due to race
    condition" of a signal that came just before and finds none.
    """
    signal.signal(number, handler if callable(handler) else lambda *_: None)


@pytest.fixture
def storm() -> Iterator[Storm]:
    """``storm(rounds, step, check)``: calls *step* until a Tick has ended it, then *check*, *rounds* times.

    Ticks come from a real timer, at random distances from a few microseconds on, so that one may also come while
    another is being dealt with; a handler raises only while *step* runs. A test that uses this needs
    ``pytest.mark.timeout(method="thread")``: the timer is the same one.
    """
    inside: CodeType | None = None
    distances = random.Random(1)  # noqa: S311 - must be repeatable, not unpredictable

    armed = True
    raised = False

    deciding = False

    def handler(_: int, frame: FrameType | None) -> None:
        nonlocal deciding, raised
        # One at a time: handlers that interrupt each other would each find more frames to look through than the last,
        # until there is no stack left.
        if not armed or deciding:
            return
        deciding = True
        try:
            hit = False
            while frame is not None and frame.f_code is not hold.__code__ and not hit:
                hit = frame.f_code is inside
                frame = frame.f_back
            if hit and not (raised and ONE_AT_A_TIME):
                raised = True
                raise Tick
        finally:
            deciding = False
            distance = distances.choice(DISTANCES) * (0.5 + distances.random())
            signal.setitimer(signal.ITIMER_REAL, distance, 1e-3)

    # A Tick that comes in a __del__ has nobody to go to; every other exception there is a failure.
    lost: list[str] = []

    def hold(problem: sys.UnraisableHookArgs) -> None:
        nonlocal raised
        if isinstance(problem.exc_value, Tick):
            raised = False
        else:
            lost.append("".join(traceback.format_exception(problem.exc_value)[-30:]))

    def storm(rounds: int, step: Callable[[], object], check: Callable[[], object]) -> int:
        nonlocal inside, raised
        inside = step.__code__
        for _ in range(rounds):
            raised = False
            try:
                while True:
                    step()
            except Tick:
                pass
            # Exceptions on their way can form cycles with the frames that they came through.
            gc.collect()
            check()
        inside = None
        return rounds

    gc.collect()
    gc.freeze()  # see tests/conftest.py
    before = signal.signal(signal.SIGALRM, handler)
    hook = sys.unraisablehook
    sys.unraisablehook = hold
    signal.setitimer(signal.ITIMER_REAL, 50e-6, 1e-3)
    try:
        with warnings.catch_warnings():
            # What is dropped half-made says so; here it is dropped on purpose.
            warnings.simplefilter("ignore", ResourceWarning)
            yield storm
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        restore(signal.SIGALRM, before)
        sys.unraisablehook = hook
    assert lost == []


@pytest.fixture
def open_files() -> Callable[[], int]:
    """How many file descriptors this process has open."""
    return lambda: len(os.listdir("/proc/self/fd"))
