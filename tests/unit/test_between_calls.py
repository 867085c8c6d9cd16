"""What a signal handler raises between two calls of the library, made to surface there: each START has its one END.

The storms of test_signals.py find such places by themselves, now and then. Here each has its test, on every run.
"""

from __future__ import annotations

import errno
import gc
import sys
import warnings

import pytest

import dmasync.share as share_module
from dmasync import (
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncerGroup,
    DmaSyncError,
    LinuxBackend,
    Step,
    SyncType,
)
from dmasync.descriptor import Descriptor
from dmasync.fakes import faults
from dmasync.lane import Grip, Lane, Terms
from dmasync.share import Share
from dmasync.window import Ledger

START, END = Step.START, Step.END


@pytest.fixture
def buffer(buffers):
    return buffers[0]


@pytest.fixture(params=["syncer", "group"])
def window(request, buffers):
    return DmaSyncer(buffers[0]) if request.param == "syncer" else DmaSyncerGroup([(b, SyncType.READ) for b in buffers])


@pytest.fixture
def lost(monkeypatch):
    """The types of what finalizers raised; their warnings are as if nobody had made errors of them."""
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: lost.append(problem.exc_type))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield lost


@pytest.fixture
def interrupt(monkeypatch):
    """``interrupt(owner, name, before=n, after=m)``: that method's first n calls are interrupted before they do
    anything, the m that follow when they have done it.
    """

    def interrupt(owner, name, *, before=0, after=0):
        real = getattr(owner, name)
        left = [before, after]

        def interrupted(*arguments):
            if left[0]:
                left[0] -= 1
                raise KeyboardInterrupt
            result = real(*arguments)
            if left[1]:
                left[1] -= 1
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(owner, name, interrupted)

    return interrupt


def steps(backend):
    return [transition.step for transition in backend.journal.transitions()]


def balanced(backend, window):
    assert not window.active
    backend.journal.assert_balanced()
    assert len(steps(backend)) == 2 * len(window) if isinstance(window, DmaSyncerGroup) else 2


# At START


def test_behind_a_start_that_was_refused_at_first(backend, window, interrupt):
    backend.inject(faults.storm(errno.EINTR, 1))
    interrupt(Ledger, "start_rest", after=1)
    with pytest.raises(KeyboardInterrupt), window:
        raise AssertionError
    balanced(backend, window)


def test_behind_all_that_a_refused_start_needed(backend, buffer, interrupt):
    backend.inject(faults.storm(errno.EINTR, 1))
    interrupt(DmaSyncer, "_start_slowly", after=1)
    syncer = DmaSyncer(buffer)
    with pytest.raises(KeyboardInterrupt), syncer:
        raise AssertionError
    balanced(backend, syncer)


def test_behind_all_that_a_refused_start_needed_where_its_end_is_refused_as_well(backend, buffer, interrupt):
    backend.inject(faults.storm(errno.EINTR, 1), faults.error(errno.EIO, on=END))
    interrupt(DmaSyncer, "_start_slowly", after=1)
    with pytest.raises(KeyboardInterrupt) as caught, DmaSyncer(buffer):
        raise AssertionError
    assert isinstance(caught.value, KeyboardInterrupt)
    assert "END of dma-buf" in caught.value.__notes__[0]
    assert steps(backend) == [START]


def test_behind_the_start_of_start(backend, window, interrupt):
    interrupt(type(window), "__enter__", after=1)
    with pytest.raises(KeyboardInterrupt):
        window.start()
    balanced(backend, window)


def test_before_a_start_that_is_tried_again(backend, window, interrupt):
    backend.inject(faults.storm(errno.EINTR, 1))
    interrupt(Ledger, "start_rest", before=1)
    with pytest.raises(KeyboardInterrupt), window:
        raise AssertionError
    assert not window.active
    backend.journal.assert_balanced()


# At END


@pytest.mark.parametrize("times", [1, 3])
def test_before_the_books_of_an_end_are_opened(backend, window, interrupt, times):
    interrupt(Ledger, "finish", before=times)
    backend.inject(faults.storm(errno.EINTR, 1, on=END))
    with pytest.raises(KeyboardInterrupt), window:
        pass
    balanced(backend, window)


def test_where_there_are_no_books_yet(backend, buffer, interrupt):
    interrupt(Terms, "ledger", before=2)
    backend.inject(faults.storm(errno.EINTR, 1, on=END))
    syncer = DmaSyncer(buffer)
    with pytest.raises(KeyboardInterrupt), syncer:
        pass
    balanced(backend, syncer)


def test_when_the_books_of_an_end_are_closed(backend, window, interrupt):
    interrupt(Ledger, "finish", after=1)
    backend.inject(faults.storm(errno.EINTR, 1, on=END))
    with pytest.raises(KeyboardInterrupt), window:
        pass
    balanced(backend, window)


def test_on_the_way_into_the_end_of_a_window_that_is_shut(backend, buffer):
    syncer = DmaSyncer(buffer)
    with pytest.raises(KeyboardInterrupt):
        syncer._end_slowly(KeyboardInterrupt(), None)
    assert steps(backend) == []
    assert not syncer.active


# Where a window is dropped


@pytest.mark.parametrize("place", ["before", "after"])
def test_in_the_end_of_a_window_that_is_dropped(backend, buffers, interrupt, lost, place):
    for make in (lambda: DmaSyncer(buffers[0]), lambda: DmaSyncerGroup([(each, SyncType.READ) for each in buffers])):
        window = make()
        window.start()
        interrupt(Ledger, "finish", **{place: 1})
        del window
        gc.collect()
    assert lost == [KeyboardInterrupt] * 2
    backend.journal.assert_balanced()
    assert len(steps(backend)) == 2 * (1 + len(buffers))


def test_before_the_end_of_a_group_that_is_dropped(backend, buffers, interrupt, lost):
    group = DmaSyncerGroup([(buffer, SyncType.READ) for buffer in buffers])
    group.start()
    interrupt(DmaSyncerGroup, "_dropped", before=1)
    interrupt(DmaSyncerGroup, "_end_slowly", before=1)
    del group
    gc.collect()
    assert lost == [KeyboardInterrupt]
    backend.journal.assert_balanced()
    assert len(steps(backend)) == 2 * len(buffers)


def test_a_group_that_was_never_made_owes_nothing_when_it_is_dropped():
    DmaSyncerGroup.__new__(DmaSyncerGroup)._dropped()


def test_a_grip_that_was_interrupted_ends_its_window_once(backend, buffer, interrupt):
    syncer = DmaSyncer(buffer)
    syncer.start()
    grip, syncer._state = syncer._state, syncer._lane
    assert isinstance(grip, Grip)
    interrupt(Ledger, "finish", before=1)
    with pytest.raises(KeyboardInterrupt), pytest.warns(ResourceWarning, match="END has run now"):
        grip()
    assert steps(backend) == [START, END]


# Descriptors


class Unreachable(LinuxBackend):
    """Asking for its close() is interrupted so often; then closing is written down."""

    def __init__(self, times):
        self.left = times
        self.closed = []

    @property
    def close(self):
        if self.left:
            self.left -= 1
            raise KeyboardInterrupt
        return self.closed.append


@pytest.mark.parametrize("times", [1, 3])
def test_before_a_number_is_closed(times):
    backend = Unreachable(times)
    descriptor = Descriptor(backend, 5)
    descriptor.own()
    with pytest.raises(KeyboardInterrupt):
        descriptor.close()
    assert backend.closed == [5]
    assert descriptor.closed


def test_before_a_number_that_was_dropped_is_closed(interrupt, lost):
    backend = Unreachable(0)
    descriptor = Descriptor(backend, 5)
    descriptor.own()
    interrupt(Share, "close", before=1)
    del descriptor
    gc.collect()
    assert lost == [KeyboardInterrupt]
    assert backend.closed == [5]


@pytest.mark.parametrize("place", ["counting", "leaving"])
def test_in_a_share_that_is_finalized_before_a_window_of_its_cycle(backend, monkeypatch, interrupt, lost, place):
    """Its number is closed behind the END all the same."""

    class Counting:
        def getrefcount(self, found):
            monkeypatch.setattr(share_module, "sys", sys)
            raise KeyboardInterrupt

    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        buffer = allocator.alloc("frame", 4096)
    syncer = DmaSyncer(buffer)
    syncer.start()
    cycle = [buffer, syncer]
    cycle.append(cycle)
    del buffer, syncer, cycle
    if place == "counting":
        monkeypatch.setattr(share_module, "sys", Counting())
    else:
        interrupt(Share, "_leave", before=1)
    gc.collect()
    assert lost == [KeyboardInterrupt]
    assert [(attempt.step, attempt.errno) for attempt in backend.journal.attempts] == [(START, 0), (END, 0)]
    assert backend.kernel.open_fds() == {}


def test_where_a_share_is_left_to_another(backend, monkeypatch):
    real = Share.__init__
    left = [KeyboardInterrupt]

    def interrupted(share, *arguments):
        if left:
            raise left.pop()
        real(share, *arguments)

    share = Share(backend, 5)
    share.owned = True
    monkeypatch.setattr(Share, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        share._leave()
    assert (share.owned, share.rest.owned) == (False, True)
    share.rest.owned = False


def test_before_a_lane_hears_that_its_descriptor_is_closed(backend, buffer, interrupt):
    fd = buffer.fileno()
    syncer = DmaSyncer(buffer)
    interrupt(Lane, "close", before=1)
    with pytest.raises(KeyboardInterrupt):
        buffer.close()
    assert buffer.closed
    assert fd not in backend.kernel.open_fds()
    with pytest.raises(ValueError, match="was closed"), syncer:
        raise AssertionError


# What an exception must not keep alive


def test_a_start_that_failed_keeps_no_descriptor_open(backend, buffer):
    backend.inject(faults.error(errno.EIO))
    fd = buffer.fileno()
    with pytest.raises(DmaSyncError) as caught, DmaSyncer(buffer):
        raise AssertionError
    buffer.close()
    assert fd not in backend.kernel.open_fds()
    assert caught.value.__traceback__ is not None  # which has the frames of that START


def test_a_start_that_was_interrupted_keeps_no_descriptor_open(backend, buffer):
    class Interrupting:
        def __getattr__(self, name):
            return getattr(backend, name)

        def ioctl(self, *arguments):
            raise KeyboardInterrupt

    fd = buffer.fileno()
    with pytest.raises(KeyboardInterrupt) as caught, DmaSyncer(buffer, backend=Interrupting()):
        raise AssertionError
    buffer.close()
    assert fd not in backend.kernel.open_fds()
    assert caught.value.__traceback__ is not None


def test_a_close_that_was_interrupted_keeps_no_descriptor_open(backend, buffer, interrupt):
    fd = buffer.fileno()
    interrupt(Lane, "close", before=1)
    DmaSyncer(buffer)
    with pytest.raises(KeyboardInterrupt) as caught:
        buffer.close()
    assert fd not in backend.kernel.open_fds()
    assert caught.value.__traceback__ is not None
