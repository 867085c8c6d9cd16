"""The plugin as another project meets it: test files run by pytest in a folder of their own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

PRELUDE = """
import errno
import pytest
from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer, SyncType
from dmasync.fakes import FakeDevice, faults

ANY = DmaBufAllocatorFlag.SYSTEM_HEAP

def buffer(backend):
    with DmaBufAllocator(ANY, backend=backend) as allocator:
        return allocator.alloc("frame", 4096)
"""


FAKE_FILES = ("-p", "fakefs")


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    def run_(source: str, *options: str) -> pytest.RunResult:
        # Other plugins take most of a second to load.
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        pytester.makepyfile(PRELUDE + source)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers", "-p", "dmasync", *options)

    return run_


def test_a_balanced_test_passes(run):
    run(
        """
def test_it(fake_dmabuf):
    with buffer(fake_dmabuf) as frame, frame.cpu_access(SyncType.WRITE) as view:
        view[:] = bytes(4096)
    assert len(fake_dmabuf.journal.transitions()) == 2
"""
    ).assert_outcomes(passed=1)


def test_a_leaked_descriptor_fails_the_test_and_is_named(run):
    result = run(
        """
def test_it(fake_dmabuf):
    fake_dmabuf.dup(fake_dmabuf.memfd_create("frame", 0))
"""
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*leaked-fd*never closed*", "*test_a_leaked*.py:*in test_it*"])


def test_an_unbalanced_window_fails_the_test_with_the_timeline(run):
    result = run(
        """
def test_it(fake_dmabuf):
    from dmasync import uapi
    with buffer(fake_dmabuf) as frame:
        fake_dmabuf.ioctl(frame.fileno(), uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(3))
"""
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*start-never-ended*", "timeline:", "*#0*START READ_WRITE*"])


def test_a_failing_test_shows_its_last_windows(run):
    result = run(
        """
def test_it(fake_dmabuf):
    with buffer(fake_dmabuf) as frame:
        with frame.cpu_access(SyncType.READ) as view:
            assert view[0] == 1
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*dma-buf timeline*", "*START READ*", "*END*READ*"])


def test_markers_allow_findings_or_turn_the_check_off(run):
    run(
        """
@pytest.mark.dmasync_allow("leaked-fd")
def test_allowed(fake_dmabuf):
    fake_dmabuf.memfd_create("frame", 0)

@pytest.mark.dmasync_unchecked
def test_unchecked(fake_dmabuf):
    fake_dmabuf.memfd_create("frame", 0)
"""
    ).assert_outcomes(passed=2)


def test_an_unknown_finding_cannot_be_allowed(run):
    result = run(
        """
@pytest.mark.dmasync_allow("leaked-df")
def test_it(fake_dmabuf):
    pass
"""
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*'leaked-df'*no finding*"])


def test_a_marker_sets_a_fault_plan(run):
    run(
        """
@pytest.mark.dmasync_faults(faults.storm(errno.EINTR, 5), "storm(errno.EAGAIN, 2, on=Step.END)")
def test_it(fake_dmabuf):
    with buffer(fake_dmabuf) as frame, DmaSyncer(frame):
        pass
    assert len(fake_dmabuf.journal.attempts) == 9
"""
    ).assert_outcomes(passed=1)


NONCOHERENT = """
@pytest.mark.dmasync_noncoherent
def test_marked(fake_dmabuf):
    use(fake_dmabuf)

def test_fixture(noncoherent_dmabuf):
    use(noncoherent_dmabuf)

def use(backend):
    with buffer(backend) as frame, FakeDevice(backend) as device:
        view = memoryview(frame.map())
        device.write(frame, b"new!" * 1024)
        assert view[0] == 0
"""


def test_non_coherent_memory_by_marker_and_by_fixture(run):
    result = run(NONCOHERENT)
    assert result.ret == 1
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["*access-outside-window*", "*fix:*"])


def test_seeds_multiply_the_tests_with_non_coherent_memory(run):
    result = run(
        """
@pytest.mark.dmasync_noncoherent
def test_marked(fake_dmabuf):
    assert fake_dmabuf.seed in (7, 8, 9)

def test_other(fake_dmabuf):
    pass
""",
        "--dmasync-seeds=3",
        "--dmasync-seed=7",
    )
    result.assert_outcomes(passed=4)


def test_the_device_tree_decides_which_nodes_can_be_opened(run):
    pytest.importorskip("pyfakefs")
    run(
        """
from dmasync import NoProviderError, AllocationError

def test_removed(fake_dmabuf, fake_dev):
    fake_dev.remove_all()
    with pytest.raises(NoProviderError) as caught:
        DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=fake_dmabuf)
    assert caught.value.errno == errno.ENOENT

def test_forbidden(fake_dmabuf, fake_dev):
    fake_dev.chmod("/dev/udmabuf", 0o000)
    with pytest.raises(NoProviderError) as caught:
        DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=fake_dmabuf)
    assert caught.value.errno == errno.EACCES
    fake_dev.chmod("/dev/udmabuf", 0o666)
    DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=fake_dmabuf).close()

def test_added(fake_dmabuf, fake_dev):
    fake_dev.remove_all()
    fake_dev.add("/dev/dma_heap/system")
    assert fake_dev.nodes == ("/dev/dma_heap/system",)
    buffer(fake_dmabuf).close()

def test_parameters(fake_dmabuf, fake_dev):
    fake_dev.set_parameter("size_limit_mb", 1)
    with open("/sys/module/udmabuf/parameters/size_limit_mb") as file:
        assert file.read() == "1\\n"
    with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=fake_dmabuf) as allocator:
        with pytest.raises(AllocationError):
            allocator.alloc("large", 2 << 20)
""",
        *FAKE_FILES,
    ).assert_outcomes(passed=4)


def test_traces_of_failing_tests_are_written(run, pytester):
    run(
        """
def test_it(fake_dmabuf):
    with buffer(fake_dmabuf) as frame, DmaSyncer(frame):
        assert False
""",
        "--dmasync-traces=traces",
    )
    from dmasync.fakes import Journal

    (path,) = (pytester.path / "traces").iterdir()
    assert len(Journal.load(path)) > 0


def test_pytest_finds_the_plugin_by_itself_and_it_can_be_left_out(pytester):
    pytester.makepyfile("def test_it(fake_dmabuf):\n    pass\n")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:dmasync")
    result.stdout.fnmatch_lines(["*fixture 'fake_dmabuf' not found*"])


def test_loading_the_plugin_imports_nothing_else_of_the_fakes(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
import sys

def test_it():
    ours = sorted(name for name in sys.modules if name.startswith(("dmasync.fakes", "dmasync.harness", "fakes")))
    assert ours == ["dmasync.fakes", "dmasync.fakes.pytest_plugin"]
"""
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "dmasync").assert_outcomes(passed=1)


def test_a_marker_sets_options_of_the_backend_and_the_nearest_wins(run):
    run(
        """
import os

pytestmark = pytest.mark.dmasync_backend(providers=["/dev/udmabuf"], profile="6.1")

def test_of_the_module(fake_dmabuf):
    assert fake_dmabuf.kernel.profile.name == "6.1"
    with pytest.raises(FileNotFoundError):
        fake_dmabuf.open("/dev/dma_heap/system", os.O_RDWR)

@pytest.mark.dmasync_backend(providers=["/dev/dma_heap/system"], faults=[faults.storm(errno.EINTR, 2)])
def test_of_its_own(fake_dmabuf):
    with buffer(fake_dmabuf) as frame, DmaSyncer(frame):
        pass
    assert len(fake_dmabuf.journal.attempts) == 4
    assert fake_dmabuf.kernel.profile.name == "6.1"
"""
    ).assert_outcomes(passed=2)


def test_a_failing_test_shows_what_was_wrong_besides(run):
    result = run(
        """
from dmasync import uapi

def test_it(fake_dmabuf):
    with buffer(fake_dmabuf) as frame:
        fake_dmabuf.ioctl(frame.fileno(), uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(7))
        fake_dmabuf.ioctl(frame.fileno(), uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(3))
        fake_dmabuf.ioctl(frame.fileno(), uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(5))
        assert False
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*dma-buf findings*", "*end-without-start*"])


def test_what_a_skipped_or_expected_failure_leaves_behind_is_no_news(run):
    run(
        """
@pytest.mark.xfail(strict=True)
def test_expected(fake_dmabuf):
    fake_dmabuf.memfd_create("left", 0)
    assert False

def test_skipped(fake_dmabuf):
    fake_dmabuf.memfd_create("left", 0)
    pytest.skip("later")
"""
    ).assert_outcomes(xfailed=1, skipped=1)


def test_without_pyfakefs_the_device_tree_says_what_to_install(run):
    result = run("def test_it(fake_dev):\n    pass\n")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*fake_dev needs pyfakefs: python3 -m pip install pyfakefs*"])


def test_a_parameter_that_udmabuf_has_not_is_refused(run):
    run(
        """
def test_it(fake_dev):
    with pytest.raises(ValueError, match="name must be list_limit or size_limit_mb, not 'limit'"):
        fake_dev.set_parameter("limit", 1)
""",
        *FAKE_FILES,
    ).assert_outcomes(passed=1)


def test_the_names_of_the_package_are_listed():
    from dmasync import fakes

    assert {"FakeBackend", "Sanitizer", "faults"} <= set(dir(fakes))
