"""``dmasync run --on kernel`` in a virtual machine: the same answers, the same findings, traces that replay."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dmasync.fakes import Journal, Sanitizer
from dmasync.fakes.replay import Replay

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]
CALLS = [
    "heap", "shared_pages", "pieces", "paths", "folder 3", "duplicates", "refused", "sync_files", "travel", "exec",
    "no_bytes", "low_numbers", "wide", "odd_paths", "full",
]  # fmt: skip
# What needs the bytes to be watched is found on the fake alone.
BUGS = ["never_ended", "ended_twice", "ends_other_access", "no_retry", "closed_too_early", "closed_twice", "races"]


@pytest.fixture(scope="module")
def results(compiled, tmp_path_factory) -> Path:
    """The folder with what one boot wrote: NAME.jsonl, and a line "NAME STATUS" for each run in ``status``."""
    folder = tmp_path_factory.mktemp("real")
    calls, gallery, syncer = compiled("calls"), compiled("gallery"), compiled("syncer")
    dmasync = f"{sys.executable} -m dmasync run --on kernel --timeout 60"
    lines = []

    def run(name: str, *command: str, options: str = "") -> None:
        words = shlex.join(map(str, command))
        lines.append(f"{dmasync} --trace {folder}/{name}.jsonl {options} -- {words}; echo {name} $? >> {folder}/status")

    for kind in CALLS:
        lines.append(f"{calls} {kind}; echo bare-{kind.split()[0]} $? >> {folder}/status")
        run(kind.split()[0], calls, *kind.split())
    for bug in BUGS:
        options = "--check" + (" --fault 'storm(EINTR, 2)'" if bug == "no_retry" else "")
        run(bug, gallery, bug, options=options)
        run(f"{bug}-fixed", gallery, bug, "fixed", options=options)
    run("syncer", syncer, "3", "10", options="--fault 'storm(EINTR, 500, None)'")
    script = folder / "script"
    script.write_text("\n".join(lines))
    subprocess.run(
        [sys.executable, "-m", "dmasync", "vm", "--quiet", "--timeout", "600", "--output", folder,
         "--mount", calls.parent, "--", "sh", script],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def statuses(results: Path) -> dict[str, int]:
    return {name: int(status) for name, status in map(str.split, (results / "status").read_text().splitlines())}


@pytest.mark.parametrize("kind", [kind.split()[0] for kind in CALLS])
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
    assert statuses[f"{bug}-fixed"] == 0


def test_a_storm_on_a_real_kernel_is_survived(results, statuses):
    assert statuses["syncer"] == 0
    assert Journal.load(results / "syncer.jsonl").count(errno=4) == 500


@pytest.mark.parametrize("name", [kind.split()[0] for kind in CALLS] + BUGS)
def test_a_trace_recorded_there_replays_on_the_fake_without_a_difference(results, name):
    replay = Replay(Journal.load(results / f"{name}.jsonl"))
    assert replay.run() == []
    assert replay.played > 0
