"""A signal handler's exception never separates a call's success from its record and its result."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType

import pytest

from dmasync import DmaSyncer, Step, SyncType, compiled, uapi
from dmasync.fakes import FakeBackend, Sanitizer, faults
from dmasync.fakes.journal import INTERRUPTED
from dmasync.fakes.layers.injector import FaultInjector
from dmasync.fakes.layers.recorder import Recorder
from tests.support.real_memfds import RecordingBackend
from tests.unit.layers.test_injector import heap_buffer

SYNC = uapi.DMA_BUF_IOCTL_SYNC
START = uapi.dma_buf_sync.pack(SyncType.READ_WRITE.value | Step.START.value)


class Tick(BaseException):
    pass


# A process of its own sends the signals, one for each request: the interval timers belong to whoever runs the tests,
# and a signal every few microseconds would leave a slow interpreter no time for anything but their handler.
SENDER = """
import os, random, signal, sys, time
parent = int(sys.argv[1])
while os.read(0, 1):
    until = time.perf_counter() + random.random() * 0.0001
    while time.perf_counter() < until:
        pass
    os.kill(parent, signal.SIGUSR1)
"""


@pytest.fixture(params=[1, pytest.param(4, marks=pytest.mark.nightly)], ids=["short", "long"])
def storm_of_ticks(request: pytest.FixtureRequest) -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """Calls a function again and again until Ticks, raised wherever handlers run in it, have ended it so often."""
    if sys.gettrace() is not None or (sys.version_info >= (3, 12) and sys.monitoring.get_tool(1)):
        pytest.skip("a coverage tracer runs Python code with locks held: an exception from a handler would hang it")
    inside: CodeType | None = None
    sender = subprocess.Popen([sys.executable, "-c", SENDER, str(os.getpid())], stdin=subprocess.PIPE)
    assert sender.stdin is not None
    requests = sender.stdin.fileno()

    def handler(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is inside:
                raise Tick
            frame = frame.f_back
        if inside is not None:
            os.write(requests, b"!")  # it came between two calls: once more

    def storm(rounds: int, step: Callable[[], None]) -> None:
        nonlocal inside
        step()  # once in peace: where every signal comes at once, there is still something to see
        inside = step.__code__
        for _ in range(rounds * request.param):
            os.write(requests, b"!")
            try:
                while True:
                    step()
            except Tick:
                pass
        inside = None

    previous = signal.signal(signal.SIGUSR1, handler)
    # A finalizer swallows what is raised in it, and those of earlier tests may run in any later one.
    gc.collect()
    gc.disable()
    yield storm
    gc.enable()
    inside = None
    sender.communicate()
    signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("stacks", [False, True])
def test_every_success_is_recorded_and_returned_under_a_storm_of_signals(backend, pipe, storm_of_ticks, stacks):
    recorder = Recorder(FaultInjector(backend), stacks=stacks)
    ioctl = recorder.ioctl
    returned = 0

    def step() -> None:
        nonlocal returned
        for _ in map(ioctl, (pipe[0],), (SYNC,), (START,)):
            returned += 1
            return

    storm_of_ticks(150, step)

    recorded = len(recorder.journal.transitions())
    assert backend.succeeded == recorded == returned
    assert returned > 0


def test_every_success_of_a_compiled_function_is_recorded_under_a_storm_of_signals(pipe, storm_of_ticks):
    beneath = RecordingBackend()
    recorder = Recorder(beneath)
    storm_of_ticks(100, lambda: recorder.ioctl(pipe[0], SYNC, START))
    recorded = [(entry.fd, entry.step.name) for entry in recorder.journal.transitions()]
    assert recorded == beneath.succeeded()
    assert len(recorded) > 0


def test_signals_inside_the_layer_beneath_are_recorded_as_interrupted(backend, pipe, storm_of_ticks):
    moments = random.Random(1)  # noqa: S311 - must be repeatable, not unpredictable

    class Slow(type(backend)):  # type: ignore[misc]
        def _ioctl(self, fd, request, arg=0):
            # On a machine with one core the sender's signals may all come at the same place, so some are its own.
            moment = moments.randrange(100)
            for step in range(50):
                if step == moment:
                    signal.raise_signal(signal.SIGUSR1)
            for result in map(super()._ioctl, (fd,), (request,), (arg,)):
                return result
            raise AssertionError

    slow = Slow()
    recorder = Recorder(slow)
    seen = 0

    def step() -> None:
        nonlocal seen
        for _ in map(recorder.ioctl, (pipe[0],), (SYNC,), (START,)):
            seen += 1
            return

    storm_of_ticks(100, step)
    codes = [attempt.errno for attempt in recorder.journal.attempts]
    assert codes.count(0) == slow.succeeded == seen
    assert codes.count(INTERRUPTED) > 0
    assert set(codes) == {0, INTERRUPTED}


def test_refusals_are_recorded_exactly_under_signals(backend, pipe, storm_of_ticks):
    refused = 0

    class Refusing(type(backend)):  # type: ignore[misc]
        def _ioctl(self, fd, request, arg=0):
            nonlocal refused
            error = BlockingIOError(11, "no")
            refused += 1
            raise error

    recorder = Recorder(Refusing())

    def step() -> None:
        with contextlib.suppress(OSError):
            recorder.ioctl(pipe[0], SYNC, START)

    storm_of_ticks(100, step)
    codes = [attempt.errno for attempt in recorder.journal.attempts]
    # A refusal counted by the inner layer may have become an interruption before it left that layer, never a gap.
    assert 0 < codes.count(11) <= refused
    assert len(codes) >= refused


def test_descriptors_are_neither_lost_nor_unrecorded_under_signals(backend, storm_of_ticks, tmp_path):
    path = tmp_path / "file"
    path.touch()
    recorder = Recorder(FaultInjector(backend))
    before = len(os.listdir("/proc/self/fd"))
    kept: list[int] = []

    def step() -> None:
        for fd in map(recorder.open, (str(path),), (os.O_RDONLY,)):
            kept.append(fd)  # done, in C, before a handler can run
            os.close(fd)
            return

    storm_of_ticks(100, step)
    opened = [call.result for call in recorder.journal.calls if call.succeeded]
    for fd in set(kept):
        with contextlib.suppress(OSError):
            os.close(fd)
    assert opened == kept
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_plan_survives_interruptions(backend, pipe, storm_of_ticks):
    injector = FaultInjector(backend, [faults.mix(7, rate=1.0), faults.storm(4, None)])

    def step() -> None:
        with pytest.raises(OSError, match=r"Interrupted|temporarily"):
            injector.ioctl(pipe[0], SYNC, START)

    storm_of_ticks(100, step)
    assert len(injector.pending) == 2
    assert backend.succeeded == 0


@pytest.mark.skipif(
    not compiled, reason="in plain Python a storm may delay an END until its window is dropped, and lose it there"
)
@pytest.mark.parametrize(
    "coherent",
    [
        True,
        pytest.param(
            False,
            marks=pytest.mark.xfail(
                sys.version_info < (3, 11),
                reason="CPython 3.10 looks for signals where an except clause begins: the fake forgets a START there",
                strict=False,
            ),
        ),
    ],
)
def test_windows_balance_over_the_fake_kernel_under_a_storm_of_signals(storm_of_ticks, coherent):
    backend = FakeBackend(coherent=coherent)
    fd = heap_buffer(backend)
    syncer = DmaSyncer(fd, backend=backend)

    def step() -> None:
        with syncer:
            pass

    storm_of_ticks(100, step)
    backend.journal.assert_balanced()
    assert len(backend.journal.transitions()) > 0
    if not coherent:
        assert backend.kernel.buffer_of(fd).memory._windows == []
    backend.close(fd)
    assert Sanitizer(backend).findings() == []
