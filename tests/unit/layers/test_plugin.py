"""The plugin as another project meets it: test files run by pytest in a folder of their own."""

from __future__ import annotations

import sys

import pytest

from tests.support import warm

pytest_plugins = ["pytester"]

PRELUDE = """
import errno
import pytest
from dmasync import DmaBuf, DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer, SyncType
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
        return run_pytest(pytester, "--strict-markers", "-p", "dmasync", *options)

    return run_


def run_pytest(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """As ``pytester.runpytest_subprocess``, without loading pytest."""
    words = ["-m", "pytest", f"--basetemp={pytester.path}/runpytest", "-p", "no:cacheprovider", *options]
    done = warm.python(*words, cwd=pytester.path)
    return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0)


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
    run_pytest(pytester, "-p", "dmasync").assert_outcomes(passed=1)


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


# What is wrong with a marker or a plan is one line, with the nearest right form


MISTAKES = [
    ('faults("strom(EINTR, 3)")', "'strom(EINTR, 3)' is no fault plan: *did you mean storm?"),
    ('faults("storm(EINTRR, 3)")', "*there is no errno EINTRR: did you mean EINTR?"),
    ('faults("storm(errno.EAGIAN, 3)")', "*there is no errno EAGIAN: did you mean EAGAIN?"),
    ('faults("storm(EINTR, 3, on=Step.STRT)")', "*there is no Step.STRT: did you mean START?"),
    ('faults("storm(EINTR, 3, on=END)")', "*END is no errno: did you mean Step.END?"),
    ('faults("storm(EINTR, time=3)")', "*storm() has no 'time': did you mean times?"),
    ("faults(\"error(EIO, on='UDMABUF_CREAT')\")", "*'UDMABUF_CREAT': did you mean UDMABUF_CREATE?"),
    ('faults("storm(EINTR, 3")', "*write it as storm(EINTR, 3, on=Step.END)"),
    ("faults(3)", "*takes plans of dmasync.fakes.faults or their text, as *, not 3"),
    ("faults(deadlin=3)", "*has no 'deadlin': did you mean deadline?"),
    ('faults(deadline="3")', "*deadline must be seconds, more than 0, not '3'"),
    ('backend(profle="6.1")', "*no option 'profle': did you mean profile?"),
    ('backend("6.1")', "*takes options by name, as profile=..., not '6.1'"),
    ("noncoherent(sed=3)", "*has no 'sed': did you mean seed?"),
    ("noncoherent(3)", "*takes seed=..., not 3"),
    ('allow("leaked_fd")', "*names 'leaked_fd', which is no finding: did you mean leaked-fd?"),
]


def test_a_mistake_in_a_marker_is_one_line_with_the_nearest_right_form(run):
    result = run(
        "".join(
            f"@pytest.mark.dmasync_{marker}\ndef test_{number}(fake_dmabuf): pass\n"
            for number, (marker, _) in enumerate(MISTAKES)
        )
    )
    result.assert_outcomes(errors=len(MISTAKES))
    for marker, line in MISTAKES:
        result.stdout.fnmatch_lines_random([f"dmasync_{marker.partition('(')[0]}*{line.lstrip('*')}"])
    for machinery in ("pytest_plugin.py", "Traceback", "During handling"):
        assert machinery not in result.stdout.str()


def test_a_marker_that_does_not_exist_stops_the_run_even_where_markers_are_not_strict(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("import pytest\n@pytest.mark.dmasync_fault('storm(EINTR, 3)')\ndef test_it(): pass\n")
    result = run_pytest(pytester, "-p", "dmasync")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *there is no marker dmasync_fault: did you mean dmasync_faults?"])


# An END that would be tried for ever


@pytest.mark.parametrize(
    "plan", ["storm(EINTR, None, on=Step.END)", "storm(EAGAIN, None, on=None)", "mix(1, rate=1.0)"]
)
def test_a_plan_that_never_lets_an_end_through_needs_a_deadline(run, plan):
    result = run(
        f"""
@pytest.mark.dmasync_faults("{plan}")
def test_marked(fake_dmabuf): pass

def test_injected(fake_dmabuf):
    with pytest.raises(ValueError, match="lets an END be tried for ever"):
        fake_dmabuf.inject(faults.parse("{plan}"))
"""
    )
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*lets an END be tried for ever*deadline=SECONDS*"])


def test_a_deadline_that_passes_ends_the_plan_and_fails_the_test(run):
    result = run(
        """
@pytest.mark.dmasync_faults("storm(EINTR, None, on=Step.END)", deadline=0.001)
def test_it(fake_dmabuf):
    with buffer(fake_dmabuf) as frame, DmaSyncer(frame):
        pass
"""
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["the deadline of dmasync_faults passed while an END was still being refused by storm*"]
    )


def test_a_policy_with_a_limit_meets_such_a_plan_within_the_deadline(run):
    run(
        """
from dmasync import DmaSyncTimeout, RetryPolicy

@pytest.mark.dmasync_faults("storm(EINTR, None, on=Step.END)", "storm(EINTR, 2)", deadline=3600)
@pytest.mark.dmasync_allow("start-never-ended")
def test_it(fake_dmabuf):
    with buffer(fake_dmabuf) as frame, pytest.raises(DmaSyncTimeout):
        with DmaSyncer(frame, retry=RetryPolicy(deadline=0.001)):
            pass
"""
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "plan", ["storm(EINTR, None)", "storm(EIO, None, on=Step.END)", "mix(1)", "mix(1, (5,), rate=1.0)"]
)
def test_plans_that_come_to_an_end_need_none(run, plan):
    run(f'@pytest.mark.dmasync_faults("{plan}")\ndef test_it(fake_dmabuf): pass\n').assert_outcomes(passed=1)


# What passes silently elsewhere


DROPS = [
    "window = DmaSyncer(frame); window.start(); del window",
    "frame.cpu_access().__enter__()",
    "DmaSyncer(frame).__enter__()",
    "import contextlib; contextlib.ExitStack().enter_context(DmaSyncer(frame))",
    "from dmasync import DmaSyncerGroup; DmaSyncerGroup([(frame, SyncType.READ)]).start()",
]


@pytest.mark.parametrize("fixture", ["fake_dmabuf", "noncoherent_dmabuf"])
def test_a_window_that_was_dropped_fails_the_test(run, fixture):
    result = run(
        "".join(
            f"def test_{number}({fixture}):\n    with buffer({fixture}) as frame:\n        {drop}\n"
            for number, drop in enumerate(DROPS)
        ),
        "-W",
        "ignore",
    )
    result.assert_outcomes(passed=len(DROPS), errors=len(DROPS))
    for number in range(len(DROPS)):
        result.stdout.fnmatch_lines(
            ["window-dropped *: a syncer was dropped while its window was open*", f"*in test_{number}"]
        )


USES = [
    "socket.send_fds(socket.socketpair()[0], [b'x'], [frame.fileno()])",
    "select.select([frame], [], [], 0)",
    "selectors.DefaultSelector().register(frame.fileno(), 1)",
    "os.fstat(frame.fileno())",
    "DmaSyncer(frame.fileno()).start()",
    "DmaBuf.from_fd(frame.fileno())",
    "subprocess.run(['true'], pass_fds=[frame.fileno()])",
]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes from CPython 3.11 on")
def test_a_fake_descriptor_given_to_something_else_is_explained(run):
    result = run(
        "import os, select, selectors, socket, subprocess\n"
        + "".join(
            f"def test_{number}(fake_dmabuf):\n    with buffer(fake_dmabuf) as frame:\n        {use}\n"
            for number, use in enumerate(USES)
        ),
        "-W",
        "ignore",
    )
    result.assert_outcomes(failed=len(USES))
    told = [line for line in result.stdout.lines if "are descriptors of the fake kernel" in line]
    assert len(told) == len(USES)
    assert all(
        "backend=backend" in line and "backend.poll" in line and "dmasync run" in line and "1073741825" in line
        for line in told
    )


def test_another_programs_bad_descriptor_is_not_explained(run):
    result = run(
        """
import os
def test_it(fake_dmabuf):
    os.fstat(-5)
def test_other(fake_dmabuf):
    with buffer(fake_dmabuf): raise OSError(5, "file descriptor")
"""
    )
    assert "descriptors of the fake kernel" not in result.stdout.str()


def test_findings_spend_no_lines_on_machinery(run):
    result = run(
        """
import contextlib

@contextlib.contextmanager
def helper(backend):
    frame = buffer(backend)
    KEPT.append(frame)
    frame.cpu_access().__enter__()
    yield frame

KEPT = []

def test_it(fake_dmabuf):
    with helper(fake_dmabuf): pass
""",
        "-W",
        "ignore",
    )
    text = result.stdout.str()
    assert "leaked-fd [buffer 1 'frame']: fd 1073741825 from DMA_HEAP_IOCTL_ALLOC was never closed" in text
    frames = [line for line in text.splitlines() if line.startswith("    ") and " in " in line]
    assert frames
    for machinery in ("contextlib.py", "pluggy", "_pytest", "dmasync/buffer.py", "dmasync/allocator.py"):
        assert not any(machinery in frame for frame in frames), frames


def test_nothing_is_said_when_what_leaked_goes_at_the_end_of_the_process(run):
    result = run(
        """
KEPT = []
def test_it(noncoherent_dmabuf):
    frame = buffer(noncoherent_dmabuf)
    KEPT.append((frame, memoryview(frame.map()), frame.cpu_access().__enter__()))
    assert 0
""",
        "-W",
        "ignore",
    )
    assert "Exception ignored" not in result.stdout.str() + result.stderr.str()
    result.assert_outcomes(failed=1)
