"""FakeFence, and the kernel's ways with fences that no real driver at hand lets a test reach."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from dmasync import uapi
from dmasync.fakes.kernel import FakeFence, FakeKernel
from dmasync.fakes.kernel.dma_buf.dma_fence import FenceArray, merged, signaled_stub
from dmasync.fakes.kernel.dma_buf.dma_resv import Reservation, Usage
from tests.support.paged import fake_kernel

START_READ, START_RW = uapi.dma_buf_sync.pack(1), uapi.dma_buf_sync.pack(3)


@pytest.fixture
def kernel() -> FakeKernel:
    return fake_kernel()


@pytest.fixture
def buffer(kernel: FakeKernel) -> int:
    argument = uapi.dma_heap_allocation_data.pack(1, 0, os.O_RDWR, 0)
    kernel.ioctl(kernel.open("/dev/dma_heap/system", os.O_RDWR), uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    return uapi.dma_heap_allocation_data.get(argument, "fd")


@pytest.fixture
def on_alarm() -> Iterator[object]:
    before = signal.getsignal(signal.SIGALRM)
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_fence_signals_once() -> None:
    fence = FakeFence()
    assert (fence.is_signaled(), fence.status(), fence.timestamp_ns) == (False, 0, 0)
    assert "pending" in repr(fence)
    assert fence.signal()
    assert not fence.signal()
    assert (fence.is_signaled(), fence.status()) == (True, 1)
    assert fence.timestamp_ns > 0
    assert "signalled" in repr(fence)


def test_a_fence_may_end_in_an_error() -> None:
    fence = FakeFence()
    fence.signal(errno.ETIMEDOUT, timestamp_ns=5)
    assert (fence.status(), fence.timestamp_ns) == (-errno.ETIMEDOUT, 5)


def test_callbacks_are_called_once_at_the_signal() -> None:
    fence, called = FakeFence(), []
    assert fence.add_callback(lambda: called.append(1))
    gone = lambda: called.append(2)  # noqa: E731 - it has to be the same object twice
    assert fence.add_callback(gone)
    fence.remove_callback(gone)
    fence.remove_callback(gone)
    fence.signal()
    assert called == [1]
    assert not fence.add_callback(lambda: called.append(3))
    assert called == [1]


@pytest.mark.parametrize("waited_for", [False, True])
def test_an_array_tells_an_error_only_when_somebody_waited(waited_for: bool) -> None:
    members = [FakeFence(), FakeFence()]
    array = FenceArray(members)
    if waited_for:
        assert array.add_callback(lambda: None)
    members[0].signal(errno.EIO)
    assert not array.is_signaled()
    members[1].signal(errno.ENOMEM)
    assert array.status() == (-errno.EIO if waited_for else 1)


def test_an_array_of_what_is_signalled_calls_nobody_back() -> None:
    members = [FakeFence(), FakeFence()]
    members[0].signal(errno.EIO)
    array = FenceArray(members)
    assert array.add_callback(lambda: None)
    members[1].signal()
    assert array.status() == -errno.EIO
    assert not FenceArray([signaled_stub(), signaled_stub()]).add_callback(lambda: None)
    assert not array.add_callback(lambda: None)


def test_merging_keeps_the_latest_of_each_context() -> None:
    early, late, other = FakeFence(context=7, seqno=1), FakeFence(context=7, seqno=2), FakeFence(context=3)
    array = merged(early, FenceArray([other, late]))
    assert isinstance(array, FenceArray)
    assert array.fences == (other, late)
    assert merged(late, early) is late


def test_a_later_fence_of_a_context_takes_the_earlier_ones_place() -> None:
    early, late = FakeFence(context=7, seqno=1), FakeFence(context=7, seqno=2)
    reservation = Reservation()
    reservation.add(early, Usage.READ)
    reservation.add(late, Usage.READ)
    assert reservation.pending(Usage.READ) == [late]
    reservation.add(early, Usage.READ)
    assert reservation.pending(Usage.READ) == [late, early]


def test_a_signalled_fence_makes_room_for_the_next() -> None:
    done, kept, new = FakeFence(), FakeFence(), FakeFence()
    reservation = Reservation()
    for fence in (done, kept):
        reservation.add(fence, Usage.WRITE)
    done.signal()
    reservation.add(new, Usage.WRITE)
    assert reservation.pending(Usage.READ) == [new, kept]


@pytest.mark.parametrize("write", [True, False])
def test_an_attached_fence_makes_start_wait(kernel: FakeKernel, buffer: int, on_alarm: object, write: bool) -> None:
    fence = FakeFence()
    kernel.attach_fence(buffer, fence, write=write)
    on_alarm(lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    with pytest.raises(InterruptedError):
        kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, START_RW)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not write:
        kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, START_READ)
    fence.signal()
    assert kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, START_RW) == 0


def test_a_signal_handler_may_signal_the_fence(kernel: FakeKernel, buffer: int, on_alarm: object) -> None:
    fence = FakeFence()
    kernel.attach_fence(buffer, fence)
    on_alarm(lambda *_: fence.signal())
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with pytest.raises(InterruptedError):
        kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, START_RW)
    assert kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, START_RW) == 0


def test_a_handler_that_asks_for_restarts_does_not_interrupt(kernel: FakeKernel, buffer: int, on_alarm: object) -> None:
    fence = FakeFence()
    kernel.attach_fence(buffer, fence)
    on_alarm(lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    timer = threading.Timer(0.1, fence.signal)
    timer.start()
    assert kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, START_RW) == 0
    timer.join()


def test_keyboard_interrupt_ends_the_wait(kernel: FakeKernel, buffer: int, on_alarm: object) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    kernel.attach_fence(buffer, FakeFence())
    on_alarm(interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with pytest.raises(KeyboardInterrupt):
        kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, START_RW)


def test_an_errors_number_is_in_the_sync_file(kernel: FakeKernel, buffer: int) -> None:
    fence = FakeFence("driver", "a timeline with a name that is too long to show", context=5, seqno=9)
    kernel.attach_fence(buffer, fence)
    export = uapi.dma_buf_export_sync_file.pack(1, -1)
    kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, export)
    sync_file = uapi.dma_buf_export_sync_file.get(export, "fd")
    fence.signal(errno.EIO)
    info = uapi.sync_file_info.pack(b"", 0, 0, 0, 0, 0)
    kernel.ioctl(sync_file, uapi.SYNC_IOC_FILE_INFO, info)
    name, status, *_ = uapi.sync_file_info.unpack(info)
    assert (name, status) == (b"driver-a timeline with a name t\0", -errno.EIO)


def test_a_poll_that_waits_ends_when_another_thread_signals(kernel: FakeKernel, buffer: int) -> None:
    fence = FakeFence()
    kernel.attach_fence(buffer, fence)
    timer = threading.Timer(0.02, fence.signal)
    timer.start()
    assert kernel.poll(buffer, 5, None) == 5
    timer.join()
    assert kernel.fdinfo(buffer)["count"] == 1


def test_two_polls_of_one_buffer_both_wake(kernel: FakeKernel, buffer: int) -> None:
    fence, answers = FakeFence(), []
    kernel.attach_fence(buffer, fence)
    threads = [threading.Thread(target=lambda: answers.append(kernel.poll(buffer, 1, 10_000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    fence.signal()
    for thread in threads:
        thread.join()
    assert answers == [1, 1, 1, 1]


class LateFence(FakeFence):
    """Signals in the moment between the look at it and the wait for it."""

    def add_callback(self, callback: object) -> bool:
        self.signal()
        return False


def test_a_fence_that_signals_in_between_is_not_waited_for(kernel: FakeKernel, buffer: int) -> None:
    kernel.attach_fence(buffer, LateFence())
    assert kernel.poll(buffer, 5, 0) == 5
    kernel.attach_fence(buffer, LateFence())
    assert kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, START_RW) == 0
    assert kernel.fdinfo(buffer)["count"] == 1
