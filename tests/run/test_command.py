"""What the command takes, what it says, and its exit status."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys

import pytest

from dmasync.cli import main
from dmasync.harness.run.seccomp import guard_process
from tests.support import warm

RUN = [sys.executable, "-m", "dmasync", "run"]


def run(*words, **how):
    return warm.python("-m", "dmasync", "run", *words, **how)


@pytest.mark.parametrize("status", [0, 1, 77])
def test_the_exit_status_is_the_programs(status):
    assert run("--", "sh", "-c", f"exit {status}").returncode == status


def test_a_program_that_a_signal_ended_is_128_more_than_that():
    assert run("--", "sh", "-c", "kill -SEGV $$").returncode == 128 + signal.SIGSEGV


def test_standard_streams_are_the_programs():
    done = run("--", "sh", "-c", "cat; echo two >&2", input="one\n")
    assert (done.stdout, done.stderr) == ("one\n", "two\n")


def test_what_it_leaves_behind_is_waited_for():
    done = run("--", "sh", "-c", "exec 3<&0; cat <&3 & exit 3", input="late\n")
    assert (done.stdout, done.returncode) == ("late\n", 3)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "PROGRAM is missing"),
        (["--", "no-such-program"], "'no-such-program' is no executable file"),
        (["--fault", "storm(", "--", "true"], "is no fault plan"),
        (["--faults", "/nowhere", "--", "true"], "--faults '/nowhere' cannot be read"),
        (["--profile", "1.0", "--", "true"], "is older than any that the fake knows: the nearest is '6.1'"),
        (["--check", "--allow", "nonsense", "--", "true"], "'nonsense', which is no finding"),
        (["--on", "kernel", "--noncoherent", "1", "--", "true"], "cannot go with --on kernel"),
        (["--device", "/nowhere.py", "--", "true"], "--device '/nowhere.py' cannot be loaded"),
        (["--device", "", "--", "true"], "--device is empty: is a variable not set?"),
        (["--on", "kernel", "--device", "/d.py", "--", "true"], "--device is the fake's"),
        (["--on", "kernel", "--profile", "6.12", "--", "true"], "--profile is the fake's"),
        (["--on", "kernel", "--node", "/dev/udmabuf", "--", "true"], "--node is the fake's"),
        (["--on", "kernel", "--no-node", "/dev/udmabuf", "--", "true"], "--no-node is the fake's"),
        (["--node", "udmabuf", "--", "true"], "--node takes /dev/udmabuf or /dev/dma_heap/NAME, not 'udmabuf'"),
        (["--node", "/dev/video0", "--", "true"], "--node takes /dev/udmabuf or /dev/dma_heap/NAME"),
        (["--node", "/dev/dma_heap/", "--", "true"], "--node takes /dev/udmabuf or /dev/dma_heap/NAME"),
        (["--deny", "", "--", "true"], "--deny is empty: is a variable not set?"),
        (["--deny", "/dev/dma_heap/nope", "--", "true"], "--deny '/dev/dma_heap/nope' is no node of this run"),
        (["--no-node", "/dev/dma_heap/nope", "--", "true"], "--no-node '/dev/dma_heap/nope' is no node of this run"),
        (["--no-node=/dev/udmabuf", "--deny=/dev/udmabuf", "--", "true"], "--deny '/dev/udmabuf' is no node of this"),
        (["--timeout", "0", "--", "true"], "--timeout takes seconds, more than 0, not 0"),
        (["--timeout", "-1", "--", "true"], "--timeout takes seconds, more than 0, not -1"),
        (["--timeout", "nan", "--", "true"], "--timeout takes seconds, more than 0, not nan"),
        (["--timeout", "inf", "--", "true"], "--timeout takes seconds, more than 0, not inf"),
        (["--timeline", "-1", "--", "true"], "--timeline takes a number of lines, not -1"),
        (["--leaks", "--", "true"], "--leaks says what --check shall do"),
        (["--allow", "leaked-fd", "--", "true"], "--allow says what --check shall do"),
        (["--fault", " ", "--", "true"], "--fault is empty"),
        (["--trace", "x", "--svg", "./x", "--", "true"], "--svg './x' is what --trace writes already"),
    ],
)
def test_unusable_arguments_are_one_line_and_status_2(words, line, capsys, monkeypatch):
    monkeypatch.setattr(guard_process, "start", None)  # nothing is started
    try:
        status = main(["run", *words])
    except SystemExit as left:
        status = left.code
    told = capsys.readouterr().err
    assert status == 2
    assert line in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(("profile", "recorded"), [("6.1", "6.1"), ("6.17", "6.17"), ("6.12.90+mine", "6.12.90")])
def test_a_trace_names_the_release_that_was_imitated(tmp_path, profile, recorded):
    trace = tmp_path / "trace.jsonl"
    assert run("--profile", profile, "--trace", trace, "--", "true").returncode == 0
    assert json.loads(trace.read_text(encoding="utf-8").splitlines()[0])["facts"]["kernel"] == recorded


def test_a_file_that_is_no_program_is_said(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    done = run("--", program)
    assert done.returncode == 2
    assert "cannot be started" in done.stderr


def test_after_the_time_out_nothing_is_left(tmp_path):
    note = tmp_path / "children"
    script = f"sleep 1000 & echo $! > {note}; echo $$ >> {note}; wait"
    assert run("--timeout", "1", "--", "sh", "-c", script).returncode == 124
    for number in note.read_text().split():
        assert not os.path.exists(f"/proc/{number}")


def test_it_cannot_run_under_itself():
    done = run("--", *RUN, "--", "true")
    assert done.returncode == 4
    assert "cannot run under another one" in done.stderr


def test_a_plan_strikes_the_program(compiled, dmasync_run, tmp_path):
    (tmp_path / "wrong").write_text("# fine\n\nstorm(EINTR, 1)\n  storm(\n")
    done = run("--faults", tmp_path / "wrong", "--", "true")
    assert (done.returncode, done.stderr.startswith(f"dmasync run: {tmp_path / 'wrong'}:4: 'storm('")) == (2, True)
    (tmp_path / "plans").write_text("# the second START\nerror(EIO, nth=2)\n")
    done = dmasync_run(compiled("calls"), "duplicates", options=[f"--faults={tmp_path / 'plans'}"], check=False)
    assert done.status == 9
    assert "Input/output error" in done.output


def test_a_close_that_a_plan_refuses_closes_all_the_same(compiled, dmasync_run):
    done = dmasync_run(compiled("gallery"), "closed_twice", "fixed", faults=["error(EIO, 'close', nth=2)"], check=False)
    assert done.status == 0
    assert [call.errno for call in done.journal.calls if call.method == "close"] == [0, 5]


def test_nodes_that_do_not_exist_or_may_not_be_opened(compiled, dmasync_run):
    script = (
        "import os\n"
        "for node in ('udmabuf', 'dma_heap/system', 'dma_heap/reserved'):\n"
        "    try: print(node, os.open('/dev/' + node, os.O_RDWR) > 0, os.access('/dev/' + node, os.R_OK))\n"
        "    except OSError as problem: print(node, problem.strerror, os.access('/dev/' + node, os.R_OK))\n"
    )
    options = ["--no-node=/dev/dma_heap/system", "--deny=/dev/dma_heap/reserved"]
    done = dmasync_run(sys.executable, "-c", script, options=options, check=False)
    assert done.output.splitlines() == [
        "udmabuf True True",
        "dma_heap/system No such file or directory False",
        "dma_heap/reserved Permission denied False",
    ]


def test_only_the_nodes_that_are_named_exist(dmasync_run):
    done = dmasync_run("ls", "/dev/dma_heap", options=["--node=/dev/dma_heap/camera"], check=False)
    assert (done.output, done.status) == ("camera\n", 0)


def test_a_call_that_is_not_modelled_is_said_with_its_name(dmasync_run):
    program = (
        "import fcntl, os\n"
        "fd = os.open('/dev/udmabuf', os.O_RDWR)\n"
        "try:\n"
        "    fcntl.ioctl(fd, 0xC0045877, 0)\n"  # FIFREEZE
        "except OSError as problem:\n"
        "    print(problem.strerror)\n"
    )
    done = dmasync_run(sys.executable, "-c", program, check=False)
    assert (done.output, done.status) == ("Function not implemented\n", 3)
    assert done.errors.startswith("dmasync run: ioctl(): not modelled: ")


def test_pictures_and_the_timeline(compiled, tmp_path):
    done = run(
        "--perfetto", tmp_path / "trace.json", "--svg", tmp_path / "chart.svg", "--timeline", "5",
        "--", compiled("calls"), "heap",
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads((tmp_path / "trace.json").read_text())
    assert "<svg" in (tmp_path / "chart.svg").read_text()
    assert 1 < len(done.stderr.splitlines()) <= 6


@pytest.mark.parametrize("kind", ["heap", "shared_pages", "pieces", "duplicates", "sync_files"])
def test_a_trace_replays_without_a_difference(compiled, dmasync_run, kind):
    done = dmasync_run(compiled("calls"), kind, check=False)
    replayed = warm.python("-m", "dmasync", "replay", "--json", done.trace)
    facts = json.loads(replayed.stdout)
    assert facts["differences"] == []
    assert facts["calls"] > 5
    assert facts["skipped"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_jobs_ends_the_program_and_keeps_what_was_seen(tmp_path, number):
    trace = tmp_path / "trace"
    program = "exec 3<>/dev/udmabuf; echo ready; exec sleep 600"
    command = [*RUN, "--check", "--trace", str(trace), "--", "sh", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        said = running.communicate(timeout=60)[1]
    assert running.returncode == 128 + number
    assert "findings: 0" in said
    assert f"ended by {number.name}" in said
    assert "udmabuf" in trace.read_text()


def test_under_nohup_a_hangup_ends_nothing(tmp_path):
    with subprocess.Popen(
        ["nohup", *RUN, "--", "sh", "-c", "echo ready; read line; exit 7"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGHUP)
        running.communicate("on\n", timeout=60)
    assert running.returncode == 7


COUNTING = (
    "import signal, sys\n"
    "seen = []\n"
    "for number in (signal.SIGINT, signal.SIGQUIT):\n"
    "    signal.signal(number, lambda number, frame: seen.append(number))\n"
    "print('ready', flush=True)\n"
    "while not seen: signal.pause()\n"
    "sys.stdin.readline()\n"
    "print(*map(int, seen))\n"
    "sys.exit(9)\n"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_what_somebody_sends_to_dmasync_alone_reaches_the_program(number):
    with subprocess.Popen(
        [*RUN, "--", sys.executable, "-c", COUNTING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        said = running.communicate("\n", timeout=60)[0]
    assert (said, running.returncode) == (f"{int(number)}\n", 9)


BOTH = (
    "import signal, sys\n"
    "numbers = (signal.SIGINT, signal.SIGQUIT)\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"
    "print('ready', flush=True)\n"
    "seen = []\n"
    "while set(seen) != set(numbers): seen.append(signal.sigwait(numbers))\n"
    "print('both', flush=True)\n"
    "sys.stdin.readline()\n"
    "while signal.sigtimedwait(numbers, 0): seen.append(0)\n"
    "print(*sorted(map(int, seen)))\n"
)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGQUIT])
def test_what_is_sent_to_the_whole_process_group_reaches_the_program_once(first):
    with subprocess.Popen(
        [*RUN, "--", sys.executable, "-c", BOTH],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout.readline() == "ready\n"
        os.killpg(running.pid, first)
        os.kill(running.pid, {signal.SIGINT: signal.SIGQUIT}.get(first, signal.SIGINT))  # to dmasync alone
        assert running.stdout.readline() == "both\n"
        said = running.communicate("\n", timeout=60)[0]
    assert (said, running.returncode) == ("2 3\n", 0)


def test_ctrl_c_at_the_terminal_reaches_the_program_once():
    keyboard, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", "import os, sys; os.setsid(); fd = os.open(os.ttyname(0), os.O_RDWR); "
         "os.execv(sys.argv[1], sys.argv[1:])", *RUN, "--", sys.executable, "-c", COUNTING],
        stdin=terminal, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout.readline() == "ready\n"
        os.write(keyboard, b"\x03")
        os.write(keyboard, b"\n")
        said = running.communicate(timeout=60)[0]
    os.close(keyboard)
    os.close(terminal)
    assert (said, running.returncode) == ("2\n", 9)


def test_a_signal_that_was_ignored_before_is_so_in_the_program():
    shown = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    line = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *RUN, "--", sys.executable, "-c", shown]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "True\n"


@pytest.mark.parametrize(
    ("name", "mode", "words", "told"),
    [
        (
            "frame.py",
            0o644,
            ["frame.py"],
            "no executable file: make it one with chmod +x, or write -- python3 frame.py",
        ),
        ("frame", 0o644, ["./frame"], "no executable file: make it one with chmod +x, or write -- INTERPRETER ./frame"),
        ("frame", 0o755, ["frame"], "not on the PATH, but in this folder: write -- ./frame"),
        ("frame", 0o755, ["."], "a folder"),
        ("frame", 0o755, ["./frame/more"], "no executable file and not on the PATH"),
        ("frame", 0o755, ["./circle"], "a file that cannot be reached: Too many levels of symbolic links"),
    ],
)
def test_a_program_that_cannot_be_started_is_told_what_to_write(tmp_path, name, mode, words, told):
    (tmp_path / name).write_text("#!/bin/sh\n")
    (tmp_path / name).chmod(mode)
    (tmp_path / "circle").symlink_to("circle")
    done = run("--", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"dmasync run: PROGRAM {words[0]!r} is {told}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["--trace", "p.sh", "--", "./p.sh"],
        ["--trace", "p.sh", "--", "sh", "p.sh"],
        ["--svg", "link", "--", "sh", "p.sh"],
        ["--faults", "p.sh", "--trace", "p.sh", "--", "true"],
    ],
)
def test_a_file_that_the_program_is_given_is_not_overwritten(tmp_path, words):
    (tmp_path / "p.sh").write_text("#!/bin/sh\n")
    (tmp_path / "p.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("p.sh")
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, "would overwrite its own input" in done.stderr) == (2, True)
    assert (tmp_path / "p.sh").read_text() == "#!/bin/sh\n"


def test_a_file_that_the_program_writes_stays_and_the_trace_goes_beside_it(tmp_path):
    done = run("--trace", "out", "--", "sh", "-c", "echo mine >out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "dmasync run: --trace 'out' is a file that the program wrote: see 'out.dmasync' instead\n"
    assert (tmp_path / "out").read_text() == "mine\n"
    assert json.loads((tmp_path / "out.dmasync").read_text().splitlines()[0])["facts"]["machine"]
    # What an earlier run left is nobody's any more.
    assert run("--trace", "out", "--", "true", cwd=tmp_path).returncode == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 is x86's")
def test_32_bit_programs_are_told_of(compiled):
    how = ["-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie", "-fno-stack-protector"]
    program = compiled("narrow", *how)
    try:
        subprocess.run([program], check=False)
    except OSError as problem:
        pytest.skip(f"this kernel runs no 32-bit program: {problem}")
    done = run(program)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.endswith("is a 32-bit program: dmasync run can stop the calls of 64-bit ones alone\n")
    assert len(done.stderr.splitlines()) == 1
    started = run("sh", "-c", f"{program}; {program}; true")
    assert started.returncode == 3
    told = "is a 32-bit program: its calls go past dmasync run, it finds what this machine has"
    assert started.stderr == f"dmasync run: {program.name} {told}\n"
