"""Whatever is wrong with an input ends in one line and status 2, and nothing is written over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dmasync.cli import main
from tests.support.run_files import PAIR, benchmark, document, exact, facts, write


def good() -> dict:
    return document([benchmark(PAIR, [5649e-9] * 9, facts())])


def changed(**stats: object) -> str:
    content = good()
    content["benchmarks"][0]["stats"].update(stats)
    return json.dumps(content)


def with_extra(**extra: object) -> str:
    content = good()
    content["benchmarks"][0]["extra_info"].update(extra)
    return json.dumps(content)


def without_data(**stats: object) -> str:
    content = good()
    content["benchmarks"][0]["stats"] = stats
    return json.dumps(content)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--blocks", "0"],
        ["--blocks", "6"],
        ["--build", "make"],
        ["--measure", "true"],
        ["--panic-is-bad"],
        ["--quick"],
        ["--arch", "arm64"],
        ["--keep", "folder"],
    ],
)
def test_an_argument_that_would_change_nothing_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, candidate = (str(exact(tmp_path / f"{name}.json", {PAIR: 1})) for name in "ab")
    assert main(["gate", base, candidate, *arguments]) == 2
    told = capsys.readouterr()
    assert arguments[0] in told.err
    assert told.out == ""


TWICE = document([benchmark(PAIR, [1e-6] * 3, facts()), benchmark(PAIR, [2e-6] * 3, facts())])

BAD = {
    "empty": "",
    "blank": " \n ",
    "truncated": json.dumps(good())[:-40],
    "text": "not json at all",
    "binary": b"\xff\xfe\x00\x01",
    "a list": "[]",
    "a number": "17",
    "null": "null",
    "no benchmarks": "{}",
    "benchmarks no list": '{"benchmarks": {}}',
    "benchmark no object": '{"benchmarks": [1]}',
    "no name": '{"benchmarks": [{"stats": {"median": 1}}]}',
    "no stats": '{"benchmarks": [{"fullname": "a"}]}',
    "no median": '{"benchmarks": [{"fullname": "a", "stats": {}}]}',
    "NaN": '{"benchmarks": [{"fullname": "a", "stats": {"median": NaN}}]}',
    "Infinity": '{"benchmarks": [{"fullname": "a", "stats": {"median": Infinity}}]}',
    "overflowing float": '{"benchmarks": [{"fullname": "a", "stats": {"median": 1e999}}]}',
    "overflowing int": '{"benchmarks": [{"fullname": "a", "stats": {"median": 1' + "0" * 400 + "}}]}",
    "int of many digits": '{"benchmarks": [{"fullname": "a", "stats": {"median": ' + "9" * 100_000 + "}}]}",
    "nested deeply": "[" * 200_000,
    "nested deeply in a value": '{"benchmarks": ' + '{"a":' * 100_000,
    "repeated key": '{"benchmarks": [], "benchmarks": []}',
    "repeated key among many": json.dumps({str(number): 0 for number in range(100_000)})[:-1] + ', "99999": 1}',
    "row twice": json.dumps(TWICE),
    "long name": json.dumps({"benchmarks": [{"fullname": "x" * 100_000, "stats": {}}]}),
    "negative": changed(data=[-1e-6] * 9, median=-1e-6),
    "data no list": changed(data="many"),
    "data of text": changed(data=["1"]),
    "data of booleans": changed(data=[True, False]),
    "median of text": without_data(median="1e-6"),
    "median against its data": changed(median=1e-6),
    "iterations zero": changed(iterations=0),
    "iterations text": changed(iterations="1"),
    "iterations huge": changed(iterations=10**30),
    "rounds negative": without_data(median=1.0, iqr=0.1, rounds=-1),
    "unknown unit": with_extra(unit="parsecs"),
    "unknown target": with_extra(target="ladder"),
    "size of text": with_extra(size="1 MiB"),
    "exact of text": with_extra(exact="yes"),
    "resolution that excuses all": with_extra(resolution=1e6),
    "resolution negative": with_extra(resolution=-1),
    "extra_info no object": '{"benchmarks": [{"fullname": "a", "extra_info": 1, "stats": {"median": 1}}]}',
    "machine_info no object": '{"machine_info": [], "benchmarks": []}',
    "newer schema": json.dumps({**good(), "dmasync": {"schema": 99}}),
    "block's rows no list": json.dumps({**good(), "dmasync": {"schema": 1, "not_measured": 3}}),
}


@pytest.mark.parametrize("side", ["base", "candidate"])
@pytest.mark.parametrize("name", BAD)
def test_bad_file_ends_in_one_line_that_names_it(
    tmp_path: Path, name: str, side: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = BAD[name]
    bad = tmp_path / "bad.json"
    bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    fine = exact(tmp_path / "fine.json", {PAIR: 5649})
    output = tmp_path / "verdicts.json"
    output.write_text("kept")
    files = [str(bad), str(fine)] if side == "base" else [str(fine), str(bad)]
    assert main(["gate", *files, "--json", str(output)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "bad.json" in err
    assert len(err) < 400
    assert output.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "fine.json", "verdicts.json"]


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "forbidden", "line end", "loop"])
def test_what_is_no_readable_file_ends_in_one_line(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "forbidden":
        path.write_text("{}")
        path.chmod(0)
        if os.access(path, os.R_OK):
            path = Path("/proc/self/mem")  # root may read everything but this
    elif kind == "line end":
        path = tmp_path / "two\nlines\x1b[31m.json"
    elif kind == "loop":
        path.symlink_to(path)
    assert main(["gate", str(path), str(exact(tmp_path / "fine.json", {PAIR: 1}))]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["BASE"],
        ["BASE", "BASE2", "--max-regression", "much"],
        ["BASE", "BASE2", "--max-regression", "-1"],
        ["BASE", "BASE2", "--max-regression", "nan"],
        ["BASE", "BASE2", "--max-regression", "inf"],
        ["BASE", "BASE2", "--json", "MISSING/v.json"],
        ["BASE", "BASE2", "--json", "."],
        ["BASE", "BASE2", "--json", "BASE"],
        ["BASE", "BASE2", "--junit", "BASE2"],
        ["BASE", "BASE2", "--junit", "x", "--markdown", "x"],
        ["BASE", "BASE2", "--settings", "MISSING"],
        ["BASE", "BASE2", "--base", "BASE"],
        ["BASE", "BASE2", "--kernel", "k"],
        ["--kernel", "a", "--kernel", "b", "--kernel", "c"],
        ["--kernel", "a"],
    ],
    ids=" ".join,
)
def test_bad_call_ends_in_one_line(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BASE", "BASE2"):
        exact(tmp_path / name, {PAIR: 5649})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["gate", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("option", ["--json", "--junit", "--markdown", "--html"])
def test_a_full_disk_is_told_and_is_no_pass(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = exact(tmp_path / "b.json", {PAIR: 5649})
    assert main(["gate", str(base), str(base), option, "/dev/full"]) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = exact(tmp_path / "b.json", {PAIR: 5649})
    output = tmp_path / "v.json"
    output.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dmasync.harness.runs.writing.os.fsync", full)
    assert main(["gate", str(base), str(base), "--json", str(output)]) == 2
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "v.json"]


def test_a_file_larger_than_any_run_is_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
    assert main(["gate", str(path), str(path)]) == 2
    assert "more than any run" in capsys.readouterr().err


def test_a_foreign_extra_info_is_left_alone(tmp_path: Path) -> None:
    content = good()
    content["benchmarks"][0]["extra_info"] = {"size": "large", "access": 3, "unit": "MB/s"}
    assert main(["gate", str(write(tmp_path / "b.json", content)), str(tmp_path / "b.json")]) == 0
