"""Whoever is killed, nothing stays behind; and nothing piles up in a long run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys

import pytest


def below(process):
    """The processes that *process* has started, and theirs."""
    found = []
    with contextlib.suppress(OSError), open(f"/proc/{process}/task/{process}/children") as children:
        for child in map(int, children.read().split()):
            found += [child, *below(child)]
    return found


def is_alive(process):
    with contextlib.suppress(OSError), open(f"/proc/{process}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_until(condition, what):
    for _ in range(10_000):
        if condition():
            return
        subprocess.run(["true"], check=True)  # time passes
    pytest.fail(what)


def moments(seed, count):
    """How many calls of open() to let pass before the kill: the run is somewhere else each time."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    return [(chance.choice(["program", "supervisor", "guard", "supervisor and program"]), n) for n in range(count)]


COUNT = int(os.environ.get("DMASYNC_KILLS", "12"))


@pytest.mark.parametrize(("victim", "seed"), moments(1, COUNT))
def test_a_kill_leaves_no_process_and_no_file(compiled, tmp_path, victim, seed):
    (tmp_path / "tmp").mkdir()
    run = subprocess.Popen(
        [sys.executable, "-m", "dmasync", "run", "--trace", tmp_path / "trace", "--", compiled("robust")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip
    wait_until(lambda: len(below(run.pid)) >= 3, "it has not started")
    for _ in range(random.Random(seed).randrange(30)):  # noqa: S311 - repeatable
        subprocess.run(["true"], check=True)
    guard, program, child = below(run.pid)[:3]
    assert all(map(is_alive, (guard, program, child)))
    for process in {
        "program": (program, child),
        "supervisor": (run.pid,),
        "guard": (guard,),
        "supervisor and program": (run.pid, program),
    }[victim]:
        with contextlib.suppress(ProcessLookupError):  # the one that was killed before has taken it along
            os.kill(process, signal.SIGKILL)
    run.wait(60)
    wait_until(lambda: not any(map(is_alive, (guard, program, child))), "something still runs")
    assert os.listdir(tmp_path / "tmp") == []
    assert set(os.listdir(tmp_path)) <= {"trace", "tmp"}


@pytest.mark.parametrize("buffers", [2000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_thousands_of_buffers_leave_nothing_behind(compiled, dmasync_run, buffers):
    done = dmasync_run(compiled("many"), str(buffers), check=False, timeout=300)
    assert (done.output, done.errors, done.status) == ("", "", 0)


def test_64_threads_at_once(compiled, dmasync_run):
    done = dmasync_run(compiled("syncer"), "64", "3", check=False, timeout=120)
    assert (done.output, done.errors, done.status) == ("done\n", "", 0)
    done.journal.assert_balanced()
