"""The list of kernels that are asked, one after another: its parts must neither lose a difference nor hide a kernel."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dmasync.fakes.kernel.profile import PROFILES
from tests.conformance import ask, matrix

ROOT = Path(__file__).parents[2]
DAY = datetime.date(2026, 11, 27)
SAID: dict[str, Any] = {
    "kernel": "6.18.15+deb13-amd64",
    "profile": "6.18.15",
    "architecture": "x86_64",
    "page_size": 4096,
    "cma": False,
    "cases": 1405,
    "differences": [],
    "library": {"cases": 61, "not_asked": 0, "differences": []},
    "search": {"steps": 12000, "divergences": [], "seed": 7},
}


def machines(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, dict[str, Any] | None]) -> list[list[str]]:
    """Let virtual machines end so, one after another, instead of booting any; the commands that they were.

    Each is the suite's and the search's: what the search told is in its log.
    """
    commands: list[list[str]] = []
    left = list(answers)
    told: dict[str, Any] = {}

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        if "tests.conformance.search_fast" in command:
            Path(command[command.index("--log") + 1]).write_text(json.dumps(told["search"]))
            return subprocess.CompletedProcess(command, bool(told["search"]["divergences"]))
        commands.append(command)
        status, said = left.pop(0)
        if said is not None:
            told.update(said)
            suite = {name: value for name, value in said.items() if name != "search"}
            Path(command[command.index("--json") + 1]).write_text(json.dumps(suite))
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(matrix.subprocess, "run", run)
    return commands


def test_a_kernel_becomes_a_line_of_the_table() -> None:
    entry = matrix.Entry("6.18", ("--kernel", "debian:6.18"), "Debian's")
    line = matrix.row(entry, SAID, DAY)
    assert line == (
        "| 6.18.15 | x86-64 | 4 KiB | 6.18.15+deb13-amd64, Debian's | 1,405 | 0 | 61 of 61 | 12,000 | 0 | 2026-11-27 |"
    )
    assert line.count("|") == matrix.HEAD.splitlines()[0].count("|")


def test_every_kernel_of_the_list_is_asked_and_a_difference_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = {"cases": 61, "not_asked": 0, "differences": ["suite.py::test_z"]}
    other = SAID | {
        "differences": ["test_x.py::test_y"],
        "library": library,
        "search": {"steps": 5, "divergences": ["3.1: lseek"]},
    }
    commands = machines(monkeypatch, (0, SAID), (1, other))
    assert matrix.main(["--only", "6.12", "--only", "6.18", "--seconds", "5"]) == 1
    assert [command[command.index("--kernel") + 1] for command in commands] == ["debian:6.12", "debian:6.18"]
    out = capsys.readouterr().out
    assert "6.18 answers otherwise than 6.18.15: test_x.py::test_y" in out
    assert "6.18 answers otherwise than 6.18.15: suite.py::test_z" in out
    assert "6.18 answers otherwise than 6.18.15: 3.1: lseek" in out
    assert "| 60 of 61 |" in out


def test_a_search_that_gives_no_log_is_a_difference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        if "--json" in command:
            suite = {name: value for name, value in SAID.items() if name != "search"}
            Path(command[command.index("--json") + 1]).write_text(json.dumps(suite))
            return subprocess.CompletedProcess(command, 0)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(matrix.subprocess, "run", run)
    assert matrix.main(["--only", "6.18", "--output", str(tmp_path)]) == 1
    assert "the search ended with status 3" in capsys.readouterr().out
    # Without seconds there is no search.
    assert matrix.main(["--only", "6.18", "--output", str(tmp_path), "--seconds", "0"]) == 0


def test_a_kernel_that_is_not_offered_is_named_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machines(monkeypatch, (4, None), (0, SAID))
    assert matrix.main(["--only", "6.16", "--only", "6.18"]) == 0
    assert "6.16: not asked, it is not offered here" in capsys.readouterr().out
    machines(monkeypatch, (4, None))
    assert matrix.main(["--only", "6.16"]) == 4


def test_a_machine_that_failed_is_no_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where an earlier run left answers in the folder."""
    (tmp_path / "6.12.json").write_text(json.dumps(SAID))
    machines(monkeypatch, (3, None))
    assert matrix.main(["--only", "6.12", "--output", str(tmp_path)]) == 1


def test_another_kernel_can_be_asked_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = machines(monkeypatch, (0, SAID))
    assert matrix.main(["--also", "/boot/vmlinuz-mine"]) == 0
    assert commands[0][commands[0].index("--kernel") + 1] == "/boot/vmlinuz-mine"


def test_a_kernel_of_another_architecture_is_asked_by_its_own_python(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = machines(monkeypatch, (0, SAID), (0, SAID))
    assert matrix.main(["--only", "6.12", "--only", "6.12-arm64-16k"]) == 0
    programs = [command[command.index("--") + 1 :] for command in commands]
    assert [program[0] for program in programs] == [sys.executable, "python"]
    assert ["--dmasync-no-heap" in program for program in programs] == [False, True]


@pytest.mark.parametrize(("name", "page"), [("6.12-arm64-16k-cma", 16384), ("6.12-arm64-64k-cma", 65536)])
def test_a_kernel_that_is_built_with_larger_pages_is_asked_and_searched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, page: int
) -> None:
    commands = machines(monkeypatch, (0, SAID | {"page_size": page, "architecture": "aarch64"}))
    assert matrix.main(["--only", name]) == 0
    fragment = Path(commands[0][commands[0].index("--config") + 1])
    assert fragment.read_text() == f"CONFIG_ARM64_{page // 1024}K_PAGES=y\n"
    assert "--dmasync-no-heap" not in commands[0]
    assert f"| arm64 | {page // 1024} KiB | " in (out := capsys.readouterr().out)
    assert "| 12,000 | 0 |" in out


def test_every_profile_that_a_kernel_is_offered_for_is_on_the_list() -> None:
    names = {entry.name.partition("-")[0] for entry in matrix.KERNELS}
    assert set(PROFILES) - names == {"6.6"}, "no archive offers a 6.6; --also asks one"
    with pytest.raises(SystemExit):
        matrix.main(["--only", "5.4"])


def test_asking_counts_the_cases_and_names_those_that_were_answered_otherwise(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    one = "tests/conformance/test_numbers.py"
    command = [sys.executable, "-m", "tests.conformance.ask", "--on", "fake", "--json", str(told), one]
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0
    said = json.loads(told.read_text())
    assert said["cases"] > 0
    assert (said["differences"], "search" in said) == ([], False)


def test_a_case_that_failed_or_broke_is_a_difference_and_one_that_was_skipped_is_none_that_was_asked(
    tmp_path: Path,
) -> None:
    report = tmp_path / "cases.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.conformance.test_heap" name="test_a[1]"/>'
        '<testcase classname="tests.conformance.test_heap" name="test_b"><failure/></testcase>'
        '<testcase classname="tests.conformance.test_heap" name="test_c"><error/></testcase>'
        '<testcase classname="tests.conformance.test_heap" name="test_d"><skipped/></testcase></testsuite></testsuites>'
    )
    differences = ["test_heap.py::test_b", "test_heap.py::test_c"]
    assert ask.read(report) == {"cases": 3, "not_asked": 1, "differences": differences}


def test_a_suite_that_did_not_run_is_a_difference() -> None:
    said = ask.suite(["tests/conformance/test_numbers.py", "--no-such-option"], "fake")
    assert said == {"cases": 0, "not_asked": 0, "differences": ["the suite ended with status 4"]}
