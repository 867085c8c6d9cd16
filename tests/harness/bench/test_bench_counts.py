"""What the exact clock counted is an integer where it is measured, in the file and in the verdict."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dmasync.harness.bench.measure import EXACT
from dmasync.harness.bench.measurers import Worker
from dmasync.harness.bench.runner import own_environment, suites_folder
from dmasync.harness.bench.worker import this_host
from dmasync.harness.judge.exact import counted
from dmasync.harness.runs.reading import RunFileError, load_run

NULL = "benchmarks/test_floor.py::test_null_ioctl"
COUNTS = [3_702_531] * 10 + [3_702_532] * 11
"""Twenty-one rounds; seconds per operation would not hold them to the last digit after 32 operations a block."""


def test_the_measuring_process_answers_with_integers() -> None:
    with Worker({"fake": True}) as worker:
        assert {type(count) for count in worker.measure("null_ioctl", {}, EXACT).rounds} == {int}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the suites write where a guest answered with :data:`COUNTS`."""
    tmp_path = tmp_path_factory.mktemp("counts")
    folder, path = suites_folder(), tmp_path / "run.json"
    line = [
        sys.executable,
        "-m",
        "pytest",
        str(folder),
        "-k",
        "null_ioctl",
        "-p",
        "no:cacheprovider",
        "--dmasync-on=vm",
    ]
    plan, answers = tmp_path / "plan", tmp_path / "answers"
    measured = {"rounds": COUNTS, "operations": 32, "floor": 0.0, "loop": 0.0, "clock": 0.0, "facts": {}}
    lines = [json.dumps({"result": result}) + "\n" for result in (this_host(), measured)]
    answers.write_text("".join(lines), encoding="utf-8")
    for options in (
        [f"--dmasync-plan={plan}"],
        ["--dmasync-answers", str(plan), str(answers), f"--benchmark-json={path}"],
    ):
        subprocess.run(
            [*line, "--dmasync-exact", *options],
            check=True,
            cwd=folder.parent,
            capture_output=True,
            env=own_environment(),
        )
    return path


@pytest.fixture
def run_file(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copy(written, tmp_path))


def test_a_count_is_an_integer_in_the_file_and_stays_one_in_the_verdict(run_file: Path) -> None:
    (benchmark,) = json.loads(run_file.read_text())["benchmarks"]
    assert benchmark["extra_info"]["instructions"] == COUNTS
    row = load_run(run_file).rows[NULL]
    assert row.counts == tuple(COUNTS)
    assert counted([row]).middle == Fraction(3_702_532)
    assert counted([row]).spread == 1
    assert row.part(0, 2).instructions.middle == Fraction(3_702_531)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda counts: counts[:-1], "are not the rounds of its data"),
        (lambda counts: [count + 2 for count in counts], "are not the rounds of its data"),
        (lambda counts: [float(count) for count in counts], "is not a list of counts"),
        (lambda counts: "many", "is not a list of counts"),
    ],
)
def test_counts_that_contradict_the_data_are_refused(run_file: Path, change: Any, words: str) -> None:
    document = json.loads(run_file.read_text())
    extra = document["benchmarks"][0]["extra_info"]
    extra["instructions"] = change(extra["instructions"])
    run_file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(RunFileError, match=words):
        load_run(run_file)
