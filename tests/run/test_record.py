"""``dmasync record``: whatever asks something of dma-bufs, in whatever process and language, is in one trace."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from dmasync.fakes import Journal
from tests.support import warm

NODE = "/dev/dma_heap/no-such-heap"
RAW = f"import os\ntry: os.open({NODE!r}, os.O_RDWR)\nexcept OSError as problem: print(problem.errno)\n"


def record(trace, *command, **how):
    return warm.python("-m", "dmasync", "record", "-o", trace, "--", *command, **how)


def asked(trace):
    """How often the node was asked for, and in which Python functions."""
    journal = Journal.load(trace)
    calls = [call for call in journal.calls if call.arguments[0] == NODE]
    assert all((call.method, call.errno) == ("open", errno.ENOENT) for call in calls)
    return len(calls), {frame[2] for call in calls for frame in journal.stack(call.stack)}


CHILDREN = {
    "fork": "if not os.fork():\n        ask()\n        os._exit(0)\n    os.wait()",
    "spawn": "p = multiprocessing.get_context('spawn').Process(target=ask)\n    p.start()\n    p.join()",
    "pool": "with concurrent.futures.ProcessPoolExecutor(1) as pool:\n        pool.submit(ask).result()",
    "subprocess": "subprocess.run([sys.executable, __file__, 'child'])",
    "thread": "t = threading.Thread(target=ask)\n    t.start()\n    t.join()",
}


@pytest.mark.parametrize("how", CHILDREN)
def test_children_are_in_the_same_trace_with_their_python_functions(tmp_path, how):
    program = tmp_path / "program.py"
    program.write_text(
        "import concurrent.futures, multiprocessing, os, subprocess, sys, threading\n"
        f"def ask():\n    try: os.open({NODE!r}, os.O_RDWR)\n    except OSError: pass\n"
        f"def main():\n    {CHILDREN[how]}\n"
        "if __name__ == '__main__':\n    ask() if sys.argv[1:] else main()\n"
    )
    done = record(tmp_path / "t", program)
    assert done.returncode == 0, done.stderr
    assert f"wrote {tmp_path / 't'}" in done.stderr
    count, functions = asked(tmp_path / "t")
    assert count == 1
    assert "ask" in functions
    assert os.listdir(tmp_path).count("t") == 1
    assert not list(tmp_path.glob("t.*"))


def test_what_uses_no_backend_is_recorded(tmp_path):
    done = record(tmp_path / "t", sys.executable, "-c", RAW)
    assert done.stdout == f"{errno.ENOENT}\n"
    assert asked(tmp_path / "t")[0] == 1
    assert "but every call was refused: open('/dev/dma_heap/no-such-heap'" in done.stderr


def test_a_program_of_another_language_is_recorded(compiled, tmp_path):
    done = record(tmp_path / "t", compiled("gallery"), "no_window")
    assert done.returncode == 9  # there is no heap to get a buffer from
    (call,) = Journal.load(tmp_path / "t").calls
    assert call.arguments[0] == "/dev/dma_heap/system"
    assert "main" in {function for _, _, function in Journal.load(tmp_path / "t").stack(call.stack)}


def test_start_of_what_is_no_dma_buf_is_recorded_with_its_error(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os\nfrom dmasync import DmaSyncer\nfd = os.memfd_create('frame')\n"
        "def capture():\n    DmaSyncer(fd).start()\n"
        "try: capture()\nexcept OSError as problem: print(problem.errno)\n"
    )
    done = record(tmp_path / "t", program)
    assert done.stdout == f"{errno.ENOTTY}\n", done.stderr
    journal = Journal.load(tmp_path / "t")
    (attempt,) = journal.attempts
    assert attempt.errno == errno.ENOTTY
    assert "capture" in {function for _, _, function in journal.stack(attempt.stack)}


def test_a_program_that_closes_all_its_descriptors_lives(tmp_path):
    code = "import os\nos.closerange(3, 1024)\n" + RAW
    done = record(tmp_path / "t", sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (0, f"{errno.ENOENT}\n")
    assert asked(tmp_path / "t")[0] == 1


@pytest.mark.parametrize("code", ["pass", "this is no Python", "raise SystemExit(3)"])
def test_wrote_is_not_said_where_nothing_was_recorded(tmp_path, code):
    done = record(tmp_path / "t", sys.executable, "-c", code)
    assert "nothing was recorded" in done.stderr
    assert "wrote" not in done.stderr
    assert done.returncode == subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode


def test_a_program_that_is_killed_leaves_its_trace(tmp_path):
    code = RAW + "os.kill(os.getpid(), 9)\n"
    done = record(tmp_path / "t", sys.executable, "-c", code)
    assert done.returncode == 128 + 9
    assert asked(tmp_path / "t")[0] == 1


def test_a_program_does_not_see_that_its_stacks_are_told(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.customized = True\n")
    code = (
        "import sys\n"
        "print(sys.customized, sys.modules['sitecustomize'].__file__, [p for p in sys.path if 'in_python' in p])\n"
    )
    done = record(tmp_path / "t", sys.executable, "-c", code, env={**os.environ, "PYTHONPATH": str(site)})
    assert done.stdout == f"True {site / 'sitecustomize.py'} []\n", done.stderr


@pytest.mark.parametrize("how", [["-I"], ["-E"], ["-S"]])
def test_a_python_that_is_told_to_look_nowhere_is_recorded_without_its_functions(tmp_path, how):
    done = record(tmp_path / "t", sys.executable, *how, "-c", RAW)
    assert done.stdout == f"{errno.ENOENT}\n", done.stderr
    assert asked(tmp_path / "t")[0] == 1


@pytest.mark.parametrize("option", ["--trace", "--perfetto", "--svg"])
def test_an_output_that_cannot_be_written_is_refused_before_the_program_starts(tmp_path, option):
    words = [sys.executable, "-m", "dmasync", "run", option, tmp_path / "no" / "where", "--", "touch", tmp_path / "ran"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"{option} " in done.stderr
    assert "cannot be written: No such file or directory" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_an_output_that_is_there_is_replaced_and_a_pipe_is_waited_for(tmp_path):
    (tmp_path / "old").write_text("old")
    assert record(tmp_path / "old", "true").returncode == 0
    assert Journal.load(tmp_path / "old").calls == []
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        assert record(tmp_path / "pipe", "true").returncode == 0
        assert '"format":"dmasync-trace"' in reader.communicate()[0]


REFUSED = (
    "import fcntl, os\n"
    "fd = os.memfd_create('frames', os.MFD_ALLOW_SEALING)\n"
    "for node in ('/dev/dma_heap/nowhere', '/dev/dma_heap/nobody'):\n"
    "    try: os.open(node, os.O_RDWR)\n"
    "    except OSError: pass\n"
)


@pytest.mark.parametrize("more", ["", "try: fcntl.ioctl(fd, 0x40086200, bytes(8))\nexcept OSError: pass\n"])
def test_replay_counts_the_calls_that_record_counted(tmp_path, more):
    (tmp_path / "refused.py").write_text(REFUSED + more)
    dmasync = [sys.executable, "-m", "dmasync"]
    how = {"capture_output": True, "text": True, "check": False, "cwd": tmp_path}
    recorded = subprocess.run([*dmasync, "record", "-o", "t.jsonl", "--", "refused.py"], **how)
    count = 3 if more else 2
    assert f"of {count} calls" in recorded.stderr or f"wrote t.jsonl: {count} calls" in recorded.stderr
    replayed = subprocess.run([*dmasync, "replay", "t.jsonl"], **how)
    assert replayed.returncode == 3
    assert replayed.stdout.startswith(f"{count} calls recorded on ")
    assert "2 that tell nothing of a kernel" in replayed.stdout
    nothing = "compared with the fake" if more else "judged"  # the third call has a finding
    assert f"no call of the trace could be played: nothing was {nothing}\n" in replayed.stderr


FORBIDDING = """
import ctypes, os, sys
from dmasync.harness.run.seccomp import bpf, numbers
filter = (bpf.Instruction * 4)(
    (0x20, 0, 0, bpf.NUMBER_AT),
    (0x15, 0, 1, {number}),
    (0x06, 0, 0, 0x00050000 | {errno}),  # SECCOMP_RET_ERRNO
    (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
)
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(bpf.Instruction)))
numbers.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
program = Program(4, filter)
if ctypes.CDLL(None, use_errno=True).prctl(22, 2, ctypes.byref(program), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    raise SystemExit("the filter was refused")
os.execv(sys.executable, [sys.executable, "-m", "dmasync", *sys.argv[1:]])
"""
OWN_BACKEND = (
    "import dmasync\n"
    "try: dmasync.DmaBufAllocator(dmasync.DmaBufAllocatorFlag.UDMABUF).alloc('frame', 4096)\n"
    "except OSError: print('refused')\n"
)


def forbidding(tmp_path, code, *words):
    """Run dmasync where the system call seccomp fails with *code*, as under a container's profile."""
    number = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
    program = FORBIDDING.replace("{number}", str(number)).replace("{errno}", str(int(code)))
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_where_seccomp_is_forbidden_a_python_program_is_recorded_by_its_backend(tmp_path, code):
    (tmp_path / "own.py").write_text(OWN_BACKEND)
    done = forbidding(tmp_path, code, "record", "-o", "t.jsonl", "--", "own.py")
    assert done.returncode == 0
    assert "what dmasync's own backend is asked is recorded nevertheless" in done.stderr
    assert "dmasync record: wrote t.jsonl" in done.stderr
    calls = [call.method for call in Journal.load(tmp_path / "t.jsonl").calls]
    assert "open" in calls
    assert set(os.listdir(tmp_path)) == {"own.py", "t.jsonl"}


def test_where_seccomp_is_forbidden_any_other_program_is_refused_in_a_line(tmp_path):
    done = forbidding(tmp_path, errno.EPERM, "record", "-o", "t.jsonl", "--", "true")
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert "seccomp is forbidden here" in done.stderr
    assert os.listdir(tmp_path) == []
    done = forbidding(tmp_path, errno.EPERM, "run", "--", "true")
    assert (done.returncode, "seccomp is forbidden here" in done.stderr) == (4, True)


def test_under_another_dmasync_run_a_python_program_is_recorded_by_its_backend(tmp_path):
    (tmp_path / "own.py").write_text(OWN_BACKEND)
    dmasync = [sys.executable, "-m", "dmasync"]
    line = [*dmasync, "run", "--", *dmasync, "record", "-o", "t.jsonl", "--", "own.py"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "cannot run under another one; what dmasync's own backend is asked is recorded nevertheless" in done.stderr
    # The outer run answers: there the allocation succeeds.
    assert [call.errno for call in Journal.load(tmp_path / "t.jsonl").calls if call.method == "open"] == [0]
