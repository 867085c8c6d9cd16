"""Which START an END ends: the one rule, for everything that pairs them.

The kernel pairs nothing, it only moves bytes. Windows of one buffer may be nested, overlap and belong to several
threads, and a window may be ended by another thread than the one that opened it. So an END ends the latest of the
buffer's open windows that

1. its own thread opened for the same access, or where there is none,
2. any thread opened for the same access, or
3. its own thread opened for another access, or
4. any thread opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from dmasync import Step, SyncType
from dmasync.fakes.journal.entries import Transition


class Opened(Protocol):
    """A window that is open: a START's transition, or whatever else says these two things."""

    @property
    def access(self) -> SyncType:
        """What it was opened for."""

    @property
    def thread(self) -> int:
        """``threading.get_ident()`` of who opened it."""


def ended_by(access: SyncType, thread: int, windows: Sequence[Opened]) -> int | None:
    """Which of *windows* an END for *access* from *thread* ends: its index, None where no window is open.

    *windows* are those of one buffer, in the order in which they were opened.
    """
    found, closest = None, -1
    for index in range(len(windows) - 1, -1, -1):
        window = windows[index]
        closeness = 2 * (window.access == access) + (window.thread == thread)
        if closeness > closest:
            found, closest = index, closeness
            if closeness == 3:
                break
    return found


class Window(NamedTuple):
    """From a START to its END; without one where it was never ended."""

    start: Transition
    end: Transition | None


class Pairs(NamedTuple):
    """What an account of START and END amounts to."""

    windows: tuple[Window, ...]
    """In the order of their STARTs."""
    unmatched_ends: tuple[Transition, ...]
    """ENDs that found no window open."""

    @property
    def never_ended(self) -> tuple[Transition, ...]:
        """The STARTs without an END."""
        return tuple(window.start for window in self.windows if window.end is None)


def paired(attempts: Iterable[Transition]) -> Pairs:
    """The windows that *attempts*, in their order, opened and ended; those that were refused count for nothing."""
    windows: list[Window] = []
    unmatched: list[Transition] = []
    open_: dict[int | None, list[Transition]] = {}
    places: dict[int, int] = {}
    for attempt in attempts:
        if attempt.errno:
            continue
        starts = open_.setdefault(attempt.buffer, [])
        if attempt.step is Step.START:
            places[attempt.sequence] = len(windows)
            windows.append(Window(attempt, None))
            starts.append(attempt)
            continue
        index = ended_by(attempt.access, attempt.thread, starts)
        if index is None:
            unmatched.append(attempt)
        else:
            start = starts.pop(index)
            windows[places.pop(start.sequence)] = Window(start, attempt)
    return Pairs(tuple(windows), tuple(unmatched))
