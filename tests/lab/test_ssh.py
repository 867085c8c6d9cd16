"""A board behind a real sshd: its python3 has neither pip nor numpy nor pytest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dmasync.cli import main
from tests.lab.boards import Board

pytestmark = pytest.mark.lab
ONLY = ["--only", "*test_null_ioctl*", "--only", "*test_empty_loop*"]


def there(board: str, command: str) -> subprocess.CompletedProcess[str]:
    user, _, port = board.removeprefix("ssh://").rpartition(":")
    return subprocess.run(["ssh", "-p", port, user, command], capture_output=True, text=True, check=False)


def test_a_bare_python_on_the_board_is_measured_over_ssh(board: str, tmp_path: Path) -> None:
    for package in ("numpy", "pytest", "pip"):
        assert f"No module named '{package}'" in there(board, f"python3 -c 'import {package}'").stderr
    assert main(["bench", "--on", board, "--quiet", *ONLY, "-o", str(tmp_path / "run.json")]) == 0
    run = json.loads((tmp_path / "run.json").read_text())
    assert len(run["benchmarks"]) == 2
    assert run["dmasync"]["board"]["address"] == board
    assert all(row["stats"]["median"] > 0 for row in run["benchmarks"])


def test_a_board_whose_key_is_refused_is_told_in_a_line(
    board: str, sshd: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sshd.folder / "authorized").write_text("")
    assert main(["bench", "--on", board, "--quiet", *ONLY, "-o", str(tmp_path / "run.json")]) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{board} cannot be reached: " in line
    assert "Permission denied" in line
    assert not (tmp_path / "run.json").exists()
