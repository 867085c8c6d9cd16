"""Two measuring commands: taken A B B A, and nothing judged when one of them fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dmasync.cli import main
from dmasync.harness.gate.shell import run_line
from tests.support.run_files import PAIR, exact

MEASURE = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.support.run_files import wall
log = Path("log")
side = sys.argv[1]
place = len(log.read_text()) if log.exists() else 0
log.write_text((log.read_text() if place else "") + side)
# The machine slows down by 2 % a run; B costs a tenth more.
middle = 1e-3 * 1.02**place * (1.1 if side == "B" else 1.0)
wall(Path(os.environ["DMASYNC_RUN"]), {{"t": middle}}, seed=place, minutes=place)
"""


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "measure.py"
    script.write_text(MEASURE.format(root=str(Path(__file__).parents[3])))
    return f"{sys.executable} {script}"


def test_runs_are_taken_in_turn_and_a_tenth_is_found_under_drift(tmp_path: Path, measure: str) -> None:
    arguments = ["--measure-base", f"{measure} A", "--measure-candidate", f"{measure} B", "--blocks", "3"]
    assert main(["gate", *arguments, "--keep", str(tmp_path / "runs")]) == 1
    assert (tmp_path / "log").read_text() == "ABBA" * 3
    assert len(list((tmp_path / "runs").iterdir())) == 12


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--measure-base", "true"], 2),
        (["--measure-base", "true", "--measure-candidate", "true", "--blocks", "0"], 2),
        (["--measure-base", "no-such-command-anywhere", "--measure-candidate", "true"], 2),
        (["--measure-base", "true", "--measure-candidate", "true", "--kernel", "k"], 2),
        (["--measure-base", "exit 7", "--measure-candidate", "true"], 3),
        (["--measure-base", "true", "--measure-candidate", "true"], 3),
        (["--measure-base", 'echo "{" > "$DMASYNC_RUN"', "--measure-candidate", "true"], 2),
    ],
)
def test_a_measurement_that_fails_is_no_pass(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", *arguments]) == status
    assert capsys.readouterr().out == ""


def test_files_and_measuring_commands_are_not_mixed(tmp_path: Path) -> None:
    base = str(exact(tmp_path / "b.json", {PAIR: 1}))
    assert main(["gate", base, base, "--measure-base", "true", "--measure-candidate", "true"]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_what_the_measuring_command_started_and_lets_it_put_things_back(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = f"trap 'echo back >{tmp_path}/back; exit' TERM; sleep 600 & echo $! $$ >{tmp_path}/pids; echo go; wait"
    process = subprocess.Popen(
        [sys.executable, "-m", "dmasync", "gate", "--measure-base", script, "--measure-candidate", script],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "go\n" in iter(process.stderr.readline, "")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (128 + number, -number)
    pids = (tmp_path / "pids").read_text().split()
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        subprocess.run(["true"], check=True)  # after a kill the guard is still at it
    assert (tmp_path / "back").read_text() == "back\n"


def test_what_a_measuring_command_leaves_running_runs_on(tmp_path: Path) -> None:
    line = f"sleep 600 >/dev/null 2>&1 & echo $! >{tmp_path}/pid"
    assert run_line(line, {}) == 0
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
