"""Markdown, JUnit, JSON and the terminal: readable by those they are for, and safe with hostile names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dmasync.cli import main
from dmasync.harness.runs.facts import RunFacts
from tests.support.run_files import HEAP, PAIR, benchmark, document, exact, facts, wall, write

HOSTILE = "t.py::x[<script>alert(1)</script>|`|]\x1b[31m\n| a | b |"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    base = exact(tmp_path / "base.json", {PAIR: 12130, HEAP: 3971, "gone": 10})
    candidate = exact(tmp_path / "candidate.json", {PAIR: 854747, HEAP: 3971, "new": 10})
    return str(base), str(candidate)


def test_json_tells_schema_status_and_each_verdict(tmp_path: Path, pair: tuple[str, str]) -> None:
    output = tmp_path / "v.json"
    assert main(["gate", *pair, "--json", str(output)]) == 1
    found = json.loads(output.read_text(), parse_constant=pytest.fail)
    assert (found["schema"], found["schema_version"], found["exit_status"]) == ("dmasync.gate", 1, 1)
    row = found["rows"][0]
    assert (row["base"], row["candidate"], row["unit"]) == (12130, 854747, "instructions")
    assert row["ratio"] == pytest.approx(70.466, abs=0.001)
    assert [row["fullname"] for row in found["vanished"]] == ["gone"]
    assert [row["fullname"] for row in found["appeared"]] == ["new"]
    assert found["base"]["kernel"] == "6.12.117"


def test_json_stays_json_when_a_ratio_is_unknown(tmp_path: Path) -> None:
    base, candidate = wall(tmp_path / "b.json", {"t": 1e-3}, rounds=1), wall(tmp_path / "c.json", {"t": 1e-3})
    output = tmp_path / "v.json"
    assert main(["gate", str(base), str(candidate), "--json", str(output)]) == 3
    assert json.loads(output.read_text(), parse_constant=pytest.fail)["rows"][0]["ratio_high"] is None


def test_junit_has_failures_for_regressions_and_errors_for_what_was_not_judged(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    output = tmp_path / "v.xml"
    main(["gate", *pair, "--junit", str(output)])
    suite = ElementTree.parse(output).getroot().find("testsuite")  # noqa: S314  # our own file
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert "failure" in cases[PAIR]
    assert "error" in cases["gone"]
    assert cases[HEAP] == ["system-out"]


def test_junit_of_nothing_measured_is_an_error(tmp_path: Path) -> None:
    base = str(exact(tmp_path / "b.json", {}))
    output = tmp_path / "v.xml"
    assert main(["gate", base, base, "--junit", str(output)]) == 3
    suite = ElementTree.parse(output).getroot().find("testsuite")  # noqa: S314  # our own file
    assert suite is not None
    assert suite.get("errors") == "1"


def test_markdown_leads_with_what_moved(tmp_path: Path, pair: tuple[str, str]) -> None:
    output = tmp_path / "v.md"
    main(["gate", *pair, "--markdown", str(output)])
    lines = output.read_text().splitlines()
    assert lines[0].startswith("### dmasync gate: regressed")
    moved = next(index for index, line in enumerate(lines) if "test_pair[udmabuf" in line)
    folded = next(index for index, line in enumerate(lines) if "<details>" in line)
    assert moved < folded
    assert "+842,617 instructions" in lines[moved]
    assert "x70.5" in lines[moved]


def suite_row(provider: str, size: int, attached: bool | None, count: int) -> dict:
    row = facts(provider=provider, size=size, attached=attached)
    return benchmark(f"t.py::pair[{provider}-{attached}-{size}]", [count * 1e-9] * 9, row)


def test_each_kind_of_buffer_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(name: str, added: int, factor: int, arguments: str, minutes: int) -> Path:
        rows = [suite_row("udmabuf", size, False, 3946 + added) for size in (4096, 65536, 1 << 20)]
        rows += [suite_row("system", 4096, False, 3971), suite_row("system", 65536, True, 3993 * factor)]
        facts_of_run = RunFacts(
            kernel="6.12",
            kernel_command_line=f"nokaslr virtme_link_mods=/{name} {arguments} -- /virtme-init-{minutes}",
            target="vm",
        )
        return write(tmp_path / name, document(rows, minutes=minutes, run=facts_of_run))

    base, candidate = run("b.json", 0, 1, "quiet", 0), run("c.json", 38, 3, "swiotlb=force", 1)
    assert main(["gate", str(base), str(candidate), "--markdown", str(tmp_path / "v.md")]) == 1
    printed, comment = capsys.readouterr().out, (tmp_path / "v.md").read_text()
    for sentence in (
        "udmabuf: all 3 rows slower, each +38 instructions (+0.96 %)",
        "system, not attached: the only row the same",
        "system, attached: the only row slower, each +7,986 instructions (x3)",
    ):
        assert sentence in printed.splitlines()
        assert f"- {sentence}" in comment.splitlines()
    assert "candidate's command line: with swiotlb=force without quiet" in printed
    assert "- the candidate's kernel command line: `with swiotlb=force without quiet`" in comment


def test_rows_that_vanished_for_one_reason_are_told_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = exact(tmp_path / "b.json", {PAIR: 1, **{f"gone[{number}]": 1 for number in range(9)}})
    candidate = exact(tmp_path / "c.json", {PAIR: 1})
    assert main(["gate", str(base), str(candidate), "--markdown", str(tmp_path / "v.md")]) == 3
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("vanished (only in the base): 9 rows: not in the file:")
    assert lines[-1].endswith("1 same, 9 more vanished")  # beside the one that was judged, not of it
    assert lines[place + 1 : place + 10] == [f"    gone[{number}]" for number in range(9)]
    told = [line for line in (tmp_path / "v.md").read_text().splitlines() if "vanished:" in line]
    assert len(told) == 1
    assert all(f"gone[{number}]" in told[0] for number in range(9))


def test_hostile_names_stay_text_in_every_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, candidate = exact(tmp_path / "b.json", {HOSTILE: 10}), exact(tmp_path / "c.json", {HOSTILE: 99})
    outputs = {kind: tmp_path / f"v.{kind}" for kind in ("markdown", "junit", "html", "json")}
    options = [part for kind, path in outputs.items() for part in (f"--{kind}", str(path))]
    assert main(["gate", str(base), str(candidate), *options]) == 1
    assert "\x1b" not in capsys.readouterr().out
    table = [line for line in outputs["markdown"].read_text().splitlines() if "alert" in line]
    assert len(table) == 1
    assert table[0].replace("\\|", "").count("|") == 8
    ElementTree.parse(outputs["junit"])  # noqa: S314  # our own file
    assert "<script>alert" not in outputs["html"].read_text()
    assert json.loads(outputs["json"].read_text())["rows"][0]["fullname"] == HOSTILE


def test_markup_of_the_terminal_library_in_a_name_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = exact(tmp_path / "b.json", {"t.py::[bold]x[/nonsense]": 10})
    assert main(["gate", str(base), str(base)]) == 0
    assert "[bold]x[/nonsense]" in capsys.readouterr().out


def test_a_terminal_without_unicode_gets_a_table_too(pair: tuple[str, str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "dmasync", "gate", *pair],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
    )
    assert (run.returncode, run.stderr) == (1, "")
    assert "regressed" in run.stdout


def test_a_reader_that_went_away_is_no_verdict(pair: tuple[str, str]) -> None:
    for options, status in ([[], 2], [["--bisect"], 128]):
        reader, writer = os.pipe()
        os.close(reader)
        run = subprocess.run(
            [sys.executable, "-m", "dmasync", "gate", *options, pair[0], pair[0]],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writer)
        assert run.returncode == status, run.stderr
        assert "Traceback" not in run.stderr
