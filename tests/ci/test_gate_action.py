"""The action that gates a pull request: its scripts, run as GitHub runs them, on real run files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ci.steps import ROOT, Runner, loaded, step_named
from tests.support.run_files import exact

PAIR = "benchmarks/test_sync_pair.py::test_sync_pair[udmabuf]"
ACTION = loaded(".github/actions/gate/action.yml")
STEPS = ACTION["runs"]["steps"]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner on which the action's first step has been taken: dmasync is there."""
    made = Runner(tmp_path, GITHUB_ACTION_PATH=str(ROOT / ".github/actions/gate"))
    programs = made.temporary / "dmasync" / "bin"
    programs.mkdir(parents=True)
    (programs / "dmasync").symlink_to(Path(sys.executable).parent / "dmasync")
    return made


def judged(runner: Runner, *arguments: str, trees: str = "") -> subprocess.CompletedProcess[str]:
    lines = "\n".join((*arguments, ""))
    return runner.run(step_named(STEPS, "Judge"), {"inputs.arguments": lines, "inputs.trees": trees})


def ended(runner: Runner) -> int:
    values = {"steps.judge.outputs.status": runner.outputs["status"]}
    return runner.run(step_named(STEPS, "Take over the gate's status"), values).returncode


@pytest.mark.parametrize(("candidate", "status", "word"), [(100, 0, "good"), (150, 1, "regression")])
def test_the_verdict_is_in_the_summary_and_the_artifact_and_its_status_is_the_job_s(
    runner: Runner, tmp_path: Path, candidate: int, status: int, word: str
) -> None:
    base = exact(tmp_path / "the base.json", {PAIR: 100})  # a space: one line is one argument
    judging = judged(runner, str(base), str(exact(tmp_path / "c.json", {PAIR: candidate})))
    assert judging.returncode == 0, judging.stderr  # so that the verdict is kept before the job ends
    assert ended(runner) == status
    kept = runner.temporary / "dmasync-gate"
    assert {path.name for path in kept.iterdir()} == {"verdict.md", "verdict.xml", "verdict.json", "log.txt"}
    assert runner.summary.read_text() == (kept / "verdict.md").read_text()
    assert json.loads((kept / "verdict.json").read_text())["status"] == word
    uploaded = step_named(STEPS, "Keep the verdict")["with"]["path"]
    assert uploaded.replace("${{ runner.temp }}", str(runner.temporary)) == str(kept)


def test_a_gate_that_judges_nothing_says_so_in_the_summary_and_ends_in_its_status(
    runner: Runner, tmp_path: Path
) -> None:
    assert judged(runner, str(tmp_path / "none.json"), str(tmp_path / "none.json")).returncode == 0
    assert ended(runner) == 2
    said = runner.summary.read_text()
    assert said.startswith("**Nothing was judged**: the gate ended with status 2.")
    assert "none.json" in said


def test_what_others_choose_is_no_script(runner: Runner, tmp_path: Path) -> None:
    judged(runner, f"$(touch '{tmp_path}/run')", f"`touch '{tmp_path}/run'`; touch '{tmp_path}/run'")
    assert not (tmp_path / "run").exists()
    assert ended(runner) == 2


def test_a_tree_that_is_none_is_judged_as_nothing_and_named(runner: Runner, tmp_path: Path) -> None:
    judged(runner, "--quick", trees=f"{tmp_path}/no tree\n{tmp_path}/none either\n")
    assert ended(runner) not in (0, 1)
    assert "no tree" in runner.summary.read_text()


def test_an_old_verdict_is_not_taken_for_a_new_one(runner: Runner, tmp_path: Path) -> None:
    files = [str(exact(tmp_path / f"{side}.json", {PAIR: 100})) for side in "bc"]
    judged(runner, *files)
    judged(runner, files[0], "missing.json")
    assert "Nothing was judged" in (runner.temporary / "dmasync-gate" / "verdict.md").read_text()


@pytest.mark.packaging
def test_the_action_installs_dmasync_from_its_own_commit(tmp_path: Path) -> None:
    runner = Runner(tmp_path, GITHUB_ACTION_PATH=str(ROOT / ".github/actions/gate"))
    installed = runner.run(step_named(STEPS, "Install dmasync"), {})
    assert installed.returncode == 0, installed.stderr
    files = [str(exact(tmp_path / f"{side}.json", {PAIR: 100})) for side in "bc"]
    judged(runner, *files)
    assert ended(runner) == 0
