"""The suites in a virtual machine: planned here, measured there, put into a file here. The machine is a shell."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from dmasync.harness.bench import runner, targets
from dmasync.harness.bench.measure import WALL
from dmasync.harness.bench.measurers import Answers, Planner, RowImpossibleError, WorkerError
from dmasync.harness.bench.suite import Request, run_suite
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.progress import SilentProgress
from dmasync.harness.runs.reading import load_run
from dmasync.harness.vm.kernel_log import KernelLog

NULL = "benchmarks/test_floor.py::test_null_ioctl"


class Shell:
    """Takes the place of VirtualMachine: runs the command on this host."""

    line = "{}"
    """What becomes of the command."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.python = sys.executable

    def run(self, command: str, *, stdout: BinaryIO, stderr: BinaryIO) -> SimpleNamespace:
        measuring = command.split("; ", 1)[1]  # without what only a guest may do to its kernel
        done = subprocess.run(["sh", "-c", self.line.format(measuring)], capture_output=True, check=False)
        for line in done.stdout.splitlines(keepends=True):
            stdout.write(line)
        stderr.write(done.stderr)
        return SimpleNamespace(
            returncode=done.returncode,
            kernel_source="a shell",
            append=(),
            boot_seconds=1.0,
            command_seconds=2.0,
            kernel_log=KernelLog(),
        )


class Phases(SilentProgress):
    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)


@pytest.fixture(autouse=True)
def no_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel to name, a shell for a machine; the few rows that need no node are enough."""
    monkeypatch.setattr(runner, "VirtualMachine", Shell)
    monkeypatch.setattr(
        runner.kernels, "resolve", lambda name, machine, progress: SimpleNamespace(config_digest="feed")
    )
    monkeypatch.setattr(Shell, "line", "{}")
    if targets.openable_node() is not None:
        pytest.skip("this host has nodes of its own, and would measure all rows")


def test_what_the_machine_measured_is_in_the_file_with_the_machines_facts(tmp_path: Path) -> None:
    progress = Phases()
    assert run_suite(Request("vm", quick=True), tmp_path / "run.json", progress) == ExitStatus.GOOD
    run = load_run(tmp_path / "run.json")
    assert {name.split("::")[0] for name in run.rows} == {"benchmarks/test_floor.py", "benchmarks/test_recording.py"}
    facts = run.rows[NULL].facts
    assert (facts.target, facts.unit, facts.kernel) == ("vm", "ns", platform.release())
    assert run.rows[NULL].rounds >= WALL.least_rounds
    assert run.facts.kernel_command_line
    assert run.facts.kernel_config_digest == "feed"
    reasons = {lost.fullname: lost.reason for lost in run.facts.not_measured}
    assert reasons["benchmarks/test_sync_steps.py::test_start[udmabuf-1MiB-READ]"] == "udmabuf: no node opens (ENOENT)"
    assert progress.phases[-1].startswith("measuring row")
    document = json.loads((tmp_path / "run.json").read_text())
    assert (document["dmasync"]["boot_seconds"], document["dmasync"]["suite_seconds"]) == (1.0, 2.0)


def test_a_machine_that_measures_nothing_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Shell, "line", "echo 'sh: 1: python3: not found' >&2; exit 127; {}")
    with pytest.raises(CommandError, match="nothing was measured: sh: 1: python3: not found") as failed:
        run_suite(Request("vm", quick=True), tmp_path / "run.json")
    assert failed.value.status == ExitStatus.CANNOT_JUDGE
    assert list(tmp_path.iterdir()) == []


def test_a_measuring_process_that_ends_early_loses_the_rows_that_it_did_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Shell, "line", "( {} ) | awk '{{print}} /rounds/ {{exit}}'")
    notes: list[str] = []
    progress = Phases()
    monkeypatch.setattr(progress, "note", notes.append)
    assert run_suite(Request("vm", quick=True), tmp_path / "run.json", progress) == ExitStatus.REGRESSION
    assert list(load_run(tmp_path / "run.json").rows) == [NULL]
    assert "some rows failed" in notes[1]


def test_the_answers_are_those_of_the_same_questions(tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    planner = Planner(plan)
    for size in (1, 2, 3):
        planner.add("sync_pair", {"size": size}, WALL)
    planner.close()
    rounds = {"rounds": [7.0], "operations": 1, "floor": 0.0, "loop": 0.0, "clock": 0.0, "facts": {}}
    given = [{"result": {"machine_info": {}}}, {"result": rounds}, {"impossible": "no such node"}]
    answers = Answers(plan.read_text().splitlines(), [json.dumps(one) for one in given])
    assert answers.host() == {"machine_info": {}}
    assert answers.measure("sync_pair", {"size": 1}, WALL).rounds == [7.0]
    with pytest.raises(RowImpossibleError, match="no such node"):
        answers.measure("sync_pair", {"size": 2}, WALL)
    with pytest.raises(WorkerError, match="ended before this row"):
        answers.measure("sync_pair", {"size": 3}, WALL)
    with pytest.raises(WorkerError, match="ended before this row"):
        answers.measure("sync_pair", {"size": 1}, WALL, {"size": 0})
