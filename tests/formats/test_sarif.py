"""Findings as SARIF: a model of the standard accepts them, and they lie at the line of the program that is to blame."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif

from dmasync.cli import main


def found_in(folder: Path, lines: str) -> dict[str, Any]:
    """The SARIF file for a trace of a program of *lines*, which has the fake as ``backend``."""
    program = folder / "program é.py"
    program.write_text(
        "import sys, dmasync\nfrom dmasync.fakes import FakeBackend\nbackend = FakeBackend(stacks=True)\n"
        "allocator = dmasync.DmaBufAllocator(dmasync.DmaBufAllocatorFlag.SYSTEM_HEAP, backend=backend)\n"
        f"buffer = allocator.alloc('a frame', 4096)\n{lines}"
        "buffer.close()\nallocator.close()\nbackend.journal.dump(sys.argv[1])\n"
    )
    trace = folder / "trace"
    subprocess.run([sys.executable, str(program), str(trace)], check=True)
    status = main(["replay", str(trace), "--sarif", str(folder / "f.sarif")])
    text = (folder / "f.sarif").read_text(encoding="utf-8")
    Sarif.model_validate_json(text)
    (run,) = json.loads(text)["runs"]
    assert status == bool(run["results"])
    return run


def test_a_finding_is_shown_at_the_line_of_the_program(tmp_path: Path) -> None:
    end = "backend.ioctl(buffer.fileno(), dmasync.uapi.DMA_BUF_IOCTL_SYNC, bytearray((5).to_bytes(8, 'little')))\n"
    run = found_in(tmp_path, f"import dmasync.uapi\n{end}")
    (result,) = [one for one in run["results"] if one["ruleId"] == "end-without-start"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "end-without-start"
    (location,) = result["locations"]
    place = location["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("/program%20%C3%A9.py")
    assert place["region"] == {"startLine": 7}


def test_a_program_without_mistakes_has_rules_and_no_results(tmp_path: Path) -> None:
    run = found_in(tmp_path, "with buffer.cpu_access(dmasync.SyncType.READ): pass\n")
    assert run["results"] == []
    assert {"end-without-start", "stale-read"} <= {rule["id"] for rule in run["tool"]["driver"]["rules"]}


def test_sarif_of_a_run_that_is_not_checked_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--sarif", str(tmp_path / "f"), "--", "true"]) == 2
    assert "add --check" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()
