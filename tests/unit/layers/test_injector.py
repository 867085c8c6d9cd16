"""FaultInjector refuses what its plans say, and nothing else."""

from __future__ import annotations

import errno
import os

import pytest

from dmasync import Step, SyncType, uapi
from dmasync.fakes import FakeKernel, FaultInjector, Recorder, faults

SYNC = uapi.DMA_BUF_IOCTL_SYNC


def edge(step: Step, access: SyncType = SyncType.READ_WRITE) -> bytearray:
    return uapi.dma_buf_sync.pack(step.value | access.value)


def heap_buffer(backend, size: int = 4096) -> int:
    heap = backend.open("/dev/dma_heap/system", os.O_RDWR)
    argument = uapi.dma_heap_allocation_data.pack(size, 0, os.O_RDWR | os.O_CLOEXEC, 0)
    backend.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    backend.close(heap)
    return uapi.dma_heap_allocation_data.get(argument, "fd")


@pytest.fixture
def injector():
    return FaultInjector(FakeKernel())


def outcomes(injector, fd: int, steps: list[Step]) -> list[int]:
    codes = []
    for step in steps:
        try:
            injector.ioctl(fd, SYNC, edge(step))
            codes.append(0)
        except OSError as error:
            codes.append(error.errno)
    return codes


def test_a_storm_refuses_its_step_so_often_and_then_lets_pass(injector):
    fd = heap_buffer(injector)
    injector.inject(faults.storm(errno.EINTR, 2, on=Step.END))
    assert outcomes(injector, fd, [Step.START, Step.END, Step.END, Step.END]) == [0, errno.EINTR, errno.EINTR, 0]
    assert injector.pending == ()
    assert injector.faults == (faults.storm(errno.EINTR, 2, on=Step.END),)


def test_a_storm_without_end_never_lets_pass(injector):
    fd = heap_buffer(injector)
    injector.inject(faults.storm(errno.EAGAIN, None))
    assert outcomes(injector, fd, [Step.START] * 1000) == [errno.EAGAIN] * 1000
    injector.clear()
    assert outcomes(injector, fd, [Step.START]) == [0]


def test_what_the_layer_beneath_refuses_comes_through(injector):
    fd = heap_buffer(injector)
    for call in (
        lambda: injector.open("/dev/no-such-node", os.O_RDWR),
        lambda: injector.ftruncate(fd, 4096),
        lambda: injector.add_seals(fd, 1),
        lambda: injector.get_seals(fd),
        lambda: injector.mmap(fd, 1 << 30, 1, 1),
        lambda: injector.lseek(fd, 1, 0),
        lambda: injector.close(fd + 100),
        lambda: injector.dup(fd + 100),
    ):
        with pytest.raises(OSError, match=r"\[Errno"):
            call()


def test_on_none_is_both_edges(injector):
    fd = heap_buffer(injector)
    injector.inject(faults.storm(errno.EINTR, 2, on=None))
    assert outcomes(injector, fd, [Step.START, Step.END, Step.START]) == [errno.EINTR, errno.EINTR, 0]


def test_a_hard_error_hits_the_nth_edge_of_the_chosen_buffer_through_any_descriptor(injector):
    first, second = heap_buffer(injector), heap_buffer(injector)
    again = injector.dup(second)
    injector.inject(faults.error(errno.EIO, on=Step.START, nth=2, buffer=second))
    assert outcomes(injector, first, [Step.START] * 3) == [0, 0, 0]
    assert outcomes(injector, again, [Step.START]) == [0]
    assert outcomes(injector, second, [Step.START, Step.START]) == [errno.EIO, 0]


def test_a_buffer_can_be_named_by_its_identity_before_it_exists(injector):
    injector.inject(faults.error(errno.EIO, buffer=2))
    first, second = heap_buffer(injector), heap_buffer(injector)
    assert outcomes(injector, first, [Step.START]) == [0]
    assert outcomes(injector, second, [Step.START]) == [errno.EIO]


def test_the_first_plan_that_refuses_decides_and_later_ones_do_not_see_the_call(injector):
    fd = heap_buffer(injector)
    injector.inject(faults.storm(errno.EINTR, 3), faults.error(errno.EIO, nth=2))
    expected = [errno.EINTR] * 3 + [0, errno.EIO, 0]
    assert outcomes(injector, fd, [Step.START] * 6) == expected


def test_the_same_plans_refuse_the_same_calls_in_a_replay():
    plans = [faults.mix(11, rate=0.3), faults.error(errno.EIO, on=Step.END, nth=7)]
    seen = []
    for _ in range(2):
        injector = FaultInjector(FakeKernel(), plans)
        seen.append(outcomes(injector, heap_buffer(injector), [Step.START, Step.END] * 50))
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 4


METHODS = {
    "open": lambda b, fd: b.open("/dev/udmabuf", os.O_RDWR),
    "dup": lambda b, fd: b.dup(fd),
    "memfd_create": lambda b, fd: b.memfd_create("x", 0),
    "ftruncate": lambda b, fd: b.ftruncate(b.memfd_create("x", 0), 4096),
    "add_seals": lambda b, fd: b.add_seals(b.memfd_create("x", uapi.MFD_ALLOW_SEALING), uapi.F_SEAL_SHRINK),
    "get_seals": lambda b, fd: b.get_seals(b.memfd_create("x", 0)),
    "mmap": lambda b, fd: b.mmap(fd, 4096, 1, 1),
    "lseek": lambda b, fd: b.lseek(fd, 0, os.SEEK_END),
    "poll": lambda b, fd: b.poll(fd, 1, 0),
    "close": lambda b, fd: b.close(fd),
    "ioctl": lambda b, fd: b.ioctl(fd, uapi.DMA_BUF_SET_NAME, bytearray(b"x\0")),
    "DMA_BUF_SET_NAME": lambda b, fd: b.ioctl(fd, uapi.DMA_BUF_SET_NAME, bytearray(b"x\0")),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_call_of_a_backend_can_be_made_to_fail(injector, method):
    fd = heap_buffer(injector)
    injector.inject(faults.error(errno.EDQUOT, on=method))
    with pytest.raises(OSError, match="quota") as caught:
        METHODS[method](injector, fd)
    assert caught.value.errno == errno.EDQUOT
    assert not injector.pending
    if method != "close":
        METHODS[method](injector, fd)


def test_a_plan_for_one_ioctl_leaves_the_others_alone(injector):
    fd = heap_buffer(injector)
    injector.inject(faults.error(errno.EIO, on="UDMABUF_CREATE"), faults.error(errno.EIO, on="lseek", buffer=fd + 1))
    injector.ioctl(fd, uapi.DMA_BUF_SET_NAME, bytearray(b"x\0"))
    injector.lseek(fd, 0, os.SEEK_END)
    injector.memfd_create("x", 0)
    assert len(injector.pending) == 2


def test_a_plan_for_a_buffer_does_not_match_calls_without_a_descriptor(injector):
    injector.inject(faults.error(errno.EIO, on="memfd_create", buffer=1))
    injector.memfd_create("x", 0)


def test_an_injected_close_error_closes_all_the_same(injector):
    fd = heap_buffer(injector)
    injector.inject(faults.error(errno.EINTR, on="close"))
    with pytest.raises(InterruptedError):
        injector.close(fd)
    assert fd not in injector.inner.open_fds()


def test_latency_waits_before_the_call_and_delays_add_up():
    waits = []
    injector = FaultInjector(
        FakeKernel(), [faults.latency(0.25, times=1), faults.latency(0.5, on=Step.START)], sleep=waits.append
    )
    fd = heap_buffer(injector)
    assert outcomes(injector, fd, [Step.START, Step.START, Step.END]) == [0, 0, 0]
    assert waits == [0.75, 0.5]


def test_an_argument_that_is_no_sync_is_left_to_the_kernel(injector):
    fd = heap_buffer(injector)
    injector.inject(faults.storm(errno.EINTR, None, on=None))
    with pytest.raises(OSError, match="Bad address"):
        injector.ioctl(fd, SYNC, 0)


def test_only_plans_can_be_injected(injector):
    with pytest.raises(TypeError, match="faults must be plans"):
        injector.inject("storm")


def test_layers_compose_in_any_order():
    for build in (lambda k: Recorder(FaultInjector(k)), lambda k: FaultInjector(Recorder(k))):
        backend = build(FakeKernel())
        fd = heap_buffer(backend)
        assert backend.ioctl(fd, SYNC, edge(Step.START)) == 0


class Numbered:
    """A backend of somebody's own, which names its buffers itself."""

    def __init__(self):
        self.inner_calls = []

    def buffer_of(self, fd):
        if fd > 100:
            raise OSError(errno.EBADF, "no")
        return fd // 10

    def ioctl(self, fd, request, arg=0):
        self.inner_calls.append(fd)
        return 0


def test_buffers_are_named_by_the_backend_by_the_file_or_by_the_descriptor(tmp_path):
    from dmasync import LinuxBackend
    from dmasync.fakes.layers.beneath import buffer_of

    own = buffer_of(FaultInjector(Numbered()))
    assert (own(11), own(12), own(21), own(101)) == (1, 1, 2, None)
    with open(tmp_path / "file", "w") as file:
        real = buffer_of(LinuxBackend())
        again = os.dup(file.fileno())
        assert real(file.fileno()) == real(again) == os.fstat(again).st_ino
        os.close(again)
        assert real(again) is None
        assert real(-1) is None
    bare = Numbered()
    bare_name = buffer_of(type("Bare", (), {"ioctl": bare.ioctl})())
    assert bare_name(5) == 5
    kernel = FakeKernel()
    fd = heap_buffer(kernel)
    fake = buffer_of(Recorder(kernel))
    assert fake(fd) == kernel.buffer_of(fd).ino
    assert fake(kernel.memfd_create("x", 0)) is None
    assert fake(fd + 1000) is None
