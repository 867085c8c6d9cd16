"""DmaBufAllocator: who is asked, what is made, and that nothing is left of what failed."""

from __future__ import annotations

import errno
import gc
import os

import pytest
from pyfakefs.helpers import set_uid

from dmasync import (
    DEFAULT_PROVIDERS,
    AllocationError,
    DmaBufAllocatorFlag,
    NoProviderError,
    Provider,
    uapi,
)
from dmasync.fakes import faults
from tests.support.page_size import PAGE
from tests.support.paged import dma_buf_allocator, fake_backend

CMA, SYSTEM, UDMABUF = DmaBufAllocatorFlag.CMA_HEAP, DmaBufAllocatorFlag.SYSTEM_HEAP, DmaBufAllocatorFlag.UDMABUF
PATHS = [provider.path for provider in DEFAULT_PROVIDERS]


@pytest.fixture
def backend():
    return fake_backend()


@pytest.fixture(params=[SYSTEM, UDMABUF], ids=lambda flag: flag.name)
def allocator(request, backend):
    with dma_buf_allocator(request.param, backend=backend) as allocator:
        yield allocator


def dmabufs(backend):
    return [kind for kind in backend.kernel.open_fds().values() if kind != "heap device"]


def answering(backend, answers):
    """The backend, but open() of the paths in *answers* says that errno."""

    class Answering:
        opened: list[str] = []  # noqa: RUF012 - one instance

        def __getattr__(self, name):
            return getattr(backend, name)

        def open(self, path, flags):
            self.opened.append(path)
            if path in answers:
                raise OSError(answers[path], os.strerror(answers[path]))
            return backend.open(path, flags)

    Answering.opened = []
    return Answering()


# Who is asked


def test_the_order_is_libcameras():
    assert PATHS == [
        "/dev/dma_heap/linux,cma",
        "/dev/dma_heap/reserved",
        "/dev/dma_heap/default_cma_region",
        "/dev/dma_heap/default-pool",
        "/dev/dma_heap/system",
        "/dev/udmabuf",
    ]
    assert [provider.flag for provider in DEFAULT_PROVIDERS] == [CMA, CMA, CMA, CMA, SYSTEM, UDMABUF]


def test_the_cma_heap_is_asked_unless_said(backend):
    with dma_buf_allocator(backend=backend) as allocator:
        assert allocator.provider == Provider(CMA, "/dev/dma_heap/linux,cma")


@pytest.mark.parametrize("first", range(6))
def test_the_first_node_that_opens_serves(first):
    backend = fake_backend(providers=DEFAULT_PROVIDERS[first:])
    with dma_buf_allocator(CMA | SYSTEM | UDMABUF, backend=backend) as allocator:
        assert allocator.provider == DEFAULT_PROVIDERS[first]
        assert [call.arguments[0] for call in backend.journal.calls] == PATHS[: first + 1]


def test_only_providers_whose_flag_was_asked_for_are_tried(backend):
    asked = answering(backend, dict.fromkeys(PATHS[:4], errno.ENOENT))
    with dma_buf_allocator(CMA | UDMABUF, backend=asked) as allocator:
        assert allocator.provider.path == "/dev/udmabuf"
    assert asked.opened == [*PATHS[:4], "/dev/udmabuf"]


def test_nodes_are_opened_for_reading_and_writing_and_close_on_exec(backend):
    with dma_buf_allocator(UDMABUF, backend=backend):
        (call,) = backend.journal.calls
        assert call.arguments == ("/dev/udmabuf", os.O_RDWR | os.O_CLOEXEC)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV, errno.EIO])
def test_a_node_that_may_not_be_opened_does_not_stop_the_search(backend, code):
    with dma_buf_allocator(CMA | SYSTEM, backend=answering(backend, {PATHS[0]: code})) as allocator:
        assert allocator.provider.path == PATHS[1]


def test_a_node_that_answers_eintr_is_asked_again(backend):
    backend.inject(faults.storm(errno.EINTR, 5, on="open"))
    with dma_buf_allocator(UDMABUF, backend=backend):
        assert len(backend.journal.calls) == 6


def test_the_list_of_providers_can_be_passed_in(backend):
    other = fake_backend(providers=[Provider(UDMABUF, "/dev/other_udmabuf")])
    with dma_buf_allocator(UDMABUF, providers=[Provider(UDMABUF, "/dev/other_udmabuf")], backend=other) as allocator:
        with allocator.alloc("x", 10) as buffer:
            assert buffer.provider == Provider(UDMABUF, "/dev/other_udmabuf")


# Nobody serves


def test_no_provider_lists_each_node_what_the_kernel_said_and_what_to_do(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    answers = dict(
        zip(PATHS, [errno.ENOENT, errno.EACCES, errno.ENXIO, errno.ENOENT, errno.ENOENT, errno.ENODEV], strict=True)
    )
    with pytest.raises(NoProviderError) as caught:
        dma_buf_allocator(CMA | SYSTEM | UDMABUF, backend=answering(fake_backend(), answers))
    error = caught.value
    assert error.errno == errno.EACCES
    assert error.tried == tuple(answers.items())
    for path, code in answers.items():
        assert f"{path}: {os.strerror(code)}" in str(error)
    for advice in (
        "CONFIG_DMABUF_HEAPS_CMA and a CMA region",
        "CONFIG_DMABUF_HEAPS_SYSTEM",
        "modprobe udmabuf",
        "CONFIG_UDMABUF",
        "udev rule give it one: dmasync probe prints the command",
        "join the group",
    ):
        assert advice in str(error)
    assert "although this is root" not in str(error)


def test_root_that_is_refused_is_told_of_device_policies(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for code in (errno.EACCES, errno.EPERM):
        with pytest.raises(NoProviderError, match="although this is root: a device policy") as caught:
            dma_buf_allocator(UDMABUF, backend=answering(fake_backend(), {"/dev/udmabuf": code}))
        assert "udev" not in str(caught.value)
        assert caught.value.errno == code


def test_another_error_wins_over_nodes_that_are_not_there():
    with pytest.raises(NoProviderError) as caught:
        dma_buf_allocator(
            CMA, backend=answering(fake_backend(), dict.fromkeys(PATHS[:4], errno.ENOENT) | {PATHS[2]: errno.EMFILE})
        )
    assert caught.value.errno == errno.EMFILE
    assert "ulimit -n" in str(caught.value)


def test_nothing_there_at_all_is_enoent():
    with pytest.raises(NoProviderError) as caught:
        dma_buf_allocator(CMA | SYSTEM | UDMABUF, backend=fake_backend(providers=[]))
    assert caught.value.errno == errno.ENOENT
    assert [code for _, code in caught.value.tried] == [errno.ENOENT] * 6


def test_the_real_kernel_is_asked_unless_said(tmp_path):
    path = str(tmp_path / "no-such-node")
    with pytest.raises(NoProviderError) as caught:
        dma_buf_allocator(UDMABUF, providers=[Provider(UDMABUF, path)])
    assert caught.value.tried == ((path, errno.ENOENT),)


def test_a_list_without_such_a_provider_says_so(backend):
    with pytest.raises(NoProviderError, match="providers hold no node for") as caught:
        dma_buf_allocator(CMA, providers=[Provider(UDMABUF, "/dev/udmabuf")], backend=backend)
    assert caught.value.tried == ()
    assert backend.journal.calls == []


def test_an_errorless_oserror_of_open_is_reported_as_eio():
    class Odd:
        ioctl = close = print

        def open(self, path, flags):
            raise OSError("odd")

    with pytest.raises(NoProviderError) as caught:
        dma_buf_allocator(UDMABUF, backend=Odd())
    assert caught.value.errno == errno.EIO


def test_permissions_come_from_the_file_system(fs):
    fs.create_file("/dev/udmabuf", st_mode=0o100000)
    fs.create_file("/dev/dma_heap/system", st_mode=0o100666)
    set_uid(1000)
    backend = fake_backend()
    with pytest.raises(NoProviderError) as caught:
        dma_buf_allocator(CMA | UDMABUF, backend=backend)
    assert dict(caught.value.tried)["/dev/udmabuf"] == errno.EACCES
    assert dict(caught.value.tried)["/dev/dma_heap/linux,cma"] == errno.ENOENT
    with dma_buf_allocator(CMA | UDMABUF | SYSTEM, backend=backend) as allocator:
        assert allocator.provider.path == "/dev/dma_heap/system"


@pytest.mark.parametrize(
    ("keywords", "error", "named"),
    [
        ({"flags": 1}, TypeError, "flags"),
        ({"flags": None}, TypeError, "flags"),
        ({"flags": DmaBufAllocatorFlag(0)}, ValueError, "flags"),
        ({"providers": ["/dev/udmabuf"]}, TypeError, "providers"),
        ({"providers": 5}, TypeError, "providers"),
        ({"providers": None}, TypeError, "providers"),
        ({"page_size": 0}, ValueError, "page_size"),
        ({"page_size": 5000}, ValueError, "page_size"),
        ({"page_size": -4096}, ValueError, "page_size"),
        ({"page_size": "4096"}, (TypeError, ValueError), "page_size"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_is_named_before_any_system_call(backend, keywords, error, named):
    with pytest.raises(error, match=named):
        dma_buf_allocator(backend=backend, **keywords)
    assert backend.journal.calls == []


def test_a_backend_that_cannot_be_is_named():
    with pytest.raises(TypeError, match="backend"):
        dma_buf_allocator(backend=5)


# Life


def test_closing_closes_the_node_once_and_leaves_buffers_alone(allocator, backend):
    buffer = allocator.alloc("frame", PAGE)
    fd = allocator.fileno()
    allocator.close()
    allocator.close()
    assert allocator.closed
    assert list(backend.kernel.open_fds()) == [buffer.fileno()]
    assert [c.arguments for c in backend.journal.calls if c.method == "close"].count((fd,)) == 1
    with buffer.cpu_access():
        pass
    buffer.close()


def test_a_closed_allocator_refuses_before_any_system_call(allocator, backend):
    allocator.close()
    before = len(backend.journal.calls)
    for use in (
        allocator.fileno,
        allocator.__enter__,
        lambda: allocator.alloc("x", 1),
        lambda: allocator.export_buffers(1, [1]),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert len(backend.journal.calls) == before


def test_a_dropped_allocator_is_closed_with_a_warning(backend):
    allocator = dma_buf_allocator(UDMABUF, backend=backend)
    with pytest.warns(ResourceWarning, match="unclosed <DmaBufAllocator /dev/udmabuf>"):
        del allocator
        gc.collect()
    assert backend.kernel.open_fds() == {}


def test_repr_names_the_node_and_the_state(backend):
    with dma_buf_allocator(UDMABUF, backend=backend) as allocator:
        assert repr(allocator) == "<DmaBufAllocator /dev/udmabuf>"
    assert repr(allocator) == "<DmaBufAllocator /dev/udmabuf closed>"


# What is made


@pytest.mark.parametrize(("size", "actual"), [(1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE), (5 * PAGE - 1, 5 * PAGE)])
def test_sizes_are_rounded_up_to_whole_pages(allocator, backend, size, actual):
    with allocator.alloc("frame", size) as buffer:
        assert buffer.size == actual
        assert backend.kernel.fdinfo(buffer.fileno())["size"] == actual


def test_every_buffer_has_its_name_in_the_kernel(allocator, backend):
    for name in ("frame", "x" * 31, "grün", ""):
        with allocator.alloc(name, PAGE) as buffer:
            assert buffer.name == name
            assert backend.kernel.fdinfo(buffer.fileno()).get("name", "") == name


def test_buffers_are_close_on_exec_and_writable(allocator, backend):
    with allocator.alloc("frame", PAGE) as buffer:
        flags = backend.kernel.fdinfo(buffer.fileno())["flags"]
        assert flags & os.O_CLOEXEC
        assert flags & os.O_ACCMODE == os.O_RDWR


def test_a_buffer_knows_its_provider(allocator):
    with allocator.alloc("frame", PAGE) as buffer:
        assert buffer.provider is allocator.provider


def test_a_udmabufs_memfd_is_named_sealed_against_shrinking_and_closed(backend):
    with dma_buf_allocator(UDMABUF, backend=backend) as allocator, allocator.alloc("frame", PAGE + 1):
        calls = [(call.method, *call.arguments[1:]) for call in backend.journal.calls if call.method != "open"]
        assert calls[:3] == [
            ("memfd_create", uapi.MFD_ALLOW_SEALING | uapi.MFD_CLOEXEC),
            ("ftruncate", 2 * PAGE),
            ("add_seals", uapi.F_SEAL_SHRINK),
        ]
        assert "memfd" not in backend.kernel.open_fds().values()
        (memfd,) = [call for call in backend.journal.calls if call.method == "memfd_create"]
        assert memfd.arguments[0] == "frame"


def test_a_larger_page_size_rounds_udmabufs_up_to_it(backend):
    with dma_buf_allocator(UDMABUF, backend=backend, page_size=65536) as allocator, allocator.alloc("x", 1) as buffer:
        assert buffer.size == 65536


@pytest.mark.parametrize("page_size", [1, 2])
def test_any_power_of_two_is_a_page_size(backend, page_size):
    with (
        dma_buf_allocator(SYSTEM, backend=backend, page_size=page_size) as allocator,
        allocator.alloc("x", 5) as buffer,
    ):
        assert buffer.size == backend.kernel.page_size


def test_integers_of_other_kinds_are_sizes_too(allocator):
    class Index:
        def __index__(self):
            return PAGE

    with allocator.alloc("frame", Index()) as buffer:
        assert buffer.size == PAGE


# What is refused before anything happens


@pytest.mark.parametrize(
    ("name", "size", "error", "named"),
    [
        (b"frame", 1, TypeError, "name"),
        (None, 1, TypeError, "name"),
        ("x" * 32, 1, ValueError, "name must have at most 31 bytes"),
        ("ü" * 16, 1, ValueError, "name must have at most 31 bytes"),
        ("a\0b", 1, ValueError, "name must not hold a NUL"),
        ("\udcff", 1, ValueError, "name must be text"),
        ("x", 0, ValueError, "size must be at least 1"),
        ("x", -1, ValueError, "size must be at least 1"),
        ("x", 2**63, ValueError, "size must be below"),
        ("x", 2**63 - PAGE, ValueError, "size must be below"),
        ("x", 1.0, TypeError, "size must be an integer"),
        ("x", "1", TypeError, "size must be an integer"),
        ("x", True, TypeError, "size must be an integer"),
        ("x", None, TypeError, "size must be an integer"),
    ],
    ids=str,
)
def test_what_no_kernel_would_take_is_named_before_any_system_call(allocator, backend, name, size, error, named):
    before = len(backend.journal.calls)
    with pytest.raises(error, match=named):
        allocator.alloc(name, size)
    assert len(backend.journal.calls) == before


def test_the_largest_size_that_is_let_through_is_the_kernels_to_refuse(allocator):
    with pytest.raises(AllocationError):
        allocator.alloc("huge", 2**63 - 1 - PAGE)


# What the kernel refuses

STEPS = {
    SYSTEM: ["DMA_HEAP_IOCTL_ALLOC", "DMA_BUF_SET_NAME", "lseek"],
    UDMABUF: ["memfd_create", "ftruncate", "add_seals", "UDMABUF_CREATE", "DMA_BUF_SET_NAME", "lseek"],
}
EVERY_STEP = [(flag, step) for flag, steps in STEPS.items() for step in steps]
each_step = pytest.mark.parametrize(("flag", "step"), EVERY_STEP, ids=[f"{f.name}-{s}" for f, s in EVERY_STEP])


@each_step
def test_nothing_is_left_when_any_step_fails(backend, flag, step):
    with dma_buf_allocator(flag, backend=backend) as allocator:
        before = backend.kernel.open_fds()
        backend.inject(faults.error(errno.ENOMEM, on=step))
        with pytest.raises(AllocationError) as caught:
            allocator.alloc("frame", PAGE)
        assert caught.value.errno == errno.ENOMEM
        assert isinstance(caught.value.__cause__, OSError)
        assert allocator.provider.path in str(caught.value)
        assert "Cannot allocate memory" in str(caught.value)
        assert backend.kernel.open_fds() == before
        assert backend.injector.pending == ()
        allocator.alloc("frame", PAGE).close()
    assert backend.kernel.open_fds() == {}


@each_step
def test_every_step_is_tried_again_when_a_signal_interrupts_it(backend, flag, step):
    with dma_buf_allocator(flag, backend=backend) as allocator:
        backend.inject(faults.storm(errno.EINTR, 3, on=step))
        with allocator.alloc("frame", PAGE) as buffer:
            assert buffer.size == PAGE
        assert all(isinstance(plan, faults.Storm) for plan in backend.injector.pending)
    assert backend.kernel.open_fds() == {}


@pytest.mark.parametrize("nth", [1, 2])
def test_nothing_is_left_when_a_close_fails(backend, nth):
    with dma_buf_allocator(UDMABUF, backend=backend) as allocator:
        before = backend.kernel.open_fds()
        backend.inject(faults.error(errno.EIO, on="close"), faults.error(errno.ENOMEM, on="lseek", nth=nth))
        with pytest.raises(OSError, match=r"Input/output error|Cannot allocate"):
            allocator.alloc("frame", PAGE)
        gc.collect()
        assert backend.kernel.open_fds() == before


@pytest.mark.parametrize("flag", [SYSTEM, UDMABUF], ids=lambda flag: flag.name)
def test_nothing_is_left_when_any_call_is_interrupted_by_an_exception(backend, flag):
    class Interrupting:
        calls = 0
        at = 0

        def __getattr__(self, name):
            method = getattr(backend, name)
            if name == "close":
                return method

            def call(*arguments):
                self.calls += 1
                if self.calls == self.at:
                    raise KeyboardInterrupt
                return method(*arguments)

            return call

    counted = Interrupting()
    with dma_buf_allocator(flag, backend=counted) as allocator:
        allocator.alloc("frame", PAGE).close()
    for at in range(1, counted.calls + 1):
        interrupting = Interrupting()
        interrupting.at = at
        with pytest.raises(KeyboardInterrupt), dma_buf_allocator(flag, backend=interrupting) as allocator:
            allocator.alloc("frame", PAGE).close()
        assert backend.kernel.open_fds() == {}


def test_an_error_without_errno_is_reported_as_eio(backend):
    class Odd:
        def __getattr__(self, name):
            return getattr(backend, name)

        def lseek(self, *arguments):
            raise OSError("odd")

    with dma_buf_allocator(SYSTEM, backend=Odd()) as allocator, pytest.raises(AllocationError) as caught:
        allocator.alloc("frame", PAGE)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("megabytes", [1, 3, 64])
def test_a_udmabuf_over_the_size_limit_says_so_with_the_limit(backend, megabytes):
    backend.kernel.size_limit_mb = megabytes
    with dma_buf_allocator(UDMABUF, backend=backend) as allocator:
        before = backend.kernel.open_fds()
        with pytest.raises(
            AllocationError, match=rf"size_limit_mb is {megabytes} MiB; raise it in /sys/module"
        ) as caught:
            allocator.alloc("large", (megabytes << 20) + 1)
        assert caught.value.errno == errno.EINVAL
        assert isinstance(caught.value.__cause__, OSError)
        assert backend.kernel.open_fds() == before
        allocator.alloc("largest", megabytes << 20).close()


def test_an_einval_that_is_not_the_size_limits_is_not_said_to_be(backend):
    with dma_buf_allocator(UDMABUF, backend=backend) as allocator:
        backend.inject(faults.error(errno.EINVAL, on="UDMABUF_CREATE"))
        with pytest.raises(AllocationError) as caught:
            allocator.alloc("frame", PAGE)
    assert caught.value.errno == errno.EINVAL
    assert "size_limit" not in str(caught.value)


def test_a_heap_without_memory_says_what_it_was_asked_for(backend):
    with dma_buf_allocator(SYSTEM, backend=backend) as allocator:
        with pytest.raises(AllocationError, match=r"/dev/dma_heap/system: allocating \d+ bytes for 'huge' failed"):
            allocator.alloc("huge", 1 << 40)
    assert backend.kernel.open_fds() == {}


# Frames


def test_frames_have_their_planes_one_behind_the_other_in_one_buffer(allocator, backend):
    frames = allocator.export_buffers(3, [PAGE, 100, 50])
    assert [frame.planes[0].buffer.name for frame in frames] == ["frame-0", "frame-1", "frame-2"]
    for frame in frames:
        assert [(plane.offset, plane.length) for plane in frame.planes] == [(0, PAGE), (PAGE, 100), (PAGE + 100, 50)]
        assert {plane.buffer for plane in frame.planes} == {frame.buffers[0]}
        assert frame.buffers[0].size == 2 * PAGE
        frame.close()
    assert len(dmabufs(backend)) == (1 if allocator.provider.flag is UDMABUF else 0)


def test_no_frames_are_an_empty_list(allocator, backend):
    before = len(backend.journal.calls)
    assert allocator.export_buffers(0, [PAGE]) == []
    assert len(backend.journal.calls) == before


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_frames_are_made_all_or_none(allocator, backend, nth):
    before = backend.kernel.open_fds()
    backend.inject(faults.error(errno.ENOMEM, on="DMA_BUF_SET_NAME", nth=nth))
    with pytest.raises(AllocationError):
        allocator.export_buffers(3, [PAGE])
    assert backend.kernel.open_fds() == before


def test_frames_are_all_closed_though_closing_one_fails(allocator, backend):
    before = backend.kernel.open_fds()
    nth = 3 if allocator.provider.flag is UDMABUF else 1
    backend.inject(faults.error(errno.ENOMEM, on="lseek", nth=3), faults.error(errno.EIO, on="close", nth=nth + 1))
    with pytest.raises(OSError, match=r"Input/output|Cannot allocate"):
        allocator.export_buffers(3, [PAGE])
    gc.collect()
    assert backend.kernel.open_fds() == before


@pytest.mark.parametrize(
    ("count", "sizes", "error", "named"),
    [
        (-1, [1], ValueError, "count must not be negative"),
        (1.0, [1], TypeError, "count must be an integer"),
        (True, [1], TypeError, "count must be an integer"),
        (1, [], ValueError, "plane_sizes must name at least one plane"),
        (1, 5, TypeError, "plane_sizes"),
        (1, None, TypeError, "plane_sizes"),
        (1, [1, 0], ValueError, r"plane_sizes\[1\] must be at least 1"),
        (1, ["1"], TypeError, r"plane_sizes\[0\] must be an integer"),
        (1, [2**62, 2**62], ValueError, "the sum of plane_sizes"),
    ],
    ids=str,
)
def test_frames_that_cannot_be_are_named_before_any_system_call(allocator, backend, count, sizes, error, named):
    before = len(backend.journal.calls)
    with pytest.raises(error, match=named):
        allocator.export_buffers(count, sizes)
    assert len(backend.journal.calls) == before
