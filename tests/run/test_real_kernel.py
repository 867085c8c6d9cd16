"""``dmasync run --on kernel`` in a virtual machine: the same answers, the same findings, traces that replay."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dmasync.fakes import Journal, Sanitizer
from dmasync.fakes.replay import Replay
from tests.run.test_habits import HABITS

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
CALLS = [
    "heap", "shared_pages", "pieces", "paths", "folder 3", "duplicates", "refused", "sync_files", "travel", "exec",
    "no_bytes", "low_numbers", "wide", "odd_paths", "full",
]  # fmt: skip
WAYS = ["received", "asynchronous", "epoll_inherited", "by_name", "rare"]
# What needs the bytes to be watched is found on the fake alone.
BUGS = ["never_ended", "ended_twice", "ends_other_access", "no_retry", "closed_too_early", "closed_twice", "races"]


PYTHON = """
import fcntl, os, struct, subprocess, sys

def allocate():
    heap = os.open("/dev/dma_heap/system", os.O_RDWR)
    asked = bytearray(struct.pack("QIIQ", 4096, 0, os.O_RDWR | os.O_CLOEXEC, 0))
    fcntl.ioctl(heap, 0xC0184800, asked)
    return struct.unpack("QIIQ", asked)[1]

def capture(fd):
    fcntl.ioctl(fd, 0x40086200, struct.pack("Q", 0 | 3))
    fcntl.ioctl(fd, 0x40086200, struct.pack("Q", 4 | 3))

capture(allocate())
if sys.argv[1:] != ["child"]:
    subprocess.run([sys.executable, __file__, "child"], check=True)
"""


@pytest.fixture(scope="module")
def results(compiled, tmp_path_factory) -> Path:
    """The folder with what one boot wrote: NAME.jsonl, and a line "NAME STATUS" for each run in ``status``."""
    folder = tmp_path_factory.mktemp("real")
    calls, ways, gallery, syncer = compiled("calls"), compiled("ways"), compiled("gallery"), compiled("syncer")
    dmasync = f"{sys.executable} -m dmasync run --on kernel --timeout 400"
    python = calls.parent / "capture.py"
    lines = []

    def run(name: str, *command: str, options: str = "") -> None:
        words = shlex.join(map(str, command))
        lines.append(f"{dmasync} --trace {folder}/{name}.jsonl {options} -- {words}; echo {name} $? >> {folder}/status")

    def each(prefix: str, commands: dict[str, tuple[str, ...]]) -> str:
        """A script that runs each and writes its status down."""
        parts = (
            f"{shlex.join(map(str, words))}; echo {prefix}{name} $? >> {folder}/status"
            for name, words in commands.items()
        )
        return "\n".join(parts)

    # One supervisor for many programs, where their findings need not be told apart: its start takes longest here.
    all_calls = {kind.split()[0]: (calls, *kind.split()) for kind in CALLS} | {way: (ways, way) for way in WAYS}
    all_calls |= {habit: (compiled("habits"), habit) for habit in HABITS}
    all_calls |= {"mappings": (compiled("mappings"),), "moved": (compiled("mappings"), "moved")}
    lines.append(each("bare-", all_calls))
    run("calls", "sh", "-c", each("", all_calls))
    for bug in BUGS:
        run(bug, gallery, bug, options="--check" + (" --fault 'storm(EINTR, 2)'" if bug == "no_retry" else ""))
    run("fixed", "sh", "-c", each("fixed-", {bug: (gallery, bug, "fixed") for bug in BUGS}), options="--check")
    run("stormy", gallery, "no_retry", "fixed", options="--check --fault 'storm(EINTR, 2)'")
    lines.append("modprobe vgem")
    run("exporter", compiled("exporter"), options="--check")
    record = f"{sys.executable} -m dmasync record -o {folder}/recorded.jsonl"
    lines.append(f"{record} -- {python}; echo recorded $? >> {folder}/status")
    run("syncer", syncer, "3", "10", options="--fault 'storm(EINTR, 500, None)'")
    python.write_text(PYTHON)
    script = folder / "script"
    script.write_text("\n".join(lines))
    subprocess.run(
        [sys.executable, "-m", "dmasync", "vm", "--quiet", "--timeout", "1700", "--output", folder,
         "--mount", calls.parent, "--", "sh", script],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def statuses(results: Path) -> dict[str, int]:
    return {name: int(status) for name, status in map(str.split, (results / "status").read_text().splitlines())}


@pytest.mark.parametrize("kind", [*(kind.split()[0] for kind in CALLS), *WAYS, *HABITS, "mappings", "moved"])
def test_calls_are_answered_as_without_the_door(statuses, kind):
    assert statuses[f"bare-{kind}"] == 0
    assert statuses[kind] == 0


@pytest.mark.parametrize("bug", BUGS)
def test_findings_are_those_of_the_fake(results, statuses, dmasync_run, compiled, bug):
    faults = ["storm(EINTR, 2)"] if bug == "no_retry" else []
    fake = dmasync_run(compiled("gallery"), bug, faults=faults)
    real = Sanitizer(Journal.load(results / f"{bug}.jsonl"), leaks=False).findings()
    watched = {"access-outside-window", "write-in-read-window"}
    assert {finding.kind for finding in real} == {finding.kind for finding in fake.findings} - watched != set()
    assert statuses[bug] == 1
    assert statuses[f"fixed-{bug}"] == 0


def test_what_is_fixed_has_no_finding(statuses):
    assert statuses["fixed"] == 0
    assert statuses["stormy"] == 0


def test_what_another_driver_exports_is_judged_and_not_kept(results, statuses):
    assert statuses["exporter"] == 1
    journal = Journal.load(results / "exporter.jsonl")
    found = Sanitizer(journal, leaks=False).findings()
    assert [finding.kind for finding in found] == ["start-never-ended"]
    assert len(journal.attempts) == 599
    assert len({attempt.fd for attempt in journal.attempts}) < 10  # each is let go of with its call


def test_record_has_a_python_program_and_its_child_with_their_functions(results, statuses):
    assert statuses["recorded"] == 0
    journal = Journal.load(results / "recorded.jsonl")
    journal.assert_balanced()
    assert len(journal.attempts) == 4
    assert len({attempt.thread for attempt in journal.attempts}) == 2
    for attempt in journal.attempts:
        assert [frame[2] for frame in journal.stack(attempt.stack)][:2] == ["capture", "<module>"]
    assert Replay(journal).run() == []


def test_a_storm_on_a_real_kernel_is_survived(results, statuses):
    assert statuses["syncer"] == 0
    assert Journal.load(results / "syncer.jsonl").count(errno=4) == 500


@pytest.mark.parametrize("name", ["calls", *BUGS])
def test_a_trace_recorded_there_replays_on_the_fake_without_a_difference(results, name):
    replay = Replay(Journal.load(results / f"{name}.jsonl"))
    assert replay.run() == []
    assert replay.played > 0
