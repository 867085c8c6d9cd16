"""Real EINTRs in DMA_BUF_IOCTL_SYNC, on a real kernel: a pending vgem fence makes START block, an interval timer ticks.

    python -m tests.vm.interruption_storm [--interruptions N]

Runs as root where vgem can be loaded. Prints one JSON object: how many EINTRs came from the kernel in each part, and
whether every window was ended once, as a recorder around the real backend saw it. Exit status 1 where something is off.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from dmasync import DmaSyncer, DmaSyncTimeout, RetryPolicy, Step, SyncType, uapi
from dmasync.backend import LinuxBackend
from fakes import Recorder
from tests.conformance.vgem import Vgem

TICK_SECONDS = 0.0005
TICKS_FOR_AN_INTERRUPTION = 2
ATTACH_AGAIN_SECONDS = 5.0
"""vgem signals a fence by itself after ten seconds; a new one is there before."""


class SignalInEnd:
    """A layer in which, when *armed*, a signal arrives as END is about to enter the kernel."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.armed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def ioctl(self, fd: int, request: int, arg: Any) -> Any:
        if self.armed and arg[0] & uapi.DMA_BUF_SYNC_END:
            self.armed = False
            signal.raise_signal(signal.SIGALRM)
        # In C from the success to the return, so that a later signal cannot hide it.
        for result in map(self.inner.ioctl, (fd,), (request,), (arg,)):
            return result
        raise AssertionError


class Storm:
    """One vgem buffer, its fence, a timer, and what a recorder saw of the windows."""

    def __init__(self) -> None:
        self.vgem = Vgem()
        self.handle, self.fd = self.vgem.buffer()
        self.kernel = SignalInEnd(LinuxBackend())
        self.recorder = Recorder(self.kernel)
        self.seen = {"interruptions": 0, "starts": 0, "ends": 0, "open_windows": 0, "unmatched_ends": 0}
        self.on_tick: Callable[[], None] = lambda: None
        self.ticks = 0
        self._fence: int | None = None
        self._attached = 0.0
        signal.signal(signal.SIGALRM, self._tick)

    def _tick(self, *_: object) -> None:
        self.ticks += 1
        if self._fence is not None and time.monotonic() - self._attached > ATTACH_AGAIN_SECONDS:
            # Nobody waits at this moment, a handler runs; and vgem takes one fence at a time.
            self.unblock()
            self.block()
        self.on_tick()

    def block(self) -> None:
        """From now on START waits."""
        self._fence = self.vgem.attach(self.handle)
        self._attached = time.monotonic()

    def unblock(self) -> None:
        """START goes on."""
        if self._fence is not None:
            fence, self._fence = self._fence, None
            self.vgem.signal(fence)

    @contextlib.contextmanager
    def ticking(self, seconds: float = TICK_SECONDS) -> Iterator[None]:
        """A timer that interrupts whatever sleeps."""
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.on_tick = lambda: None

    def settle(self) -> None:
        """Count what was recorded, insist that it balances, begin a new journal."""
        journal = self.recorder.journal
        self.seen["interruptions"] += journal.count(errno=errno.EINTR)
        self.seen["starts"] += journal.count(Step.START, 0)
        self.seen["ends"] += journal.count(Step.END, 0)
        self.seen["open_windows"] += len(journal.open_windows)
        self.seen["unmatched_ends"] += len(journal.unmatched_ends)
        journal.assert_balanced()
        self.recorder = Recorder(self.kernel)

    def syncer(self, **options: Any) -> DmaSyncer:
        return DmaSyncer(self.fd, SyncType.READ_WRITE, backend=self.recorder, **options)


def retried_for_ever(storm: Storm, wanted: int) -> dict[str, Any]:
    """RetryPolicy without limit: START comes back only at the signal, however many EINTRs that takes."""
    windows, bodies = 10, 0
    for number in range(windows):
        # Ticks are what a handler can count: the journal is locked while it runs. Two that come close are one EINTR.
        until = storm.ticks + TICKS_FOR_AN_INTERRUPTION * wanted // windows
        storm.block()
        storm.on_tick = lambda until=until: storm.unblock() if storm.ticks >= until else None
        with storm.ticking(), storm.syncer():
            bodies += 1
            storm.on_tick = lambda: None
        assert bodies == number + 1
    return {"windows": windows, "bodies": bodies}


def given_up_at_a_deadline(storm: Storm) -> dict[str, Any]:
    """A deadline that expires: DmaSyncTimeout, no window was opened, so none is ended."""
    timeouts, attempts = 0, 0
    storm.block()
    with storm.ticking():
        for _ in range(20):
            try:
                with storm.syncer(retry=RetryPolicy(deadline=0.02)):
                    raise AssertionError("a window opened although its fence was pending")
            except DmaSyncTimeout as timeout:
                timeouts += 1
                attempts += timeout.attempts
    storm.unblock()
    opened = len(storm.recorder.journal.transitions())
    if opened:
        raise AssertionError(f"{opened} edges succeeded under a deadline that had expired")
    return {"timeouts": timeouts, "attempts": attempts}


def interrupted_by_the_user(storm: Storm, rounds: int) -> dict[str, Any]:
    """KeyboardInterrupt in START, in the window and in END, and wherever else a tick happens to fall."""
    places = {"start": 0, "window": 0, "end": 0, "not at all": 0}
    draw = random.Random(7)  # noqa: S311 - no secret

    def interrupt() -> None:
        storm.on_tick = lambda: None
        raise KeyboardInterrupt

    for place in ("start", "window", "end", "around end"):
        for _ in range(rounds):
            reached = "start"
            if place == "start":
                storm.block()
                after = storm.ticks + draw.randrange(1, 6)
                storm.on_tick = lambda after=after: interrupt() if storm.ticks >= after else None
            try:
                with storm.ticking():
                    with storm.syncer():
                        reached = "window"
                        if place == "window":
                            storm.on_tick = interrupt
                            while storm.on_tick is interrupt:
                                pass
                        if place == "end":
                            storm.on_tick = interrupt
                            signal.setitimer(signal.ITIMER_REAL, 0)
                            storm.kernel.armed = True
                        if place == "around end":
                            # From outside, at a moment that lies around END: before, within or behind it.
                            storm.on_tick = interrupt
                            signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 6e-5))
                        reached = "end"
                    if place == "around end":
                        while storm.on_tick is interrupt:
                            reached = "not at all"
            except KeyboardInterrupt:
                places[reached] += 1
            else:
                places["not at all"] += 1
            finally:
                storm.on_tick = lambda: None
                storm.unblock()
            storm.settle()
    return places


def main() -> int:
    """Run all parts; print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--interruptions", type=int, default=10_000)
    options = parser.parse_args()
    logging.getLogger("dmasync").disabled = True  # twenty timeouts are meant to be
    storm = Storm()
    result: dict[str, Any] = {"kernel": os.uname().release}
    rounds = max(20, options.interruptions // 50)
    for name, part in (
        ("deadline", lambda: given_up_at_a_deadline(storm)),
        ("keyboard_interrupt", lambda: interrupted_by_the_user(storm, rounds)),
        ("unlimited", lambda: retried_for_ever(storm, options.interruptions)),
    ):
        before, began = storm.seen["interruptions"], time.monotonic()
        result[name] = part()
        storm.settle()
        result[name]["interruptions"] = storm.seen["interruptions"] - before
        result[name]["seconds"] = round(time.monotonic() - began, 1)
    result |= storm.seen
    print(json.dumps(result))
    good = result["interruptions"] >= options.interruptions and result["starts"] == result["ends"]
    return 0 if good and not result["open_windows"] and not result["unmatched_ends"] else 1


if __name__ == "__main__":
    sys.exit(main())
