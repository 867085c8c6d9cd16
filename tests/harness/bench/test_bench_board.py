"""``--on ssh://BOARD``: what is carried there needs python3 alone, and whatever breaks there ends in one line.

A program named ``ssh`` stands in for the way there: it runs the command here, with an interpreter that sees no
installed package. The way over a real sshd is in tests/lab.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import sys
from pathlib import Path

import pytest

from dmasync.cli import main
from dmasync.harness.bench import worker
from dmasync.harness.lab.address import BoardAddress
from dmasync.harness.lab.board_facts import changes, facts

ONLY = ["--only", "*test_null_ioctl*", "--only", "*test_empty_loop*"]


class Way:
    """The folder on PATH with ``ssh`` and the board's ``python3``, and the board's own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "board"
        self.temporary.mkdir()
        self.calls = folder / "calls"
        self.python(f'exec "{sys.executable}" -S "$@"')
        self.ssh("")

    def python(self, script: str) -> None:
        self._program(self.temporary / "python3", script)

    def ssh(self, before: str, command: str = 'sh -c "$last"') -> None:
        last = 'for last in "$@"; do :; done\n'
        paths = f"export PATH='{self.temporary}':$PATH TMPDIR='{self.temporary}'\n"
        told = f"printf '%s\\n' \"$@\" >>'{self.calls}'\n"
        self._program(self.folder / "ssh", f"{told}{last}{paths}{before}\n{command}")

    def _program(self, path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @property
    def left_behind(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir() if path.name != "python3"]


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    (tmp_path / "way").mkdir()
    made = Way(tmp_path / "way")
    monkeypatch.setenv("PATH", str(tmp_path / "way"), prepend=":")
    return made


def bench(tmp_path: Path, *options: str, address: str = "ssh://me@board:2222") -> int:
    return main(["bench", "--on", address, "--quiet", *ONLY, "-o", str(tmp_path / "run.json"), *options])


def test_a_board_is_measured_with_python_alone(tmp_path: Path, way: Way) -> None:
    assert bench(tmp_path) == 0
    run = json.loads((tmp_path / "run.json").read_text())
    names = [row["fullname"].rpartition("::")[2] for row in run["benchmarks"]]
    assert names == ["test_null_ioctl", "test_empty_loop"]
    assert {row["extra_info"]["target"] for row in run["benchmarks"]} == {"hardware"}
    board = run["dmasync"]["board"]
    assert board["address"] == "ssh://me@board:2222"
    assert board["before"]["kernel"] == board["after"]["kernel"] == platform.release()
    assert len(board["before"]["load"]) == 3
    assert way.left_behind == []


def test_rows_of_a_provider_that_the_board_has_not_are_told(
    tmp_path: Path, way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    if Path("/dev/dma_heap/linux,cma").exists():
        pytest.skip("the board, which is this machine, has a CMA heap")
    assert bench(tmp_path, "--only", "*test_map*cma*") == 0
    assert "not measured: 3 rows: cma: no node opens (ENOENT)" in capsys.readouterr().out
    run = json.loads((tmp_path / "run.json").read_text())
    assert len(run["dmasync"]["not_measured"]) == 3
    # And where nothing is left, that is why.
    line = ["bench", "--on", "ssh://board", "--quiet", "--only", "*test_map*cma*", "-o", str(tmp_path / "none.json")]
    assert main(line) == 3
    assert "nothing was measured: 3 rows: cma: no node opens (ENOENT)" in capsys.readouterr().err


def test_the_address_and_nothing_that_asks_for_a_password_reaches_ssh(tmp_path: Path, way: Way) -> None:
    assert bench(tmp_path) == 0
    call = way.calls.read_text().splitlines()
    assert "-oBatchMode=yes" in call
    assert call[call.index("-l") + 1] == "me"
    assert call[call.index("-p") + 1] == "2222"
    assert call[call.index("--") + 1] == "board"


def test_what_a_login_script_prints_goes_by(tmp_path: Path, way: Way) -> None:
    way.ssh('echo "Welcome to board"; echo "{}"')
    assert bench(tmp_path) == 0
    assert len(json.loads((tmp_path / "run.json").read_text())["benchmarks"]) == 2


@pytest.mark.parametrize(
    ("before", "command", "said"),
    [
        ("echo 'ssh: connect to host board: No route' >&2", "exit 255", "cannot be reached: ssh: connect to host"),
        ("", "sh -c \"$last\" | head -n 3; echo 'client_loop: send disconnect' >&2; exit 255",
         "was lost after 1 of 2 rows: client_loop: send disconnect"),
        ("", 'sh -c "$last" | head -n 1', "was lost after 0 of 2 rows: "),
    ],
)  # fmt: skip
def test_a_board_that_vanishes_costs_that_run_alone(
    tmp_path: Path, way: Way, before: str, command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    way.ssh(before, command)
    (tmp_path / "run.json").write_text("the run before")
    assert bench(tmp_path) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"dmasync bench: ssh://me@board:2222 {said}")
    assert (tmp_path / "run.json").read_text() == "the run before"
    assert way.left_behind == []


def test_a_board_that_hangs_is_given_up(tmp_path: Path, way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    way.ssh("", "exec sleep 300")
    assert bench(tmp_path, "--timeout", "0.5") == 3
    assert "cannot measure: no end after 0.5 s" in capsys.readouterr().err


def test_an_old_python_on_the_board_is_named(tmp_path: Path, way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    old = "import sys; sys.version_info = (3, 8, 10); program = sys.argv.pop(1); exec(program)"
    way.python(f'shift; exec "{sys.executable}" -S -c "{old}" "$@"')
    assert bench(tmp_path) == 3
    assert "its python3 is 3.8, dmasync needs 3.10 or newer" in capsys.readouterr().err


def test_a_measuring_process_that_dies_on_the_board_is_named(
    tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "BOOTSTRAP", "import os; os.kill(os.getpid(), 9)")
    assert bench(tmp_path) == 3
    assert "cannot measure after 0 of 2 rows: its measuring process ended with status -9" in capsys.readouterr().err
    assert way.left_behind == []


def test_a_board_that_does_not_count_instructions_is_not_asked_to(
    tmp_path: Path, way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "tsc_early_khz=1000000" not in Path("/proc/cmdline").read_text()
    assert bench(tmp_path, "--exact") == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot measure: its kernel does not count instructions: it was started without nokaslr norandmaps" in line
    assert not (tmp_path / "run.json").exists()
    assert way.left_behind == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kernel", "debian:6.12"], "a board has its own"),
        (["--setup"], "a board needs python3 and nothing else"),
    ],
)
def test_what_no_board_has_is_refused_before_anything_is_sent(
    tmp_path: Path, way: Way, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(tmp_path, *options) == 2
    assert said in capsys.readouterr().err
    assert not way.calls.exists()


@pytest.mark.parametrize(
    "text", ["ssh://", "ssh://me:word@board", "ssh://board/path", "ssh://-oProxyCommand=x", "ssh://b:x"]
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"board|password"):
        BoardAddress.parse(text)


@pytest.mark.parametrize("text", ["ssh://board", "ssh://me@board", "ssh://me@10.0.0.7:2222", "ssh://[fe80::1]:22"])
def test_an_address_reads_as_it_was_written(text: str) -> None:
    assert str(BoardAddress.parse(text)) == text


def test_nights_of_a_board_are_kept_as_its_own(tmp_path: Path, way: Way) -> None:
    call = ["history", "--storage", str(tmp_path / "kept"), "nightly"]
    call += [f"--bench={part}" for part in ("--on=ssh://board", "--quiet", f"--only={ONLY[1]}", f"--only={ONLY[3]}")]
    assert main(call) == 0
    (kept,) = (tmp_path / "kept").rglob("*.json")
    assert kept.parent.name.startswith(f"{platform.node()}_")
    assert "_hardware_wall_" in kept.parent.name
    way.ssh("", "exit 255")
    assert main(call) == 3
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 1


def test_facts_come_from_the_board_s_own_files(tmp_path: Path) -> None:
    cpu = tmp_path / "sys/devices/system/cpu/cpu0"
    for name, text in (
        ("proc/device-tree/model", "Raspberry Pi 5\0"),
        ("proc/loadavg", "0.75 0.20 0.10 1/99 7\n"),
        ("sys/class/thermal/cooling_device0/cur_state", "1\n"),
        ("sys/class/thermal/thermal_zone0/temp", "48000\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, text in (("cpufreq/scaling_governor", "performance\n"), ("cpufreq/scaling_cur_freq", "2400000\n")):
        (cpu / name).parent.mkdir(parents=True, exist_ok=True)
        (cpu / name).write_text(text)
    (cpu / "thermal_throttle").mkdir()
    (cpu / "thermal_throttle/core_throttle_count").write_text("2\n")
    (cpu / "thermal_throttle/package_throttle_count").write_text("5\n")
    with gzip.open(tmp_path / "proc/config.gz", "wb") as file:
        file.write(b"CONFIG_UDMABUF=y\n")
    told = facts(str(tmp_path))
    assert told["model"] == "Raspberry Pi 5"
    assert told["kernel_config_digest"] == hashlib.sha256(b"CONFIG_UDMABUF=y\n").hexdigest()
    assert (told["governors"], told["frequencies_khz"]) == ({"cpu0": "performance"}, {"cpu0": 2400000})
    assert (told["cooling"], told["temperatures_mc"]) == ({"cooling_device0": 1}, {"thermal_zone0": 48000})
    assert told["load"] == [0.75, 0.2, 0.1]
    assert told["throttled"] == 7


def test_what_moved_on_the_board_meanwhile_is_told() -> None:
    before = {"throttled": 3, "cooling": {"cooling_device0": 0}, "governors": {"cpu0": "performance"}, "load": [0.0]}
    assert changes(before, before) == []
    assert changes(before, {**before, "throttled": 4}) == ["the CPU was throttled while it was measured"]
    (cooled,) = changes(before, {**before, "cooling": {"cooling_device0": 2}})
    assert "cooling device" in cooled
    (changed,) = changes(before, {**before, "governors": {"cpu0": "powersave"}})
    assert "governor" in changed
    (busy,) = changes({**before, "load": [2.5]}, before)
    assert "load 2.5" in busy
