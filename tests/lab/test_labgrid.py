"""Places of labgrid: a real coordinator, a real exporter, and two boards behind an SSHDriver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dmasync.cli import main
from tests.lab.boards import Lab

pytestmark = pytest.mark.lab
ONLY = ["--only", "*test_null_ioctl*", "--only", "*test_empty_loop*"]


def bench(place: str, output: Path, *options: str) -> int:
    return main(["bench", "--on", f"labgrid:{place}", "--quiet", *ONLY, "-o", str(output), *options])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_place_that_dies_half_way_costs_its_own_run_and_nothing_stays_locked(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("one", tmp_path / "one.json") == 0
    assert capsys.readouterr().err == ""
    lab.boards["two"].dies_after(3)  # its facts, its host, one row
    assert bench("two", tmp_path / "two.json") == 3
    assert said(capsys).startswith("dmasync bench: labgrid:two was lost after 1 of 2 rows: ")
    assert not (tmp_path / "two.json").exists()
    run = json.loads((tmp_path / "one.json").read_text())
    assert [row["stats"]["median"] > 0 for row in run["benchmarks"]] == [True, True]
    assert run["dmasync"]["board"]["address"] == "labgrid:one"
    assert run["machine_info"]["node"] == "one"
    assert lab.locked == []
    assert lab.boards["one"].left_behind == []


def test_somebody_else_s_place_is_left_to_them_and_they_are_named(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.client("-p", "one", "acquire", user="alice")
    assert bench("one", tmp_path / "run.json") == 3
    assert said(capsys) == "dmasync bench: labgrid:one is in use: host/alice has acquired it"
    assert lab.locked == ["one"]


def test_a_place_that_one_has_acquired_oneself_is_left_as_it_is(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.client("-p", "one", "acquire")
    assert bench("one", tmp_path / "run.json") == 3
    assert "you have acquired it yourself (labgrid-client -p one release)" in said(capsys)
    assert lab.locked == ["one"]


@pytest.mark.parametrize(
    ("place", "status", "told"),
    [
        ("three", 2, "the coordinator knows no such place; labgrid-client places lists them"),
        ("o", 2, "matches multiple places"),
    ],
)
def test_a_name_of_no_place_or_of_several_is_refused(
    lab: Lab, tmp_path: Path, place: str, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(place, tmp_path / "run.json") == status
    assert told in said(capsys)
    assert lab.locked == []


def test_a_part_of_a_name_and_an_alias_mean_the_whole_place(lab: Lab, tmp_path: Path) -> None:
    lab.client("-p", "two", "add-alias", "second")
    for place, name in (("tw", "two"), ("second", "two")):
        assert bench(place, tmp_path / "run.json") == 0
        run = json.loads((tmp_path / "run.json").read_text())
        assert run["dmasync"]["board"]["address"] == f"labgrid:{name}"
    assert lab.locked == []


def test_a_board_that_hangs_is_given_up_and_released(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.boards["one"].python("exec sleep 300")
    assert bench("one", tmp_path / "run.json", "--timeout", "6") == 3
    assert "labgrid:one cannot measure: no end after 6 s" in said(capsys)
    assert lab.locked == []


def test_a_board_that_is_off_is_told_in_ssh_s_words_and_released(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.boards["one"].close()
    assert bench("one", tmp_path / "run.json") == 3
    line = said(capsys)
    assert "labgrid:one cannot be reached: " in line
    assert "Connection refused" in line
    assert lab.locked == []


@pytest.mark.parametrize(
    ("gone", "told"), [("exporter", "has no matching remote resource"), ("coordinator", "no coordinator answers at")]
)
def test_a_part_of_the_lab_that_is_gone_is_named(
    lab: Lab, tmp_path: Path, gone: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.stop(gone)
    assert bench("one", tmp_path / "run.json") == 3
    assert told in said(capsys)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_told_to_end_releases_its_place(lab: Lab, tmp_path: Path, number: int, status: int) -> None:
    os.mkfifo(tmp_path / "begun")
    lab.boards["one"].python(f'echo >"{tmp_path}/begun"; exec sleep 300')
    line = [sys.executable, "-m", "dmasync", "bench", "--on", "labgrid:one", "-o", str(tmp_path / "run.json")]
    with subprocess.Popen(line, stderr=subprocess.PIPE) as running:
        (tmp_path / "begun").read_text()  # waits for the board to begin
        assert lab.locked == ["one"]
        running.send_signal(number)
        assert running.wait() == status
    assert lab.locked == []


def test_two_places_are_judged_against_each_other_in_turn(lab: Lab, tmp_path: Path) -> None:
    line = f'"{sys.executable}" -m dmasync bench --quiet --only "*test_null_ioctl*" -o "$DMASYNC_RUN" --on labgrid:'
    sides = ["--measure-base", f"{line}one", "--measure-candidate", f"{line}two", "--blocks", "1"]
    assert main(["gate", *sides, "--same-machine", "--json", str(tmp_path / "v.json")]) in (0, 1, 3)
    (row,) = json.loads((tmp_path / "v.json").read_text())["rows"]
    assert row["fullname"].endswith("::test_null_ioctl")
    assert lab.locked == []


def test_the_nights_of_a_place_are_kept_under_its_name(lab: Lab, tmp_path: Path) -> None:
    call = ["history", "--storage", str(tmp_path / "kept"), "nightly", "--bench=--quiet"]
    call += [f"--bench=--only={ONLY[1]}"]
    for place in ("one", "two"):
        assert main([*call, f"--bench=--on=labgrid:{place}"]) == 0
    kept = sorted(path.parent.name for path in (tmp_path / "kept").rglob("*.json"))
    assert [name.partition("_")[0] for name in kept] == ["one", "two"]
    lab.client("-p", "one", "acquire", user="alice")
    assert main([*call, "--bench=--on=labgrid:one"]) == 3
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 2


def test_without_labgrid_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    assert main(["bench", "--on", "labgrid:one", "-o", str(tmp_path / "run.json")]) == 4
    assert "pip install 'dmabuf-sync[lab]'" in capsys.readouterr().err
