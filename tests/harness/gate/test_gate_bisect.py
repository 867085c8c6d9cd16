"""One step of ``git bisect run``: exit statuses by git's rules, and a whole bisection left alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from dmasync.cli import main
from dmasync.harness.exit_status import CommandError
from dmasync.harness.gate import bisect, command
from dmasync.harness.gate.two_kernels import Measure, Subject
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.vm.host_packages import MissingPartError, Part
from dmasync.harness.vm.machine import BootError, GuestDiedError, GuestTimeout
from tests.support.run_files import NULL, PAIR, exact


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return exact(tmp_path / "baseline.json", {PAIR: 5649})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({PAIR: 5649}, 0), ({PAIR: 9000}, 1), ({PAIR: 100}, 0), ({"other": 1}, 125), ({}, 125)],
)
def test_two_runs_are_answered_by_git_s_rules(
    tmp_path: Path, baseline: Path, counts: dict[str, int], expected: int
) -> None:
    candidate = exact(tmp_path / "c.json", counts)
    assert main(["gate", "--bisect", str(baseline), str(candidate)]) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["BASE"],
        ["MISSING", "BASE"],
        ["BASE", "MISSING"],
        ["BASE", "BASE", "--kernel", "K"],
        ["BASE", "--kernel", "K", "--kernel", "K"],
        ["BASE", "--append-base", "x", "--kernel", "K"],
        ["BASE", "--kernel", "MISSING"],
        ["BASE", "--measure", "true", "--kernel", "K"],
        ["BASE", "--measure", "true", "--blocks", "0"],
        ["BASE", "--measure", "true", "--measure-base", "true"],
        ["BASE", "--measure", "true", "--self-check"],
        ["BASE", "--measure", "true", "--keep", "folder"],
        ["BASE", "--measure", "no-such-command-anywhere"],
        ["BASE", "--build", "no-such-command-anywhere", "--measure", "true"],
        ["BASE", "BASE", "--max-regression", "much"],
        ["BASE", "BASE", "--typo"],
        ["BASE", "BASE", "--json", "MISSING/v.json"],
        ["BASE", "BASE", "--panic"],
        ["BASE", "BASE", "TOO", "MANY"],
        ["EMPTY", "BASE"],
    ],
    ids=" ".join,
)
def test_a_mistake_in_the_call_stops_the_bisection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exact(tmp_path / "BASE", {PAIR: 5649})
    exact(tmp_path / "EMPTY", {})
    assert main(["gate", "--bisect", *arguments]) >= 128


def test_a_misspelt_bisect_stops_too(baseline: Path) -> None:
    assert main(["gate", str(baseline), str(baseline), "--bisct"]) >= 128


def test_help_is_no_mistake() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["gate", "--bisect", "--help"])
    assert caught.value.code == 0


def options(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    command.configure(parser)
    return parser.parse_args(["--bisect", *arguments])


def step(measure: Measure, *arguments: str) -> int:
    return bisect.run(options(*arguments, "--kernel", "bzImage"), lambda _: GateSettings(), measure)


def raising(error: Exception) -> Measure:
    def measure(subject: Subject, output: Path) -> None:
        raise error

    return measure


@pytest.mark.parametrize(
    ("error", "expected", "with_panic_is_bad"),
    [
        (BootError("did not boot", "Kernel panic - not syncing: VFS"), 125, 1),
        (GuestDiedError("the guest ended", "Kernel panic - not syncing: Fatal"), 125, 1),
        (BootError("did not boot within 240 s", "[    1.0] stuck"), 125, 125),
        (GuestTimeout("still running", "Kernel panic in a log line"), 125, 125),
        (CommandError("no such kernel", 2), 128, 128),
        (CommandError("kernel is built without CONFIG_UDMABUF", 4), 125, 125),
        (CommandError("the suites failed", 1), 125, 125),
        (CommandError("nothing measured", 3), 125, 125),
        (ValueError("a bug of ours"), 128, 128),
        (OSError(28, "No space left on device"), 128, 128),
    ],
    ids=str,
)
def test_what_stops_a_measurement_is_never_taken_for_a_bad_commit(
    baseline: Path, error: Exception, expected: int, with_panic_is_bad: int
) -> None:
    assert step(raising(error), str(baseline)) == expected
    assert step(raising(error), str(baseline), "--panic-is-bad") == with_panic_is_bad


def test_a_missing_part_of_this_host_stops_the_bisection(baseline: Path) -> None:
    error = MissingPartError([Part("qemu-system-x86_64", "qemu-system-x86", "emulates")])
    assert step(raising(error), str(baseline)) == 128


def test_a_measurement_that_wrote_nothing_skips(baseline: Path) -> None:
    assert step(lambda subject, output: None, str(baseline)) == 125


def test_a_measurement_cut_off_skips(baseline: Path) -> None:
    assert step(lambda subject, output: output.write_text("{") and None, str(baseline)) == 125


def test_the_candidate_s_kernel_arguments_are_split_and_may_be_none(baseline: Path) -> None:
    seen = []

    def measure(subject: Subject, output: Path) -> None:
        seen.append(subject.append)
        exact(output, {PAIR: 5649})

    assert step(measure, str(baseline), "--append-candidate", "") == 0
    assert step(measure, str(baseline), "--append-candidate", "swiotlb=force quiet") == 0
    assert seen == [(), ("swiotlb=force", "quiet")]


def test_a_step_may_look_at_some_rows_only(tmp_path: Path) -> None:
    baseline = exact(tmp_path / "b.json", {PAIR: 5649, NULL: 1730})
    seen = []

    def measure(subject: Subject, output: Path) -> None:
        seen.append(subject.only)
        exact(output, {PAIR: 5649})

    assert step(measure, str(baseline), "--append-candidate", "x") == 125
    assert step(measure, str(baseline), "--append-candidate", "x", "--only", "*udmabuf*") == 0
    assert step(measure, str(baseline), "--append-candidate", "x", "--only", "*nothing*") == 128
    assert seen == [(), ("*udmabuf*",)]


def test_a_build_that_fails_skips_and_one_that_works_is_measured(tmp_path: Path, baseline: Path) -> None:
    run = exact(tmp_path / "c.json", {PAIR: 9000})
    copy = f'cp {run} "$DMASYNC_RUN"'
    assert main(["gate", "--bisect", str(baseline), "--build", "exit 2", "--measure", copy]) == 125
    assert main(["gate", "--bisect", str(baseline), "--build", "true", "--measure", copy]) == 1
    assert main(["gate", "--bisect", str(baseline), "--measure", f"{copy}; exit 3"]) == 125


MEASURE = """
import json, os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.support.run_files import PAIR, exact
line = Path("cmdline").read_text().split()
if "broken" in line:
    sys.exit(1)
exact(Path(os.environ["DMASYNC_RUN"]), {{PAIR: 854747 if "swiotlb=force" in line else 5649 + len(line)}})
"""


def commits(folder: Path, lines: list[str]) -> list[str]:
    """A repository whose commits hold one kernel command line each; their names, oldest first."""

    def git(*arguments: str) -> str:
        call = ["git", "-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *arguments]
        return subprocess.run(call, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    names = []
    for number, line in enumerate(lines):
        (folder / "cmdline").write_text(line + "\n")
        git("add", "cmdline")
        git("commit", "-q", "--allow-empty", "-m", f"change {number}")
        names.append(git("rev-parse", "HEAD"))
    return names


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git: apt-get install git")
@pytest.mark.parametrize(
    "planted", [pytest.param(1, marks=pytest.mark.nightly), 9, pytest.param(15, marks=pytest.mark.nightly)]
)
def test_git_bisect_run_finds_the_planted_commit_unattended(tmp_path: Path, planted: int) -> None:
    lines = [f"quiet note={number}" for number in range(16)]
    for number in range(planted, 16):
        lines[number] += " swiotlb=force"
    if planted == 9:
        lines[7] = lines[7] + " broken"  # cannot be measured: skipped, not blamed
    repository = tmp_path / "repository"
    repository.mkdir()
    names = commits(repository, lines)
    baseline = exact(tmp_path / "baseline.json", {PAIR: 5651})
    script = tmp_path / "measure.py"
    script.write_text(MEASURE.format(root=str(Path(__file__).parents[3])))
    subprocess.run(["git", "bisect", "start", names[15], names[0]], cwd=repository, check=True, capture_output=True)
    gate = [sys.executable, "-m", "dmasync", "gate", "--bisect", str(baseline)]
    run = subprocess.run(
        ["git", "bisect", "run", *gate, "--measure", f"{sys.executable} {script}"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{names[planted]} is the first bad commit" in run.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git: apt-get install git")
def test_a_typo_stops_git_bisect_instead_of_blaming_a_commit(tmp_path: Path) -> None:
    names = commits(tmp_path, [f"note={number}" for number in range(16)])
    subprocess.run(["git", "bisect", "start", names[15], names[0]], cwd=tmp_path, check=True, capture_output=True)
    gate = [sys.executable, "-m", "dmasync", "gate", "--bisect", "baseline-that-is-not-there.json"]
    run = subprocess.run(
        ["git", "bisect", "run", *gate, "--measure", "true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "first bad commit" not in run.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--build", "", "--measure", "true"],
        ["--build", " \t", "--measure", "true"],
        ["--build=", "--kernel", "K"],
        ["--measure", ""],
        ["--measure", "\n"],
        ["--measure", "echo 'never closed"],
        ["--build", 'make "CC=ccache gcc', "--measure", "true"],
        ["--build", "make &&", "--measure", "true"],
        ["--build", "(make", "--measure", "true"],
        ["--measure", "cp run.json ${DMASYNC_RUN"],
        ["--kernel", ""],
        ["--measure", "true", "--only", ""],
        ["--measure", "true", "--keep", ""],
        [""],
    ],
    ids=" ".join,
)
def test_an_empty_or_unfinished_argument_stops_the_bisection_before_anything_runs(
    baseline: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["gate", "--bisect", str(baseline), *arguments]) == 128
    said = capfd.readouterr().err.splitlines()[-1]
    assert "is empty" in said or "is no shell command" in said


def test_neither_side_s_measuring_command_may_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "--measure-base", "true", "--measure-candidate", " "]) == 2
    assert "--measure-candidate is empty" in capsys.readouterr().err
