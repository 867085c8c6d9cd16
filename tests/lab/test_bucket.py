"""A store in a bucket: of S3, as moto's server answers for it, and of fsspec's memory, which needs no server."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from dmasync.cli import main
from dmasync.harness.exit_status import CommandError
from dmasync.harness.store import parquet_store
from dmasync.harness.store.bucket import store_folder
from tests.lab.boards import free_port
from tests.support.run_files import PAIR, exact

BOARDS, DAYS = ("a", "b"), range(26, 34)  # over the end of a month


def count(day: int) -> int:
    """A step in the last two nights."""
    return 5000 + day // 32 * 100


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of S3, and who asks."""
    import s3fs

    url: str = request.getfixturevalue("server")
    s3fs.S3FileSystem.clear_instance_cache()  # which know the address of another test's
    for name, value in {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield url
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["memory", pytest.param("s3", marks=(pytest.mark.lab, pytest.mark.bucket))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder of a bucket."""
    bucket = f"{request.param}://{tmp_path.name.replace('_', '-')}"
    if request.param == "s3":
        request.getfixturevalue("service")
        UPath(bucket).mkdir()
    yield f"{bucket}/fleet"
    for file in files(f"{bucket}/fleet"):
        file.unlink()


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    return [
        str(exact(tmp_path / f"{board}-{day}.json", {PAIR: count(day)}, minutes=day * 1440, machine={"node": board}))
        for day in DAYS
        for board in BOARDS
    ]


def files(store: str, part: str = "summaries") -> list[UPath]:
    return sorted(UPath(store, use_listings_cache=False).glob(f"{part}/*/*"))


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["history", *words, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    return rows


def everything(capsys: pytest.CaptureFixture[str], store: str) -> list[tuple[str, float]]:
    return [(row["board"], row["value"]) for row in asked(capsys, "series", store, PAIR)]


EVERYTHING = [(board, count(day)) for board in BOARDS for day in DAYS]


def test_what_goes_into_a_bucket_comes_out_once_before_and_behind_a_merge(
    store: str, runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "store", store, *runs]) == 0
    assert capsys.readouterr().out == "added 16 runs, 0 were there\n"
    assert main(["history", "store", store, *runs]) == 0
    assert capsys.readouterr().out == "added 0 runs, 16 were there\n"
    assert everything(capsys, store) == EVERYTHING
    assert main(["history", "merge", store]) == 0
    assert capsys.readouterr().out.startswith("merged 2 months")
    assert [file.parent.name for file in files(store)] == ["2026-03", "2026-04"]
    assert everything(capsys, store) == EVERYTHING
    (last,) = asked(capsys, "board", store, "b")
    assert last["value"] == count(DAYS[-1])
    assert {row["board"] for row in asked(capsys, "moved", store, "--days", "2")} == {"a", "b"}
    assert main(["report", "--fleet", store, "-o", str(tmp_path / "fleet.html")]) == 0
    assert main(["history", "store", store, runs[0]]) == 0
    assert capsys.readouterr().out == "added 0 runs, 1 were there\n"


def test_a_damaged_file_in_a_bucket_is_named_and_passed_over(
    store: str, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "store", store, *runs]) == 0
    first = files(store)[0]
    first.write_bytes(first.read_bytes()[:-20])
    capsys.readouterr()
    assert main(["history", "series", store, PAIR, "--json"]) == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out)["rows"]) == len(EVERYTHING) - 1
    (line,) = told.err.strip().splitlines()
    assert line.startswith(f"damaged, passed over: {first}: ")


def test_a_file_that_could_not_be_written_whole_never_comes_to_a_bucket(
    store: str, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, *rest: Any) -> None:
        with parquet_store_arriving(path) as place:
            place.write_bytes(b"PAR1")
            raise CommandError("no room")

    from dmasync.harness.store.bucket import arriving_whole as parquet_store_arriving

    monkeypatch.setattr(parquet_store, "write_rows", half)
    assert main(["history", "store", store, runs[0]]) == 2
    assert files(store) == []
    assert files(store, "rounds") == []


def test_old_rounds_leave_a_bucket_and_nothing_else_does(store: str, runs: list[str]) -> None:
    assert main(["history", "store", store, *runs]) == 0
    old = UPath(store) / "rounds" / "2020-01-01" / "0123456789abcdef.parquet"
    old.write_bytes(b"whatever")
    before = files(store)
    assert main(["history", "merge", store]) == 0
    assert old not in files(store, "rounds")
    assert len(files(store)) == 2 < len(before)


def test_an_address_of_no_kind_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "series", "pigeon://lab/fleet", "*"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "name a folder, or a bucket's as s3://BUCKET/FOLDER" in line


@pytest.mark.parametrize("lacking", ["fsspec", "upath", "s3fs"])
def test_without_the_packages_for_a_bucket_they_are_named(
    lacking: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = importlib.import_module("fsspec.registry")._registry  # by earlier tests
    monkeypatch.delitem(loaded, "s3", raising=False)
    monkeypatch.setitem(sys.modules, lacking, None)
    assert main(["history", "moved", "s3://lab/fleet"]) == 4
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert lacking in line
    assert "pip install" in line


def test_a_folder_given_as_a_file_address_is_that_folder(tmp_path: Path) -> None:
    assert store_folder(f"file://{tmp_path}/fleet") == tmp_path / "fleet"


@pytest.mark.lab
@pytest.mark.bucket
@pytest.mark.usefixtures("service")
def test_a_bucket_that_is_not_there_is_told_in_a_line(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "store", "s3://nobody-has-this/fleet", runs[0]]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("dmasync history: s3://nobody-has-this/fleet: ")
    assert "bucket does not exist" in line
    assert main(["history", "moved", "s3://nobody-has-this/fleet"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no store is there" in line


@pytest.mark.lab
@pytest.mark.bucket
@pytest.mark.usefixtures("service")
def test_a_service_that_does_not_answer_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main(["history", "moved", "s3://lab/fleet"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("dmasync history: s3://lab/fleet: ")


def nightly(monkeypatch: pytest.MonkeyPatch, kept: Path, store: str) -> tuple[int, list[Path]]:
    measured: list[Path] = []

    def measure(output: Path, **options: Any) -> None:
        exact(output, {PAIR: 1800})
        measured.append(output)

    monkeypatch.setattr("dmasync.harness.history.nightly.measure_host", measure)
    return main(["history", "--storage", str(kept), "nightly", "--store", store]), measured


def test_each_night_goes_into_the_bucket(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, measured = nightly(monkeypatch, tmp_path / "kept", store)
    assert (status, len(measured), len(files(store))) == (0, 1, 1)


@pytest.mark.lab
@pytest.mark.bucket
@pytest.mark.usefixtures("service")
def test_a_bucket_that_takes_nothing_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nightly(monkeypatch, tmp_path / "kept", "s3://nobody-has-this/fleet") == (2, [])
    assert "bucket does not exist" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
