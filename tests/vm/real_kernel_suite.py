"""What the library promises, asked of a real kernel: run as root where /dev/udmabuf and the system heap are.

    python -m pytest tests/vm/real_kernel_suite.py

``test_real_kernel.py`` runs it in a virtual machine. What is missing fails here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import re
import resource
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dmasync import (
    AllocationError,
    DmaBuf,
    DmaBufAllocator,
    DmaBufAllocatorFlag,
    DmaSyncer,
    DmaSyncerGroup,
    DmaSyncError,
    DmaSyncTimeout,
    LinuxBackend,
    NoProviderError,
    Provider,
    RetryPolicy,
    Step,
    SyncFile,
    SyncType,
    uapi,
)
from dmasync.fakes import FaultInjector, Recorder, faults
from dmasync.harness.vgem import Vgem
from tests.vm.traced_windows import WINDOWS

CMA, SYSTEM, UDMABUF = DmaBufAllocatorFlag.CMA_HEAP, DmaBufAllocatorFlag.SYSTEM_HEAP, DmaBufAllocatorFlag.UDMABUF
PAGE = mmap.PAGESIZE
ROOT = Path(__file__).parents[2]


def descriptors() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return sorted(line for line in found if "/proc/" not in line)


@pytest.fixture(autouse=True)
def _nothing_is_left_open():
    before = descriptors()
    yield
    assert descriptors() == before


@pytest.fixture
def recorder():
    return Recorder(FaultInjector(LinuxBackend()))


def _kinds() -> list[DmaBufAllocatorFlag]:
    """What buffers this kernel can give: few have a CMA heap."""
    nodes = [name for name in os.listdir("/dev/dma_heap") if not name.startswith("system")]
    return [UDMABUF, SYSTEM, *([CMA] if nodes else [])]


@pytest.fixture(params=_kinds(), ids=lambda flag: flag.name)
def allocator(request, recorder):
    with DmaBufAllocator(request.param, backend=recorder) as allocator:
        yield allocator


@pytest.fixture
def buffer(allocator):
    with allocator.alloc("frame", 3 * PAGE) as buffer:
        yield buffer


def fdinfo(fd: int) -> dict[str, str]:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


# Allocation


def test_the_search_goes_on_to_what_this_kernel_has():
    has_cma = CMA in _kinds()
    with DmaBufAllocator(CMA | SYSTEM) as allocator:
        assert allocator.provider.flag is (CMA if has_cma else SYSTEM)
    with DmaBufAllocator(CMA | UDMABUF) as allocator:
        assert allocator.provider.flag is (CMA if has_cma else UDMABUF)


@pytest.mark.parametrize(("size", "actual"), [(1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE), (1 << 20, 1 << 20)])
def test_buffers_have_whole_pages_a_name_and_close_on_exec(allocator, size, actual):
    with allocator.alloc("a frame", size) as buffer:
        info = fdinfo(buffer.fileno())
        assert (buffer.size, int(info["size"])) == (actual, actual)
        assert info["name"] == "a frame"
        assert not os.get_inheritable(buffer.fileno())
        assert int(info["flags"], 8) & os.O_ACCMODE == os.O_RDWR
        assert info["exp_name"] == Path(allocator.provider.path).name


def test_the_longest_name_is_taken_and_the_shortest_too(allocator):
    for name in ("x" * 31, ""):
        with allocator.alloc(name, PAGE) as buffer:
            assert fdinfo(buffer.fileno()).get("name", "") == name


def test_a_udmabuf_over_the_size_limit_says_so_with_the_limit():
    parameter = Path("/sys/module/udmabuf/parameters/size_limit_mb")
    before = parameter.read_text()
    try:
        for megabytes in (1, 5, 64):
            parameter.write_text(str(megabytes))
            with DmaBufAllocator(UDMABUF) as allocator:
                with pytest.raises(AllocationError, match=f"size_limit_mb is {megabytes} MiB"):
                    allocator.alloc("large", (megabytes << 20) + 1)
                allocator.alloc("largest", megabytes << 20).close()
    finally:
        parameter.write_text(before)


def test_sizes_that_no_memory_can_hold_are_udmabufs_to_refuse():
    """Not asked of the system heap: that one allocates until the machine has no memory left."""
    with DmaBufAllocator(UDMABUF) as allocator:
        for size in (1 << 45, 2**63 - 1 - PAGE):
            with pytest.raises(AllocationError) as caught:
                allocator.alloc("huge", size)
            assert isinstance(caught.value.__cause__, OSError)


def test_descriptors_that_run_out_lose_nothing(allocator):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(3):
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, limits[1]))
        said = None
        try:
            allocator.alloc("frame", PAGE).close()
        except AllocationError as error:
            said = error.errno
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert said in ((errno.EMFILE,) if spare == 0 else (errno.EMFILE, None))


def test_nobody_but_root_is_told_how_to_get_in():
    program = (
        "import os, dmasync\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: dmasync.DmaBufAllocator(dmasync.DmaBufAllocatorFlag.UDMABUF)\n"
        "except dmasync.NoProviderError as error: print(error.errno, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith(f"{errno.EACCES} ")
    assert "udev rule" in done.stdout


def test_a_node_that_is_not_there_is_reported():
    with pytest.raises(NoProviderError, match="/dev/none: No such file") as caught:
        DmaBufAllocator(UDMABUF, providers=[Provider(UDMABUF, "/dev/none")])
    assert caught.value.errno == errno.ENOENT


STEPS = {
    UDMABUF: ["memfd_create", "ftruncate", "add_seals", "UDMABUF_CREATE", "DMA_BUF_SET_NAME", "lseek"],
    SYSTEM: ["DMA_HEAP_IOCTL_ALLOC", "DMA_BUF_SET_NAME", "lseek"],
    CMA: ["DMA_HEAP_IOCTL_ALLOC", "DMA_BUF_SET_NAME", "lseek"],
}


def test_nothing_is_left_when_any_step_fails_and_each_is_tried_again_after_a_signal(allocator, recorder):
    before = descriptors()
    for step in STEPS[allocator.provider.flag]:
        recorder.inner.inject(faults.error(errno.ENOMEM, on=step))
        with pytest.raises(AllocationError):
            allocator.alloc("frame", PAGE)
        assert descriptors() == before
        recorder.inner.inject(faults.storm(errno.EINTR, 3, on=step))
        allocator.alloc("frame", PAGE).close()
        assert descriptors() == before


def test_frames_are_made_all_or_none(allocator, recorder):
    for frame in allocator.export_buffers(2, [PAGE, 100]):
        assert frame.buffers[0].size == 2 * PAGE
        with frame.syncer() as group:
            assert len(group) == 1
        frame.close()
    before = descriptors()
    recorder.inner.inject(faults.error(errno.ENOMEM, on="DMA_BUF_SET_NAME", nth=3))
    with pytest.raises(AllocationError):
        allocator.export_buffers(3, [PAGE])
    assert descriptors() == before


# Windows


@pytest.mark.parametrize("access", [SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE], ids=lambda a: a.name)
def test_the_kernel_takes_each_kind_of_window(buffer, recorder, access):
    syncer = DmaSyncer(buffer, access)
    for _ in range(3):
        with syncer:
            pass
    assert [t.step for t in recorder.journal.transitions()] == [Step.START, Step.END] * 3


def test_end_before_any_start_shows_what_the_kernel_says(buffer, recorder):
    argument = uapi.dma_buf_sync.pack(uapi.DMA_BUF_SYNC_RW | uapi.DMA_BUF_SYNC_END)
    if buffer.provider.flag is UDMABUF:
        with pytest.raises(OSError, match="Invalid argument"):
            recorder.ioctl(buffer.fileno(), uapi.DMA_BUF_IOCTL_SYNC, argument)
    else:
        recorder.ioctl(buffer.fileno(), uapi.DMA_BUF_IOCTL_SYNC, argument)


def test_bytes_written_in_a_window_are_read_in_another(buffer):
    pattern = bytes(index % 251 for index in range(3 * PAGE))
    with buffer.cpu_access(SyncType.WRITE) as view:
        assert view.nbytes == 3 * PAGE
        view[:] = pattern
    with buffer.cpu_access(SyncType.READ) as view:
        assert view.readonly
        assert view == pattern
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_a_duplicate_and_a_descriptor_from_elsewhere_show_the_same_bytes(buffer):
    with buffer.cpu_access() as view:
        view[:3] = b"abc"
    with buffer.dup() as twin, DmaBuf.from_fd(os.dup(buffer.fileno())) as foreign:
        assert foreign.size == buffer.size
        for other in (twin, foreign):
            with other.cpu_access(SyncType.READ) as view:
                assert bytes(view[:3]) == b"abc"


def test_a_number_that_a_buffer_owns_is_not_taken_over_again(buffer):
    with pytest.raises(ValueError, match="closes"):
        DmaBuf.from_fd(buffer.fileno())


@pytest.mark.parametrize(("mode", "readable"), [(os.O_RDONLY, True), (os.O_WRONLY, False)])
def test_what_was_exported_without_o_rdwr_says_so_when_it_is_mapped(mode, readable):
    with DmaBufAllocator(SYSTEM) as heap:
        argument = uapi.dma_heap_allocation_data.pack(PAGE, 0, mode | os.O_CLOEXEC, 0)
        LinuxBackend.ioctl(heap.fileno(), uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    with DmaBuf.from_fd(uapi.dma_heap_allocation_data.get(argument, "fd")) as buffer:
        said = "left out O_RDWR" if readable else "not even for reading"
        with pytest.raises(PermissionError, match=said):
            buffer.cpu_access(SyncType.WRITE)
        if readable:
            with buffer.cpu_access(SyncType.READ) as view:
                assert view[0] == 0


def test_what_is_kept_of_a_view_keeps_the_bytes_and_a_descriptor(allocator):
    with pytest.warns(ResourceWarning, match=f"{PAGE} bytes and {'1' if sys.version_info < (3, 13) else 'no'} descr"):
        with allocator.alloc("kept", PAGE) as buffer, buffer.cpu_access() as view:
            view[:1] = b"k"
            kept = view[:1]
    assert bytes(kept) == b"k"


@pytest.mark.parametrize("write", [True, False], ids=["a writer's", "a reader's"])
def test_a_wait_for_fences_ends_in_time_and_in_no_start(write):
    with Vgem.load() as vgem:
        handle, fd = vgem.new_buffer()
        backend = Recorder(LinuxBackend())
        with DmaBuf.from_fd(fd, backend=backend) as buffer:
            fence = vgem.attach_fence(handle, write=write)
            with pytest.raises(DmaSyncTimeout, match="a fence had not signalled"):
                DmaSyncer(buffer, SyncType.WRITE, retry=RetryPolicy(wait=0.05)).start()
            readers = RetryPolicy(wait=0.05)
            if write:
                with pytest.raises(DmaSyncTimeout):
                    DmaSyncer(buffer, SyncType.READ, retry=readers).start()
                assert len(backend.journal.attempts) == 0
            else:  # START for READ waits for writers alone
                with DmaSyncer(buffer, SyncType.READ, retry=readers):
                    pass
            vgem.signal(fence)
            with DmaSyncer(buffer, retry=RetryPolicy(wait=9)):
                pass


def test_files_that_are_no_dma_bufs_are_refused(allocator):
    memfd = os.memfd_create("x", os.MFD_CLOEXEC)
    for fd in (memfd, allocator.fileno()):
        with pytest.raises(ValueError, match="another file's"):
            DmaBuf.from_fd(fd)
    with pytest.raises(DmaSyncError) as caught:
        DmaSyncer(memfd).start()
    assert caught.value.errno == errno.ENOTTY
    os.close(memfd)


def test_a_window_outlives_its_closed_buffer_and_ends_on_its_own_file(allocator, recorder):
    buffer = allocator.alloc("closed", PAGE)
    fd = buffer.fileno()
    with DmaSyncer(buffer):
        buffer.close()
        assert fdinfo(fd)["name"] == "closed"
    assert [t.errno for t in recorder.journal.attempts] == [0, 0]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_group_is_one_window_over_all_in_order(allocator, recorder):
    with allocator.alloc("one", PAGE) as one, allocator.alloc("two", PAGE) as two, two.dup() as twin:
        with DmaSyncerGroup([(one, SyncType.READ), (two, SyncType.READ), (twin, SyncType.WRITE)]) as group:
            assert len(group) == 2
        done = [(t.step.name, t.fd, t.access) for t in recorder.journal.transitions()]
        assert done == [
            ("START", one.fileno(), SyncType.READ),
            ("START", two.fileno(), SyncType.READ_WRITE),
            ("END", two.fileno(), SyncType.READ_WRITE),
            ("END", one.fileno(), SyncType.READ),
        ]


def test_a_group_whose_start_fails_in_the_middle_ends_what_it_opened(allocator, recorder):
    with allocator.alloc("one", PAGE) as one, allocator.alloc("two", PAGE) as two:
        recorder.inner.inject(faults.error(errno.EIO, buffer=two))
        with pytest.raises(DmaSyncError):
            DmaSyncerGroup([(one, SyncType.READ), (two, SyncType.READ)]).start()
        recorder.journal.assert_balanced()


def test_storms_over_the_real_kernel_are_survived(buffer, recorder):
    recorder.inner.inject(faults.mix(11, rate=0.7, times=500))
    for _ in range(100):
        with buffer.cpu_access():
            pass
    recorder.journal.assert_balanced()
    assert len(recorder.journal.transitions()) == 200


# Fences


def test_sync_files_go_out_and_in(buffer, allocator):
    with allocator.alloc("other", PAGE) as other, buffer.export_sync_file(SyncType.WRITE) as sync_file:
        assert sync_file.wait(1) is True
        other.import_sync_file(sync_file, SyncType.WRITE)
        with SyncFile(other.export_sync_file(SyncType.READ).release()) as again:
            assert again.wait() is True
            poller = select.poll()
            poller.register(again, select.POLLIN)
            assert poller.poll(0)
    with pytest.raises(OSError, match="Invalid argument"):
        buffer.import_sync_file(buffer.fileno(), SyncType.READ)


# Signals


# strace puts errors in place of the kernel's answers

PROGRAM = [sys.executable, "-m", "tests.vm.traced_windows"]
SYNC = re.compile(r"ioctl\(\d+, (?:DMA_BUF_IOCTL_SYNC|_IOC\(_IOC_WRITE, 0x62, 0, 0x8\)|0x40086200)")


def traced(tmp_path: Path, *options: str) -> tuple[dict[str, object], list[str]]:
    """What the program prints under strace, and its ioctls in order."""
    strace = shutil.which("strace")
    assert strace is not None, "needs strace: apt-get install strace"
    log = tmp_path / "log"
    line = [strace, "-f", "-o", str(log), "-e", "trace=ioctl", *options, *PROGRAM]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), [text for text in log.read_text().splitlines() if "ioctl(" in text]


@pytest.fixture(scope="module")
def ioctls(tmp_path_factory):
    """The program's ioctls without injection; the program does the same each time."""
    result, lines = traced(tmp_path_factory.mktemp("plain"))
    assert result == {"bodies": 3 * WINDOWS, "errors": [], "left_open": []}
    assert len([line for line in lines if SYNC.search(line)]) == 8 * WINDOWS
    return lines


def first_sync(lines: list[str]) -> int:
    return next(number for number, line in enumerate(lines, 1) if SYNC.search(line))


@pytest.mark.parametrize("when", ["1+2", "1..30"])
def test_eintr_at_any_ioctl_from_the_first_allocation_on_is_survived(ioctls, tmp_path, when):
    result, lines = traced(tmp_path, "-e", f"inject=ioctl:error=EINTR:when={when}")
    assert result == {"bodies": 3 * WINDOWS, "errors": [], "left_open": []}
    injected = [line for line in lines if "EINTR" in line and "INJECTED" in line]
    assert len(injected) >= 30
    assert sum(1 for line in lines if SYNC.search(line) and "INJECTED" not in line) == 8 * WINDOWS


@pytest.mark.parametrize("code", ["EAGAIN", "EINTR"])
@pytest.mark.parametrize("step", ["+2", "..{last}"])
def test_refusals_of_every_second_sync_are_survived(ioctls, tmp_path, code, step):
    first = first_sync(ioctls)
    when = f"{first}{step.format(last=first + 200)}"
    result, lines = traced(tmp_path, "-e", f"inject=ioctl:error={code}:when={when}")
    assert result == {"bodies": 3 * WINDOWS, "errors": [], "left_open": []}
    assert len([line for line in lines if code in line and "INJECTED" in line]) > WINDOWS


@pytest.mark.parametrize("edge", [0, 1, 3, 5, 7])
def test_eio_at_any_edge_raises_and_leaves_no_descriptor_open(ioctls, tmp_path, edge):
    """The eight edges of one turn: START END of a syncer, of cpu_access, START START END END of a group."""
    names = ["START", "END", "START", "END", "START", "START", "END", "END"]
    first = first_sync(ioctls)
    for _ in range(5):
        result, lines = traced(tmp_path, "-e", f"inject=ioctl:error=EIO:when={first + edge}")
        # How many ioctls the interpreter makes of its own before the first window is not the same in every run.
        if first_sync(lines) == first:
            break
        first = first_sync(lines)
    assert result == {
        "bodies": [0, 1, 1, 2, 2, 2, 3, 3][edge],
        "errors": [[errno.EIO, names[edge], 1]],
        "left_open": [],
    }
    (injected,) = [line for line in lines if "INJECTED" in line]
    assert SYNC.search(injected)
