"""Real EINTRs in DMA_BUF_IOCTL_SYNC, on a real kernel: a pending vgem fence makes START block, an interval timer ticks.

    python -m tests.vm.interruption_storm [--interruptions N] [--fake]

Runs as root where vgem can be loaded; with ``--fake`` on the fake kernel, on any host. Prints one JSON object: how many
EINTRs came back from the kernel in each part, and whether every window was ended once, as a recorder around the backend
saw it. Exit status 1 where something is off.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import errno
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from dmasync import DmaSyncer, DmaSyncTimeout, RetryPolicy, Step, SyncType, uapi
from dmasync.backend import LinuxBackend
from dmasync.fakes import Recorder
from dmasync.fakes.kernel import FakeFence, FakeKernel
from dmasync.harness.vgem import Vgem

TICK_SECONDS = 0.001
INTERRUPTIONS_A_WINDOW = 100
"""So few that a window is open again long before vgem signals its fence by itself, after ten seconds."""
DEADLINES = 20
DEADLINE_SECONDS = 0.02
MOST_SECONDS = 240
"""After this time it tells where it is, and gives up."""


class Device(Protocol):
    """A buffer, and work of a device on it that ends when it is told to."""

    backend: Any
    fd: int

    def attach(self) -> Any:
        """From now on START waits for the fence that is returned."""

    def signal(self, fence: Any) -> None:
        """The work is done."""


class VgemDevice:
    """The real kernel's."""

    def __init__(self) -> None:
        self.backend = LinuxBackend()
        self._vgem = Vgem.load()
        self._handle, self.fd = self._vgem.new_buffer()

    def attach(self) -> int:
        return self._vgem.attach_fence(self._handle)

    def signal(self, fence: int) -> None:
        try:
            self._vgem.signal(fence)
        except OSError as error:
            if error.errno != errno.ETIMEDOUT:  # vgem had signalled it itself
                raise


class FakeDevice:
    """The fake kernel's."""

    def __init__(self) -> None:
        self.backend = kernel = FakeKernel()
        argument = uapi.dma_heap_allocation_data.pack(4096, 0, os.O_RDWR | os.O_CLOEXEC, 0)
        kernel.ioctl(kernel.open("/dev/dma_heap/system", os.O_RDWR), uapi.DMA_HEAP_IOCTL_ALLOC, argument)
        self.fd = uapi.dma_heap_allocation_data.get(argument, "fd")

    def attach(self) -> FakeFence:
        fence = FakeFence()
        self.backend.attach_fence(self.fd, fence)
        return fence

    def signal(self, fence: FakeFence) -> None:
        fence.signal()


class Boundary:
    """The last step before the kernel: counts what ``DMA_BUF_IOCTL_SYNC`` answers.

    Between an answer and its count is no call and no backward jump, where a signal handler could come in.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.interruptions = self.starts = self.ends = 0
        self.signal_in_end = False
        """When set, a signal arrives as END is about to enter the kernel, once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def ioctl(self, fd: int, request: int, arg: Any) -> Any:
        is_end = arg[0] & uapi.DMA_BUF_SYNC_END
        if is_end and self.signal_in_end:
            self.signal_in_end = False
            signal.raise_signal(signal.SIGALRM)
        try:
            for result in map(self.inner.ioctl, (fd,), (request,), (arg,)):
                if is_end:
                    self.ends += 1
                else:
                    self.starts += 1
                return result
        except OSError as error:
            if error.errno == errno.EINTR:
                self.interruptions += 1
            raise
        raise AssertionError  # map of one call yields it


class Storm:
    """One buffer, its fence, a timer, and what a recorder saw of the windows."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.boundary = Boundary(device.backend)
        self.recorder = Recorder(self.boundary)
        self.seen = {"recorded_interruptions": 0, "starts": 0, "ends": 0, "open_windows": 0, "unmatched_ends": 0}
        self.on_tick: Callable[[], None] = self.nothing
        self.raised = 0
        self._fence: Any = None
        self._in_handler = False
        signal.signal(signal.SIGALRM, self._tick)

    def _tick(self, *_: object) -> None:
        if self._in_handler:
            return  # a tick that comes while another one is being handled: they must not pile up
        self._in_handler = True
        try:
            self.on_tick()
        finally:
            self._in_handler = False

    def nothing(self) -> None:
        """What a tick does besides interrupting."""

    def interrupt(self) -> None:
        """A tick that is the user's ^C. Whatever becomes of it, the next tick lets a START that waits go on."""
        self.on_tick = self.unblock
        self.raised += 1
        raise KeyboardInterrupt

    def block(self) -> None:
        """From now on START waits."""
        self._fence = self.device.attach()

    def unblock(self) -> None:
        """START goes on."""
        fence, self._fence = self._fence, None
        if fence is not None:
            self.device.signal(fence)

    def start_ticking(self, first: float = TICK_SECONDS, period: float = TICK_SECONDS) -> None:
        """A timer interrupts whatever sleeps."""
        signal.setitimer(signal.ITIMER_REAL, first, period)

    def stop_ticking(self) -> None:
        """No more ticks; the last one has been handled when this returns."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def settle(self) -> None:
        """Count what was recorded, insist that it balances, begin a new journal."""
        journal = self.recorder.journal
        starts, ends = journal.count(Step.START, 0), journal.count(Step.END, 0)
        self.seen["recorded_interruptions"] += journal.count(errno=errno.EINTR)
        self.seen["starts"] += starts
        self.seen["ends"] += ends
        self.seen["open_windows"] += len(journal.open_windows)
        self.seen["unmatched_ends"] += len(journal.unmatched_ends)
        journal.assert_balanced()
        if (self.seen["starts"], self.seen["ends"]) != (self.boundary.starts, self.boundary.ends):
            raise AssertionError(f"recorded: {self.seen}; the kernel: {self.boundary.starts}, {self.boundary.ends}")
        self.recorder = Recorder(self.boundary)
        gc.collect()  # while no tick can come

    def syncer(self, **options: Any) -> DmaSyncer:
        return DmaSyncer(self.device.fd, SyncType.READ_WRITE, backend=self.recorder, **options)


def retried_for_ever(storm: Storm, wanted: int) -> dict[str, Any]:
    """RetryPolicy without limit: START comes back only at the signal, however many EINTRs that takes."""
    boundary = storm.boundary
    windows = bodies = 0
    goal = boundary.interruptions + wanted
    most = 10 + 2 * wanted // INTERRUPTIONS_A_WINDOW
    while boundary.interruptions < goal:
        if windows == most:
            raise AssertionError(f"{goal - boundary.interruptions} EINTRs are missing after {windows} windows")
        until = min(goal, boundary.interruptions + INTERRUPTIONS_A_WINDOW)

        def open_when_enough(until: int = until) -> None:
            if boundary.interruptions >= until:
                storm.unblock()

        syncer = storm.syncer()
        storm.block()
        storm.on_tick = open_when_enough
        storm.start_ticking()
        with syncer:
            bodies += 1
        storm.stop_ticking()
        windows += 1
        if bodies != windows:
            raise AssertionError(f"{windows} windows had {bodies} bodies")
    storm.on_tick = storm.nothing
    return {"windows": windows, "bodies": bodies}


def given_up_at_a_deadline(storm: Storm) -> dict[str, Any]:
    """A deadline that expires: DmaSyncTimeout after as many attempts as there were EINTRs, and no window."""
    timeouts = attempts = 0
    starts = storm.boundary.starts
    for _ in range(DEADLINES):
        before = storm.boundary.interruptions
        syncer = storm.syncer(retry=RetryPolicy(deadline=DEADLINE_SECONDS))
        storm.block()
        storm.start_ticking()
        try:
            with syncer:
                raise AssertionError("a window opened although its fence was pending")
        except DmaSyncTimeout as timeout:
            timeouts += 1
            attempts += timeout.attempts
            if timeout.attempts != storm.boundary.interruptions - before:
                raise AssertionError(f"{timeout}, but {storm.boundary.interruptions - before} EINTRs") from None
        finally:
            storm.stop_ticking()
            storm.unblock()
    opened = storm.boundary.starts - starts
    if opened or storm.recorder.journal.transitions():
        raise AssertionError(f"{opened} edges succeeded under a deadline that had expired")
    return {"timeouts": timeouts, "attempts": attempts}


class Places:
    """KeyboardInterrupt in START, in the window, in END, and wherever else a tick around END happens to fall."""

    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.reached = ""
        self._draw = random.Random(7)  # noqa: S311 - no secret
        self._end_seconds = 1e-4

    def run(self, rounds: int) -> dict[str, int]:
        """How many arrived where."""
        counts = dict.fromkeys(("start", "window", "end", "behind end", "swallowed"), 0)
        for arrive in (self._in_start, self._in_window, self._in_end, *[self._around_end] * 4):
            for _ in range(rounds):
                before, caught = self.storm.raised, False
                self.reached = "start"
                # Older than the ticks, and kept beyond them: an exception in a destructor would be swallowed.
                syncer = self.storm.syncer()
                try:
                    arrive(syncer)
                    self.storm.stop_ticking()
                except KeyboardInterrupt:
                    caught = True
                self.storm.stop_ticking()
                self.storm.on_tick = self.storm.nothing
                self.storm.unblock()
                if caught:
                    counts[self.reached] += 1
                elif self.storm.raised != before:
                    counts["swallowed"] += 1
                if syncer.active:
                    raise AssertionError(f"a window was left open by an interrupt in {self.reached}")
                self.storm.settle()
        return counts

    def _in_start(self, syncer: DmaSyncer) -> None:
        storm = self.storm
        # Only a START that waits has EINTRs: from the first one on, whatever is interrupted is START.
        after = storm.boundary.interruptions + self._draw.randrange(1, 6)
        storm.block()
        storm.on_tick = lambda: storm.interrupt() if storm.boundary.interruptions >= after else None
        storm.start_ticking()
        with syncer:
            self.reached = "window"

    def _in_window(self, syncer: DmaSyncer) -> None:
        storm = self.storm
        with syncer:
            self.reached = "window"
            storm.on_tick = storm.interrupt
            storm.start_ticking()
            # Not a loop: CPython 3.12 and 3.13 forget that its backward jump is inside the with block.
            signal.pause()

    def _in_end(self, syncer: DmaSyncer) -> None:
        storm = self.storm
        storm.on_tick = storm.interrupt
        with syncer:
            storm.boundary.signal_in_end = True
            self.reached = "end"
        self.reached = "behind end"

    def _around_end(self, syncer: DmaSyncer) -> None:
        """From outside, at a moment that lies around END: before, within or behind it."""
        storm = self.storm
        with syncer:
            pass
        storm.on_tick = storm.interrupt
        with syncer:
            self.reached = "end"
            began = time.monotonic()
            storm.start_ticking(self._draw.uniform(1e-6, 1.5 * self._end_seconds), 0)
        self.reached = "behind end"
        # What it took where no signal came in between; an emulator is a hundred times slower than a processor.
        self._end_seconds = (3 * self._end_seconds + min(time.monotonic() - began, 1e-2)) / 4


def main() -> int:
    """Run all parts; print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.interruption_storm")
    parser.add_argument("--interruptions", type=int, default=10_000, help="EINTRs for windows that never give up")
    parser.add_argument("--rounds", type=int, default=100, help="KeyboardInterrupts for each place")
    parser.add_argument("--fake", action="store_true", help="on the fake kernel")
    options = parser.parse_args()
    faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
    logging.getLogger("dmasync").disabled = True  # twenty timeouts are meant to be
    # Where garbage is collected Python may call back, and an exception of a tick that comes there has nobody to go to.
    gc.disable()
    gc.freeze()
    storm = Storm(FakeDevice() if options.fake else VgemDevice())
    result: dict[str, Any] = {"kernel": "the fake" if options.fake else os.uname().release}
    for name, part in (
        ("deadline", lambda: given_up_at_a_deadline(storm)),
        ("keyboard_interrupt", lambda: Places(storm).run(options.rounds)),
        ("unlimited", lambda: retried_for_ever(storm, options.interruptions)),
    ):
        before, began = storm.boundary.interruptions, time.monotonic()
        result[name] = part()
        storm.settle()
        result[name]["interruptions"] = storm.boundary.interruptions - before
        result[name]["seconds"] = round(time.monotonic() - began, 1)
    result["interruptions"] = storm.boundary.interruptions
    result |= storm.seen
    print(json.dumps(result))
    good = result["interruptions"] >= options.interruptions and result["starts"] == result["ends"]
    good = good and result["interruptions"] == result["recorded_interruptions"]
    return 0 if good and not result["open_windows"] and not result["unmatched_ends"] else 1


if __name__ == "__main__":
    sys.exit(main())
