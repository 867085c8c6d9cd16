"""A board with busybox and python3 and nothing else is measured over ssh."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmasync.cli import main
from tests.lab.bare_root import unpacked
from tests.lab.boards import Board
from tests.lab.test_ssh import there

pytestmark = pytest.mark.lab
ONLY = ["--only", "*test_null_ioctl*", "--only", "*test_empty_loop*"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bare") / "root"
    unpacked(made)
    return made


@pytest.fixture
def sshd(tmp_path: Path, own_key: Path, root: Path) -> Iterator[Board]:
    assert os.geteuid() == 0, "chroot needs root"
    # The mounts are the command's own and go with it.
    mounts = f"mount -t proc proc {root}/proc && mount --rbind /sys {root}/sys && mount --rbind /dev {root}/dev"
    entered = f'exec chroot {root} /bin/busybox env -i PATH=/usr/bin:/bin /bin/sh -c "$0"'
    around = f"unshare --mount sh -c '{mounts} && {entered}' \"$SSH_ORIGINAL_COMMAND\""
    made = Board(tmp_path / "board", own_key, around)
    yield made
    made.close()


def loaded(path: Path) -> Any:
    return json.loads(path.read_text())


def test_busybox_and_python_are_enough(board: str, root: Path, tmp_path: Path) -> None:
    busybox = there(board, "ls -l /proc/$$/exe; busybox | head -n 1; python3 -c 'import pip'")
    assert "busybox" in busybox.stdout
    assert "No module named 'pip'" in busybox.stderr
    assert "not found" in there(board, "bash -c true").stderr
    assert main(["bench", "--on", board, "--quiet", *ONLY, "-o", str(tmp_path / "run.json")]) == 0
    run = json.loads((tmp_path / "run.json").read_text())
    assert len(run["benchmarks"]) == 2
    facts = run["dmasync"]["board"]["before"]
    assert {"kernel", "load"} <= facts.keys()
    assert [path.name for path in (root / "tmp").iterdir()] == []


def test_it_is_the_board_s_own_python_that_is_measured(board: str, tmp_path: Path) -> None:
    assert main(["bench", "--on", board, "--quiet", *ONLY, "-o", str(tmp_path / "run.json")]) == 0
    told = there(board, "python3 -c 'import platform; print(platform.python_version())'").stdout.strip()
    run = json.loads((tmp_path / "run.json").read_text())
    assert {row["extra_info"]["python"] for row in run["benchmarks"]} == {told}
    assert run["machine_info"]["python_version"] == told


def test_its_nights_are_kept_under_its_name_and_judged(board: str, root: Path, tmp_path: Path) -> None:
    call = ["history", "--storage", str(tmp_path / "kept"), "nightly", f"--bench=--on={board}", "--bench=--quiet"]
    call += [f"--bench=--only={ONLY[1]}", "--junit", str(tmp_path / "verdict.xml")]
    assert main(call) == 0
    assert main(call) in (0, 1, 3)  # a wall clock's verdict on a machine that does other things
    kept = sorted((tmp_path / "kept").rglob("*.json"))
    assert len(kept) == 2
    assert {run["dmasync"]["board"]["address"] for run in map(loaded, kept)} == {board}
    assert "test_null_ioctl" in (tmp_path / "verdict.xml").read_text()
    assert [path.name for path in (root / "tmp").iterdir()] == []


def test_it_is_judged_against_itself_in_turn(board: str, root: Path, tmp_path: Path) -> None:
    line = f'"{sys.executable}" -m dmasync bench --quiet --only "{ONLY[1]}" -o "$DMASYNC_RUN" --on {board}'
    sides = ["--measure-base", line, "--measure-candidate", line, "--blocks", "1", "--keep", str(tmp_path / "kept")]
    assert main(["gate", *sides, "--json", str(tmp_path / "v.json")]) in (0, 1, 3)
    (row,) = loaded(tmp_path / "v.json")["rows"]
    assert row["fullname"].endswith("::test_null_ioctl")
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 4
    assert [path.name for path in (root / "tmp").iterdir()] == []


def test_a_board_without_python_is_told_in_a_line(
    board: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = root / "usr/bin/python3"
    away = python.with_name("away")
    python.rename(away)
    try:
        assert main(["bench", "--on", board, "--quiet", *ONLY, "-o", str(tmp_path / "run.json")]) == 3
    finally:
        away.rename(python)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "python3: not found" in line
