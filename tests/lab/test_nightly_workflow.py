"""The workflows that measure a lab's boards every night: their scripts, on a lab of two places."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.ci.steps import Runner, filled, loaded, step_named
from tests.lab.boards import Lab

pytestmark = pytest.mark.lab
JOB = loaded("docs/ci/github/nightly-hw.yml")["jobs"]["board"]
GITLAB = loaded("docs/ci/gitlab/.gitlab-ci.yml")["board"]
VALUES = {"matrix.place": "one", "github.run_id": "17", "github.run_attempt": "1"}


@pytest.fixture
def runner(lab: Lab, tmp_path: Path) -> Runner:
    """The lab's host: its dmasync measures two rows, which is enough to see that they arrive."""
    (tmp_path / "job").mkdir()
    programs = tmp_path / "programs"
    programs.mkdir()
    two = "--bench=--only=*test_null_ioctl* --bench=--only=*test_empty_loop*"
    (programs / "dmasync").write_text(
        f'#!/bin/sh\n[ "$1 $2" = "history nightly" ] && set -- "$@" {two}\nexec "{sys.executable}" -m dmasync "$@"\n'
    )
    (programs / "dmasync").chmod(0o755)
    variables = {name: filled(text, VALUES) for name, text in JOB["env"].items()}
    made = Runner(tmp_path / "job", **variables, **lab.variables, DMASYNC_STORAGE=str(tmp_path / "kept"))
    made.variables["PATH"] = f"{programs}:{made.variables['PATH']}"
    return made


def step(name: str) -> dict[str, object]:
    return step_named(JOB["steps"], name)


def test_a_night_of_a_place_is_judged_shown_and_kept(runner: Runner, lab: Lab, tmp_path: Path) -> None:
    measured = runner.run(step("Measure and judge"), {})
    assert measured.returncode == 0, measured.stderr
    runner.run(step("Show the verdict"), {})
    assert "2 new" in runner.summary.read_text() or "test_null_ioctl" in runner.summary.read_text()
    kept = {path.name for path in (runner.workspace / "verdict").iterdir()}
    assert kept == {"verdict.md", "verdict.xml", "kcidb.json"}
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 1
    assert lab.locked == []


def test_a_board_that_is_off_fails_the_job_and_says_so(runner: Runner, lab: Lab) -> None:
    lab.boards["one"].close()
    assert runner.run(step("Measure and judge"), {}).returncode == 3
    runner.run(step("Show the verdict"), {})
    assert runner.summary.read_text() == "one: nothing was judged\n"


@pytest.mark.parametrize("script", [step("Unlock")["run"], "\n".join(GITLAB["after_script"])])
def test_the_last_step_takes_away_the_job_s_own_lock_and_no_other(runner: Runner, lab: Lab, script: str) -> None:
    job = {"run": script}
    assert runner.run(job, {}).returncode == 0  # dmasync has released it
    mine = {"LG_HOSTNAME": runner.variables["LG_HOSTNAME"], "LG_USERNAME": runner.variables["LG_USERNAME"]}
    assert runner.run({"run": 'env -u LG_ENV labgrid-client -p "$PLACE" acquire', "env": mine}, {}).returncode == 0
    assert lab.locked == ["one"]
    assert runner.run(job, {}).returncode == 0
    assert lab.locked == []
    lab.client("-p", "one", "acquire", user="alice")
    assert runner.run(job, {}).returncode == 0
    assert lab.locked == ["one"]
