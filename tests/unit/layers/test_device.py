"""FakeDevice: DMA at once, in rows, later and behind fences; it refuses nothing that hardware would do."""

from __future__ import annotations

import array
import threading

import pytest

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer, LinuxBackend, SyncType
from dmasync.fakes import FakeBackend, FakeDevice, FakeKernel, Recorder, Sanitizer

SIZE = 8192


@pytest.fixture(params=["coherent", "watched", "noncoherent"])
def backend(request):
    return FakeBackend(coherent=request.param != "noncoherent", watch=request.param != "coherent")


@pytest.fixture
def frame(backend):
    with (
        DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator,
        allocator.alloc("frame", SIZE) as frame,
    ):
        yield frame


def test_what_is_written_can_be_read(backend, frame):
    with FakeDevice(backend) as device:
        device.write(frame, b"abcd", 100)
        assert device.read(frame, 6, 99) == b"\0abcd\0"
        assert device.read(frame.fileno(), offset=SIZE - 1) == b"\0"
        device.write(frame, array.array("H", [1, 2]))
        assert device.read(frame, 4) == array.array("H", [1, 2]).tobytes()
        device.write(frame, memoryview(b"axbxcx")[::2])
        assert device.read(frame, 4) == b"abc\0"
        device.write(frame, b"")
    kinds = [event.kind for event in backend.journal.events]
    assert kinds.count("device-write") == 4
    assert kinds.count("device-read") == 4


def test_rows_go_to_places_a_stride_apart(backend, frame):
    with FakeDevice(backend) as device:
        device.write(frame, b"aabbcc", 10, width=2, stride=5)
        assert device.read(frame, 14, 9) == b"\0aa\0\0\0bb\0\0\0cc\0"
        assert device.read(frame, 4, 15, width=2, stride=5) == b"bbcc"
        assert len(device.read(frame, width=2, stride=4096)) == 4


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((b"x", SIZE), {}),
        ((b"x", -1), {}),
        ((b"xyz",), {"width": 2, "stride": 4}),
        ((b"xy",), {"width": 2}),
        ((b"xy",), {"width": 2, "stride": 1}),
        ((b"xy",), {"width": 0, "stride": 1}),
    ],
)
def test_dma_beside_the_buffer_is_a_mistake_of_the_test(backend, frame, arguments, options):
    with FakeDevice(backend) as device, pytest.raises(ValueError, match=r"bytes|rows"):
        device.write(frame, *arguments, **options)


def test_a_device_keeps_what_it_is_attached_to(backend):
    with DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend) as allocator:
        frame = allocator.alloc("frame", SIZE)
    device = FakeDevice(backend)
    attachment = device.attach(frame)
    assert device.attach(frame) is attachment
    frame.close()
    device.write(attachment, b"still there")
    assert device.read(attachment, 5) == b"still"
    device.detach(attachment)
    device.detach(attachment)
    device.close()


def test_ones_own_work_sees_the_devices_bytes(backend, frame):
    with FakeDevice(backend) as device:
        with device.dma(frame, write=True) as memory:
            memory[:4] = b"work"
        with device.dma(frame, write=False, ranges=[(0, 4)]) as memory:
            assert bytes(memory[:4]) == b"work"


def test_start_waits_for_the_fence_of_an_asynchronous_write(backend, frame):
    go = threading.Event()
    with FakeDevice(backend) as device:
        device.submit(go.wait)
        job = device.write_async(frame, b"\x22" * SIZE)
        threading.Timer(0.05, go.set).start()
        with frame.cpu_access(SyncType.READ) as view:
            assert job.fence.is_signaled()
            assert bytes(view) == b"\x22" * SIZE
        job.result(timeout=10)
    assert Sanitizer(backend, leaks=False).findings() == []


def test_a_start_that_writes_waits_for_an_asynchronous_read(backend, frame):
    go = threading.Event()
    with frame.cpu_access(SyncType.WRITE) as view:
        view[:] = b"\x11" * SIZE
    with FakeDevice(backend, delay=0.001, jitter=0.001, seed=3) as device:
        device.submit(go.wait)
        job = device.read_async(frame)
        with DmaSyncer(frame, SyncType.READ):
            assert not job.fence.is_signaled()
        threading.Timer(0.05, go.set).start()
        with frame.cpu_access(SyncType.WRITE) as view:
            assert job.fence.is_signaled()
            view[:] = b"\x22" * SIZE
        assert job.result(timeout=10) == b"\x11" * SIZE
    assert Sanitizer(backend, leaks=False).findings() == []


def test_a_job_that_fails_signals_and_tells_who_asks(backend, frame):
    go = threading.Event()
    with FakeDevice(backend) as device:
        job = device.submit(lambda: (go.wait(), 1 / 0), writes=[frame])
        with pytest.raises(TimeoutError, match="has not got to"):
            job.result(timeout=0.01)
        go.set()
        with DmaSyncer(frame):
            pass
        with pytest.raises(ZeroDivisionError):
            job.result(timeout=10)


def test_layers_composed_by_hand_will_do():
    kernel = FakeKernel()
    recorder = Recorder(kernel)
    with (
        DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP, backend=recorder) as allocator,
        allocator.alloc("frame", SIZE) as frame,
        FakeDevice(recorder) as device,
    ):
        device.write(frame, b"x")
        assert device.read(frame, 1) == b"x"


def test_a_device_needs_a_fake_kernel():
    with pytest.raises(TypeError, match="backend must have a fake kernel"):
        FakeDevice(LinuxBackend())
