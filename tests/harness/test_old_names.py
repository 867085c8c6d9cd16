"""Names of the first version: its run files are judged as they were, its options work and say what they are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmasync import cli
from dmasync.harness import old_names
from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.runs.reading import load_run

OLD = Path(__file__).parent / "gate" / "run_of_the_first_version.json"
START = "benchmarks/test_sync_steps.py::test_start[udmabuf-1MiB-READ]"


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_names, "_said", set())


def written_today(folder: Path, *, compiled: bool = False, more: int = 0) -> Path:
    """The old run as today's suites write it: new keys beside the old ones, counts; *more* instructions a START."""
    document: dict[str, Any] = json.loads(OLD.read_text(encoding="utf-8"))
    for benchmark in document["benchmarks"]:
        extra, stats = benchmark["extra_info"], benchmark["stats"]
        added = more if benchmark["fullname"] == START else 0
        counts = [round(seconds * 1e9) + added for seconds in stats["data"]]
        extra |= {"target": extra["rung"], "compiled": compiled, "instructions": counts}
        stats["data"] = [count / 1e9 for count in counts]
        stats["median"] = sorted(counts)[len(counts) // 2] / 1e9
    document["dmasync"]["target"] = document["dmasync"]["rung"]
    path = folder / "today.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_a_run_of_the_first_version_is_the_same_as_the_same_run_of_today(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["gate", str(OLD), str(written_today(tmp_path))]) == ExitStatus.GOOD
    out, err = capsys.readouterr()
    assert "good: 3 same" in out
    assert err.count("its key 'rung' is now 'target'") == 1


def test_a_regression_against_a_run_of_the_first_version_is_found(tmp_path: Path) -> None:
    judged = tmp_path / "judged.json"
    call = ["gate", str(OLD), str(written_today(tmp_path, more=38)), "--json", str(judged)]
    assert cli.main(call) == ExitStatus.REGRESSION
    (row,) = [row for row in json.loads(judged.read_text())["rows"] if row["verdict"] == "regressed"]
    assert (row["fullname"], row["difference"]) == (START, 38)
    assert row["facts"]["target"] == row["facts"]["rung"] == "vm"


def test_a_row_of_the_compiled_core_is_never_compared_with_one_of_plain_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["gate", str(OLD), str(written_today(tmp_path, compiled=True))]) == ExitStatus.CANNOT_JUDGE
    assert "different compiled False and True" in capsys.readouterr().out


def test_a_run_of_today_can_be_read_by_the_first_version(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    call = ["bench", "--on", "fake", "--only", "*null_ioctl", "--quiet", "-o", str(output)]
    assert cli.main(call) == ExitStatus.GOOD
    document = json.loads(output.read_text())
    (benchmark,) = document["benchmarks"]
    assert benchmark["extra_info"]["rung"] == document["dmasync"]["rung"] == "fake"
    assert load_run(output).facts.target == "fake"


@pytest.mark.parametrize("option", ["--rung", "--rung=fake"])
def test_the_old_option_works_and_says_what_it_is_called_now(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [option] if "=" in option else [option, "fake"]
    assert cli.main(["bench", *words, "--only", "*null_ioctl", "--quiet", "-o", str(tmp_path / "run.json")]) == 0
    out, err = capsys.readouterr()
    assert "the fake kernel" in out
    assert err == "dmasync bench: --rung is now called --on; the next version drops the old name\n"


def test_an_old_option_takes_only_what_the_new_one_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "--rung", "moon"])
    assert ended.value.code == ExitStatus.UNUSABLE
    assert "invalid choice: 'moon'" in capsys.readouterr().err


def test_an_old_option_that_may_be_repeated_adds_to_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["vm", "--mount", "/no/such/a", "--share", "/no/such/b", "--kernel", "/no/such/kernel", "--", "true"]
    assert cli.main(call) == ExitStatus.UNUSABLE
    assert "--share is now called --mount" in capsys.readouterr().err


def test_help_shows_the_new_names_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--help"])
    shown = capsys.readouterr().out
    assert "--on" in shown
    assert "rung" not in shown
