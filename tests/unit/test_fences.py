"""RetryPolicy.wait: a START that would sleep for the device's fences is not made when they take too long."""

from __future__ import annotations

import errno
import logging
import math
import select

import pytest

from dmasync import (
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncerGroup,
    DmaSyncError,
    DmaSyncTimeout,
    FrameBuffer,
    Plane,
    RetryPolicy,
    Step,
    SyncType,
)
from dmasync import retry as retry_module
from dmasync.fakes import FakeBackend, FakeFence, faults
from dmasync.retry import Attempts

READ, WRITE, READ_WRITE = SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE
START, END = Step.START, Step.END
NOW = RetryPolicy(wait=0)


def polls(backend):
    return [call for call in backend.journal.calls if call.method == "poll"]


@pytest.mark.parametrize(
    ("access", "of_a_writer", "busy"),
    [(READ, True, True), (READ, False, False), (WRITE, True, True), (WRITE, False, True),
     (READ_WRITE, True, True), (READ_WRITE, False, True)],
)  # fmt: skip
def test_a_start_that_would_sleep_is_not_made(backend, buffer, access, of_a_writer, busy):
    fence = FakeFence()
    backend.kernel.attach_fence(buffer.fileno(), fence, write=of_a_writer)
    if busy:
        with pytest.raises(DmaSyncTimeout, match="a fence had not signalled after 0 s") as caught:
            DmaSyncer(buffer, access, retry=NOW).start()
        assert (caught.value.errno, caught.value.attempts, caught.value.step) == (errno.ETIMEDOUT, 0, START)
        assert caught.value.fd == buffer.fileno()
        assert len(backend.journal.attempts) == 0
        fence.signal()
    with DmaSyncer(buffer, access, retry=NOW):
        pass
    assert [entry.step for entry in backend.journal.attempts] == [START, END]


def test_poll_is_asked_for_what_is_left_of_the_time_in_ms(backend, buffer):
    clock = iter((100.0, 100.25, 100.25))
    with DmaSyncer(buffer, READ, retry=RetryPolicy(wait=1.5, clock=clock.__next__)):
        pass
    assert [call.arguments[1:] for call in polls(backend)] == [(select.POLLIN, 1250)]


def test_a_fence_that_signals_in_time_lets_the_window_open(backend, buffer):
    fence = FakeFence()
    backend.kernel.attach_fence(buffer.fileno(), fence)
    clock = iter(range(100))

    def now():
        tick = next(clock)
        if tick == 3:
            fence.signal()
        return tick / 1000

    with buffer.cpu_access(READ, retry=RetryPolicy(wait=1, clock=now)) as view:
        assert len(view) == 4096
    backend.journal.assert_balanced()


def test_the_wait_begins_anew_with_each_start_and_end_does_not_wait(backend, buffer):
    syncer = DmaSyncer(buffer, READ, retry=RetryPolicy(wait=1))
    with syncer:
        backend.kernel.attach_fence(buffer.fileno(), FakeFence())
    assert len(polls(backend)) == 1
    with pytest.raises(DmaSyncTimeout):
        DmaSyncer(buffer, READ, retry=NOW).start()
    assert not syncer.active


def test_a_window_that_does_not_ask_never_polls(backend, buffer):
    for retry in (RetryPolicy(), RetryPolicy(deadline=5)):
        with DmaSyncer(buffer, retry=retry), buffer.cpu_access(READ, retry=retry):
            pass
    assert polls(backend) == []


def test_a_group_waits_before_each_start_and_ends_what_it_had_opened(backend, buffers):
    backend.kernel.attach_fence(buffers[1].fileno(), FakeFence())
    group = DmaSyncerGroup([(buffer, READ) for buffer in buffers], retry=NOW)
    with pytest.raises(DmaSyncTimeout) as caught:
        group.start()
    assert caught.value.fd == buffers[1].fileno()
    assert [(entry.step, entry.fd) for entry in backend.journal.attempts] == [
        (START, buffers[0].fileno()),
        (END, buffers[0].fileno()),
    ]


def test_a_frame_waits_too(backend, buffer):
    backend.kernel.attach_fence(buffer.fileno(), FakeFence())
    frame = FrameBuffer([Plane(buffer, 0, 1024), Plane(buffer, 1024, 1024)])
    with pytest.raises(DmaSyncTimeout):
        frame.syncer(WRITE, retry=NOW).start()


def test_an_error_that_is_only_logged_leaves_the_window_shut(backend, buffer, caplog):
    backend.kernel.attach_fence(buffer.fileno(), FakeFence())
    with caplog.at_level(logging.ERROR, "dmasync"), DmaSyncer(buffer, READ, retry=NOW, on_error="log") as syncer:
        assert not syncer.active
    assert "a fence had not signalled" in caplog.text
    assert len(backend.journal.attempts) == 0


def test_a_storm_on_start_is_waited_out_as_ever(backend, buffer):
    backend.inject(faults.storm(errno.EINTR, 5), faults.storm(errno.EINTR, 3, on="poll"))
    with DmaSyncer(buffer, READ, retry=RetryPolicy(wait=5)):
        pass
    backend.journal.assert_balanced()
    assert backend.journal.count(errno=errno.EINTR) == 5


def test_what_poll_refuses_is_an_error_of_the_start(backend, buffer):
    backend.inject(faults.error(errno.ENOMEM, on="poll"))
    with pytest.raises(DmaSyncError) as caught:
        DmaSyncer(buffer, READ, retry=NOW).start()
    assert (caught.value.errno, caught.value.step) == (errno.ENOMEM, START)


def test_a_group_over_two_backends_waits_and_starts_on_each_its_own():
    first, second = FakeBackend(), FakeBackend()
    buffers = []
    for backend in (first, second):
        with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
            buffers.append(allocator.alloc("frame", 4096))
    assert buffers[0].fileno() == buffers[1].fileno()
    with DmaSyncerGroup([(buffer, READ) for buffer in buffers], retry=RetryPolicy(wait=1)):
        pass
    for backend, buffer in zip((first, second), buffers, strict=True):
        assert [transition.step for transition in backend.journal.transitions()] == [START, Step.END]
        buffer.close()


@pytest.mark.parametrize("retry", [RetryPolicy(), RetryPolicy(wait=1)], ids=["default", "wait"])
def test_an_oserror_of_a_signal_handler_before_end_is_no_refusal_of_the_kernel(backend, buffer, retry):
    """A policy that waits puts no Python code in front of an END, where a handler's error would pass for an answer."""
    calls = []

    class Seen(Attempts):
        def before_the_first(self, file, flags):
            calls.append(flags & 4)
            if flags & 4 and len(calls) < 3:
                raise BrokenPipeError(errno.EPIPE, "a handler's")
            return super().before_the_first(file, flags)

    window = DmaSyncer(buffer, READ, retry=retry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry_module, "Attempts", Seen)
        window.start()
        if retry.wait is None:
            window.end()
        else:
            with pytest.raises(BrokenPipeError):
                window.end()
    assert [transition.step for transition in backend.journal.transitions()] == [START, Step.END]


def test_a_descriptor_that_is_not_open_is_left_to_start(backend):
    with pytest.raises(DmaSyncError) as caught:
        DmaSyncer(1 << 30, READ, backend=backend, retry=NOW).start()
    assert caught.value.errno == errno.EBADF


def test_an_exception_of_a_signal_handler_ends_the_wait(buffer, backend):
    class Interrupted(FakeBackend):
        def poll(self, fd, events, timeout_ms):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DmaSyncer(buffer, READ, backend=Interrupted(), retry=RetryPolicy(wait=5)).start()
    assert len(backend.journal.attempts) == 0


def test_a_wait_without_end_is_asked_for_in_pieces_that_poll_takes(backend, buffer):
    with DmaSyncer(buffer, WRITE, retry=RetryPolicy(wait=math.inf)):
        pass
    (call,) = polls(backend)
    assert call.arguments[1:] == (select.POLLOUT, 0x7FFFFFFF)


def test_the_window_can_be_moved_and_keeps_waiting(backend, buffer):
    heir = DmaSyncer(buffer, READ, retry=NOW).move()
    backend.kernel.attach_fence(buffer.fileno(), FakeFence())
    with pytest.raises(DmaSyncTimeout):
        heir.start()


@pytest.mark.parametrize(
    ("wait", "error"), [("1", TypeError), (True, TypeError), (-1, ValueError), (math.nan, ValueError)]
)
def test_what_is_no_time_to_wait_is_refused(wait, error):
    with pytest.raises(error, match="wait must"):
        RetryPolicy(wait=wait)


def test_a_backend_that_raises_stop_iteration_is_not_taken_for_success(buffer):
    class Stopping(FakeBackend):
        def __init__(self):
            super().__init__()
            self.ioctl = self.refuse

        def refuse(self, fd, request, arg):
            raise StopIteration

        def poll(self, fd, events, timeout_ms):
            return events

    window = DmaSyncer(buffer, READ, backend=Stopping(), retry=RetryPolicy(wait=1))
    with pytest.raises((StopIteration, RuntimeError)):
        window.start()
    assert not window.active
