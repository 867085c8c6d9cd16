"""Windows that garbage collection finds in a cycle: finalizers run in any order, each START gets one END."""

from __future__ import annotations

import errno
import gc

import pytest

from dmasync import (
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncerGroup,
    DmaSyncError,
    RetryPolicy,
    Step,
    SyncType,
)
from dmasync.fakes import faults

START, END = Step.START, Step.END


@pytest.fixture(autouse=True)
def collecting_when_told():
    """The collections of these tests are their own: one that comes by itself finds the cycle half made."""
    gc.collect()
    gc.freeze()  # see tests/conftest.py
    gc.disable()
    yield
    gc.enable()


def allocated(backend):
    """A buffer that the test drops itself."""
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        return allocator.alloc("frame", 4096)


def steps(backend):
    return [transition.step for transition in backend.journal.transitions()]


WINDOWS = {
    "syncer": DmaSyncer,
    "deadline": lambda buffer: DmaSyncer(buffer, retry=RetryPolicy(deadline=60)),
    "access": lambda buffer: buffer.cpu_access(),
    "group": lambda buffer: DmaSyncerGroup([(buffer, SyncType.READ)]),
}
windows = pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)


class Owner:
    def __init__(self, window):
        self.window = window
        self.cycle = self
        window.start()

    def __del__(self):
        self.window.end()


@windows
def test_an_owner_that_ends_its_window_when_it_is_finalized_does_not_end_it_twice(backend, buffer, window):
    Owner(window(buffer))
    with pytest.warns(ResourceWarning, match="was dropped"):
        gc.collect()
    assert steps(backend) == [START, END]


@windows
def test_a_generator_that_is_collected_inside_its_window_does_not_end_it_twice(backend, buffer, window):
    def work(window, cycle):
        with window:
            yield

    cycle = []
    cycle.append(work(window(buffer), cycle))
    next(cycle[0])
    del cycle
    with pytest.warns(ResourceWarning, match="was dropped"):
        gc.collect()
    assert steps(backend) == [START, END]


def test_other_windows_of_the_kind_end_as_ever(backend, buffer):
    before, after = DmaSyncer(buffer), DmaSyncer(buffer)
    before.start()
    Owner(DmaSyncer(buffer))
    with pytest.warns(ResourceWarning, match="was dropped"):
        gc.collect()
    after.start()
    assert steps(backend) == [START, START, END, START]
    before.end()
    after.end()
    assert (before.active, after.active) == (False, False)
    assert steps(backend) == [START, START, END, START, END, END]


class Reviver:
    """What it holds, it puts back when it is finalized."""

    def __init__(self, window, found):
        self.window = window
        self.found = found
        self.cycle = self

    def __del__(self):
        self.found.append(self.window)


def revived(make):
    """The window of *make*, opened, dropped while it was open, and back."""
    window = make()
    window.start()
    found = []
    Reviver(window, found)
    del window
    with pytest.warns(ResourceWarning, match="was dropped"):
        gc.collect()
    return found.pop()


def test_each_of_several_windows_of_a_kind_that_are_dropped_gets_its_end(backend, buffer):
    dropped = []
    for _ in range(3):
        dropped.append(DmaSyncer(buffer))
        dropped[-1].start()
    for ended in (1, 2, 3):
        with pytest.warns(ResourceWarning, match="was dropped"):
            del dropped[0]
        assert steps(backend) == [START] * 3 + [END] * ended


KINDS = pytest.mark.parametrize("keywords", [{}, {"on_error": "log"}], ids=["usual", "unusual"])


@pytest.mark.parametrize("held", [True, False], ids=["buffer held", "buffer dropped"])
@KINDS
def test_a_syncer_that_is_revived_can_be_used_again(backend, keywords, held):
    buffer = allocated(backend)
    found = []
    syncer = DmaSyncer(buffer, **keywords)
    syncer.start()
    Reviver(syncer, found)
    kept = [buffer] if held else []
    with pytest.warns(ResourceWarning, match="was dropped|unclosed"):
        del syncer, buffer
        gc.collect()
    syncer = found.pop()
    syncer.end()
    assert steps(backend) == [START, END]
    for _ in range(2):
        with syncer:
            pass
    assert steps(backend) == [START, END] * 3
    for buffer in kept:
        buffer.close()
        with pytest.raises(ValueError, match="was closed"):
            syncer.start()
    del syncer
    assert backend.kernel.open_fds() == {}


@KINDS
def test_a_syncer_that_is_revived_does_not_open_a_buffer_that_was_closed(backend, buffer, keywords):
    syncer = revived(lambda: DmaSyncer(buffer, **keywords))
    syncer.end()
    buffer.close()
    with pytest.raises(ValueError, match="was closed"):
        syncer.start()
    assert steps(backend) == [START, END]


def test_a_start_of_a_revived_syncer_that_failed_keeps_no_descriptor_open(backend, buffer):
    syncer = revived(lambda: DmaSyncer(buffer))
    syncer.end()
    backend.inject(faults.error(errno.EIO))
    fd = buffer.fileno()
    with pytest.raises(DmaSyncError) as caught:
        syncer.start()
    buffer.close()
    assert fd not in backend.kernel.open_fds()
    assert caught.value.__traceback__ is not None


@KINDS
@pytest.mark.parametrize("first", ["window", "user"])
def test_a_window_that_a_finalizer_opens_behind_the_end_of_another_gets_its_end(backend, keywords, first):
    class User:
        def __init__(self, syncer):
            self.syncer = syncer

        def __del__(self):
            with self.syncer:
                pass

    buffer = allocated(backend)
    cycle = [DmaSyncer(buffer, **keywords)]
    if first == "user":
        cycle.append(User(cycle[0]))
    window = DmaSyncer(buffer, **keywords)
    if first == "window":
        cycle.append(User(cycle[0]))
    window.start()
    cycle += [window, cycle]
    with pytest.warns(ResourceWarning, match="was dropped|unclosed"):
        del window, cycle, buffer
        gc.collect()
    assert sorted(steps(backend), key=lambda step: step.value) == [START, START, END, END]
    assert backend.kernel.open_fds() == {}


def test_an_owner_that_moves_its_window_away_when_it_is_finalized_does_not_end_it_twice(backend, buffer):
    class Mover(Owner):
        def __del__(self):
            self.window.move().end()

    Mover(DmaSyncer(buffer))
    with pytest.warns(ResourceWarning, match="was dropped"):
        gc.collect()
    assert steps(backend) == [START, END]


@pytest.mark.parametrize("window", [WINDOWS["syncer"], WINDOWS["group"]], ids=["syncer", "group"])
def test_a_buffer_that_is_collected_with_its_window_stays_open_until_end(backend, window):
    buffer = allocated(backend)
    open_window = window(buffer)
    open_window.start()
    cycle = [buffer, open_window]
    cycle.append(cycle)
    del buffer, open_window, cycle
    with pytest.warns(ResourceWarning):
        gc.collect()
    assert [(attempt.step, attempt.errno) for attempt in backend.journal.attempts] == [(START, 0), (END, 0)]
    assert backend.kernel.open_fds() == {}


def test_a_buffer_that_is_collected_in_a_cycle_is_closed_once(backend):
    cycle = [allocated(backend)]
    cycle.append(cycle)
    del cycle
    with pytest.warns(ResourceWarning, match="unclosed"):
        gc.collect()
    assert backend.kernel.open_fds() == {}
