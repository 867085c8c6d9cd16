"""Mistakes in C, found; the same done right, clean."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import pytest

from tests.support import warm

PROGRAMS = Path(__file__).with_name("programs")
BUGS = {
    "no_window": "access-outside-window",
    "writes_after_end": "access-outside-window",
    "reads_after_end": "access-outside-window",
    "writes_for_read": "write-in-read-window",
    "never_ended": "start-never-ended",
    "ended_twice": "end-without-start",
    "ends_other_access": "end-with-other-access",
    "no_retry": "end-without-start",
    "closed_too_early": "sync-on-closed-fd",
    "closed_twice": "double-close",
    "races": "racing-windows",
}
STORM = "storm(EINTR, 2)"


def plans(bug):
    return [STORM] if bug == "no_retry" else []


@pytest.mark.parametrize("bug", BUGS)
def test_a_mistake_is_found_with_its_function(compiled, dmasync_run, bug):
    done = dmasync_run(compiled("gallery"), bug, faults=plans(bug))
    assert done.status == 1, done.errors
    assert BUGS[bug] in {finding.kind for finding in done.findings}
    (finding,) = [finding for finding in done.findings if finding.kind == BUGS[bug]]
    places = {(frame[0].rpartition("/")[2], frame[2]) for trace in finding.traces for frame in trace.stack}
    # At the end of the program nothing but the end is left to name.
    assert ("gallery.c", "main") in places or bug == "no_window"
    assert f"{BUGS[bug]} [buffer" in done.errors or bug.startswith("closed")


@pytest.mark.parametrize("bug", BUGS)
def test_the_same_done_right_is_clean(compiled, dmasync_run, bug):
    done = dmasync_run(compiled("gallery"), bug, "fixed", faults=plans(bug))
    assert (done.status, done.findings) == (0, []), done.errors


@pytest.mark.parametrize(
    ("release", "fixed", "found"), [("6.1", [], 1), ("6.1", ["fixed"], 0), ("6.6", [], 0), ("6.12", [], 0)]
)
def test_a_memfd_that_goes_while_its_udmabuf_is_mapped_is_found_where_linux_miscounts(
    compiled, dmasync_run, release, fixed, found
):
    done = dmasync_run(compiled("gallery"), "memfd_gone", *fixed, options=[f"--profile={release}"])
    assert [finding.kind for finding in done.findings] == ["memfd-closed-while-mapped"] * found, done.errors
    assert done.status == found


def test_a_finding_names_file_line_and_function(compiled, dmasync_run):
    done = dmasync_run(compiled("gallery"), "ended_twice")
    (finding,) = done.findings
    source = (PROGRAMS / "gallery.c").read_text().splitlines()
    lines = {source[line - 1].strip() for file, line, _ in finding.traces[0].stack if file.endswith("gallery.c")}
    assert "sync_dmabuf(fd, END | access);" in lines or "end(RW);" in lines
    assert "main" in {function for _, _, function in finding.traces[0].stack}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the function without tables is written in assembly")
def test_who_called_a_function_without_unwind_tables_is_named(compiled, dmasync_run):
    done = dmasync_run(compiled("no_tables"))
    (finding,) = done.findings
    functions = [frame[2] for frame in finding.traces[0].stack]
    assert functions[:4] == ["bare_ioctl", "end_once", "ends_too_often", "main"], functions


def test_a_low_number_that_is_closed_and_an_inherited_one_are_no_leaks(compiled, dmasync_run):
    done = dmasync_run(compiled("calls"), "closed", options=["--leaks"])
    assert (done.status, done.errors) == (0, "dmasync run: findings: 0\n")
    done = dmasync_run(compiled("calls"), "heap", options=["--leaks", "--fault=error(EIO, 'close', nth=2)"])
    assert "leaked-fd" not in done.errors  # it was refused, and closed all the same


def test_a_finding_names_program_process_and_thread(compiled, dmasync_run):
    done = dmasync_run(compiled("gallery"), "races")
    (finding,) = [finding for finding in done.findings if finding.kind == "racing-windows"]
    who = [re.search(r", by (gallery-\d+)\[(\d+)\](?:, thread (\d+))?$", trace.what) for trace in finding.traces]
    assert all(who), finding
    assert len({match[2] for match in who if match}) == 1
    assert len({match[3] for match in who if match}) == 2
    assert str(finding.traces[0].what) in done.errors


def test_a_finding_in_a_python_program_names_its_lines(dmasync_run, tmp_path):
    program = tmp_path / "capture.py"
    program.write_text(
        "from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, SyncType, uapi\n"
        "from dmasync.backend import LINUX\n"
        "frame = DmaBufAllocator(DmaBufAllocatorFlag.SYSTEM_HEAP).alloc('frame', 4096)\n"
        "def end_too_much():\n"
        "    LINUX.ioctl(frame.fileno(), uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(4 | 3))\n"
        "with frame.cpu_access(SyncType.READ): pass\n"
        "end_too_much()\n"
    )
    done = dmasync_run(sys.executable, program)
    (finding,) = done.findings
    assert finding.kind == "end-without-start"
    assert (str(program), 5, "end_too_much") in finding.traces[0].stack
    assert (str(program), 6, "<module>") in finding.traces[1].stack


LEAKS = """
import fcntl, os, pickle, struct
heap = os.open("/dev/dma_heap/system", os.O_RDWR)
asked = bytearray(struct.pack("QIIQ", 4096, 0, os.O_RDWR | os.O_CLOEXEC, 0))
fcntl.ioctl(heap, 0xC0184800, asked)
os.close(heap)
fd = struct.unpack("QIIQ", asked)[1]
def by_dup(fd):
    return os.dup(fd)
def by_fcntl(fd):
    return fcntl.fcntl(fd, fcntl.F_DUPFD, 0)
def by_dup2(fd):
    return os.dup2(fd, fd2=77, inheritable=False)
def close(fd):
    os.close(fd)
by_dup(fd), by_fcntl(fd), by_dup2(fd)
close(fd)
try:
    close(fd)
except OSError as problem:
    print(problem, os.dup.__name__, pickle.loads(pickle.dumps(os.close)) is os.close)
copy = os.dup(77)
os.close(copy)
open(os.dup(77), "wb", buffering=0).close()  # here nobody tells of the close, and os.close() had that number before
"""


def test_what_a_python_program_leaks_and_closes_twice_names_its_lines(dmasync_run, tmp_path):
    program = tmp_path / "leaks.py"
    program.write_text(LEAKS)
    done = dmasync_run(sys.executable, program, options=["--leaks"])
    assert done.output == "[Errno 9] Bad file descriptor dup True\n"
    assert "leaked-fd [buffer 1]: fd 77 from dup was never closed" in done.errors
    for function in ("by_dup", "by_fcntl", "by_dup2"):
        assert re.search(
            rf"dup gave fd \d+, .*\n    {program}:\d+ in {function}\n    {program}:16 in <module>", done.errors
        )
    (twice,) = [finding for finding in done.findings if finding.kind == "double-close"]
    assert [trace.stack[:2] for trace in twice.traces] == [
        ((str(program), 15, "close"), (str(program), 19, "<module>")),
        ((str(program), 15, "close"), (str(program), 17, "<module>")),
    ]
    closes = [call for call in done.journal.calls if call.method == "close"]
    assert (str(program), 23, "<module>") in done.journal.stack(closes[-2].stack)
    assert str(program) not in {frame[0] for frame in done.journal.stack(closes[-1].stack)}


@pytest.mark.parametrize("tenths", [1, pytest.param(10, marks=pytest.mark.nightly)])
def test_a_storm_is_survived_by_who_tries_again(compiled, dmasync_run, tenths):
    faults = [f"storm(EINTR, {tenths * 10_000}, None)", f"storm(EAGAIN, {tenths * 1000}, None)"]
    done = dmasync_run(compiled("syncer"), "4", str(tenths * 30), faults=faults, check=False, timeout=300)
    assert (done.output, done.errors, done.status) == ("done\n", "", 0)
    journal = done.journal
    assert journal.count(errno=4) == tenths * 10_000
    assert journal.count(errno=11) == tenths * 1000
    journal.assert_balanced()


def test_a_moved_syncer_in_several_threads_is_clean(compiled, dmasync_run):
    done = dmasync_run(compiled("syncer"), "3", "5", faults=["mix(7, rate=0.5)"])
    assert (done.output, done.status, done.findings) == ("done\n", 0, [])


@pytest.mark.parametrize(("leaks", "findings"), [([], 0), (["--leaks"], 1)])
def test_a_replay_finds_what_the_run_found_that_was_recorded(tmp_path, leaks, findings):
    trace = tmp_path / "trace"
    leaves_it_open = ["sh", "-c", "exec 3<>/dev/udmabuf"]
    for command in (
        ["run", "--check", *leaks, "--trace", trace, "--", *leaves_it_open],
        ["replay", trace],
    ):
        done = warm.python("-m", "dmasync", *command)
        assert f"findings: {findings}\n" in done.stdout + done.stderr
        assert done.returncode == findings


NUMBERS = """
import fcntl, os, struct, sys
heap = os.open("/dev/dma_heap/system", os.O_RDWR)
asked = bytearray(struct.pack("QIIQ", 4096, 0, os.O_RDWR | os.O_CLOEXEC, 0))
fcntl.ioctl(heap, 0xC0184800, asked)
os.close(heap)
fd = struct.unpack("QIIQ", asked)[1]
low = os.dup2(fd, 77)
fcntl.ioctl(fd, 0x40046201, b"left eye\\0")
fcntl.ioctl(low, 0x40086200, struct.pack("Q", 3))
os.close(fd)
try:
    fcntl.ioctl(fd, 0x40086200, struct.pack("Q", 4 | 3))
except OSError:
    print(fd, low)
"""


def test_people_read_the_numbers_that_the_program_has_and_the_buffers_name(dmasync_run):
    done = dmasync_run(sys.executable, "-c", NUMBERS, options=["--leaks", "--timeline=99"])
    high, low = map(int, done.output.split())
    assert (low, done.status) == (77, 1)
    assert "10737418" not in done.errors  # the fake's own
    assert f"START READ_WRITE buffer 1 'left eye' fd {low}" in done.errors
    assert f"ioctl({high}, DMA_BUF_SET_NAME" in done.errors
    assert f"DMA_HEAP_IOCTL_ALLOC) = fd {high}" in done.errors
    assert f"sync-on-closed-fd [buffer 1 'left eye']: END on fd {high}, which is not open" in done.errors
    assert f"close of fd {high}, by python" in done.errors
    assert f"for READ_WRITE of buffer 1 'left eye', fd {low}, by" in done.errors
    assert f"fd {low} from dup was never closed" in done.errors
    assert done.journal.timeline() in done.errors  # the trace says the same
