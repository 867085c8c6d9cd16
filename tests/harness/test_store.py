"""A store of Parquet files: what goes in comes out once, whoever adds or merges; damaged files are named."""

from __future__ import annotations

import builtins
import json
import multiprocessing
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dmasync.cli import main
from dmasync.harness.exit_status import CommandError
from dmasync.harness.history.nightly import nightly
from dmasync.harness.runs.kept import Standing
from dmasync.harness.runs.reading import load_run
from dmasync.harness.runs.storage import Storage
from dmasync.harness.store.fleet_moves import moves
from dmasync.harness.store.parquet_files import MERGED, connected, found
from dmasync.harness.store.parquet_store import DAYS_OF_ROUNDS, ParquetStore
from dmasync.harness.store.queries import StoreReader
from tests.support.run_files import HEAP, PAIR, START, benchmark, document, exact, facts, wall, write

DAY = 24 * 60
NOW = START.replace(tzinfo=None)


def a_run(folder: Path, day: int, board: str = "board", **counts: int) -> Path:
    return exact(
        folder / f"{board}-{day}.json", {PAIR: 5000 + day, **counts}, minutes=day * DAY, machine={"node": board}
    )


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    store = ParquetStore(folder / "store")
    store.add((a_run(folder, day, board) for day in range(25, 35) for board in ("a", "b")), NOW)
    return store.folder


@pytest.fixture
def filled(filled_once: Path, tmp_path: Path) -> Path:
    """Two boards of ten nights each, over the end of a month."""
    return Path(shutil.copytree(filled_once, tmp_path / "store"))


def values(folder: Path, row: str = PAIR, **only: str) -> list[tuple[str, float]]:
    answer = StoreReader(folder).series(row, **only)
    return [(told["board"], told["value"]) for told in answer.as_objects()]


def moved(folder: Path, *given: Any, **more: Any) -> list[dict[str, Any]]:
    return moves(StoreReader(folder), *given, **more).told.as_objects()


def everything() -> list[tuple[str, float]]:
    return [(board, 5000 + day) for board in "ab" for day in range(25, 35)]


def test_a_run_is_a_file_and_its_rows_come_out_as_they_went_in(tmp_path: Path) -> None:
    source = exact(tmp_path / "r.json", {PAIR: 5649, HEAP: 3971})
    added = ParquetStore(tmp_path / "store").add([source], NOW)
    assert (added.new, added.known, added.left_out) == (1, 0, [])
    (path,) = (tmp_path / "store/summaries").glob("*/*.parquet")
    assert path.parent.name == "2026-03"
    (told,) = StoreReader(tmp_path / "store").series(PAIR).as_objects()
    assert told["value"] == 5649
    assert (told["board"], told["kernel"], told["unit"], told["clock"]) == (
        "board",
        "6.12.117",
        "instructions",
        "exact",
    )
    assert told["moment"] == "2026-03-01T12:00:00+00:00"


def test_wall_rows_are_kept_in_nanoseconds(tmp_path: Path) -> None:
    source = wall(tmp_path / "w.json", {"a": 2e-6})
    ParquetStore(tmp_path / "store").add([source], NOW)
    (told,) = StoreReader(tmp_path / "store").series("a").as_objects()
    assert told["value"] == pytest.approx(load_run(source).rows["a"].median * 1e9)
    assert told["unit"] == "ns"


def test_a_run_that_is_added_again_is_there_once(tmp_path: Path, filled: Path) -> None:
    again = a_run(tmp_path, 25, "a")
    for _ in range(2):
        added = ParquetStore(filled).add([again], NOW)
        assert (added.new, added.known) == (0, 1)
        ParquetStore(filled).merge()
    assert values(filled) == everything()


def test_merging_leaves_a_file_a_month_and_the_same_answers(filled: Path) -> None:
    before = [StoreReader(filled).series("*").rows, StoreReader(filled).last_values("a").rows]
    assert ParquetStore(filled).merge() == 2
    files = list(filled.glob("summaries/*/*.parquet"))
    assert sorted(path.parent.name for path in files) == ["2026-03", "2026-04"]
    assert [StoreReader(filled).series("*").rows, StoreReader(filled).last_values("a").rows] == before
    assert ParquetStore(filled).merge() == 0


def test_what_is_added_to_a_merged_month_is_merged_into_it(tmp_path: Path, filled: Path) -> None:
    ParquetStore(filled).merge()
    ParquetStore(filled).add([a_run(tmp_path, 26, "c")], NOW)
    assert values(filled)[-1] == ("c", 5026)
    assert ParquetStore(filled).merge() == 1
    assert len(list(filled.glob("summaries/*/*.parquet"))) == 2
    assert values(filled) == [*everything(), ("c", 5026)]


def test_a_merge_that_was_interrupted_before_it_removed_anything_counts_nothing_twice(filled: Path) -> None:
    singles = {path: path.read_bytes() for path in filled.glob("summaries/*/*.parquet")}
    ParquetStore(filled).merge()
    for path, content in singles.items():
        path.write_bytes(content)
    assert values(filled) == everything()
    ParquetStore(filled).merge()
    assert len(list(filled.glob("summaries/*/*.parquet"))) == 2
    assert values(filled) == everything()


def test_stores_of_two_places_are_one_when_their_files_lie_together(tmp_path: Path, filled: Path) -> None:
    other = ParquetStore(tmp_path / "other")
    other.add([a_run(tmp_path, 26, "a"), a_run(tmp_path, 26, "c"), a_run(tmp_path, 27, "c")], NOW)
    other.merge()
    ParquetStore(filled).merge()
    for path in other.folder.glob("summaries/*/*.parquet"):
        path.rename(filled / path.relative_to(other.folder))
    whole = sorted([*everything(), ("c", 5026), ("c", 5027)])
    assert sorted(values(filled)) == whole
    ParquetStore(filled).merge()
    assert sorted(values(filled)) == whole
    assert len(list(filled.glob("summaries/*/*.parquet"))) == 2


def test_two_merges_at_once_are_refused(filled: Path) -> None:
    from filelock import FileLock

    with FileLock(filled / ".merging"), pytest.raises(CommandError, match="another process is merging") as refused:
        ParquetStore(filled).merge()
    assert refused.value.status == 3


def _add_and_ask(folder: Path, files: list[Path]) -> None:
    for path in files:
        ParquetStore(folder).add([path], NOW)
        if path.stem.endswith("0"):
            ParquetStore(folder).merge()
        StoreReader(folder).series("*")


def test_processes_that_add_merge_and_ask_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    files = {board: [a_run(tmp_path, day, board) for day in range(8)] for board in ("a", "b")}
    workers = [context.Process(target=_add_and_ask, args=(tmp_path / "store", files[board])) for board in files]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {worker.exitcode for worker in workers} <= {0, 1}  # 1: it met the other's merge
    ParquetStore(tmp_path / "store").add((path for paths in files.values() for path in paths), NOW)
    assert values(tmp_path / "store") == [(board, 5000 + day) for board in "ab" for day in range(8)]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def scrambled(path: Path) -> None:
    """Right at both ends, and wrong between."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) - 12) + content[-8:])


@pytest.mark.parametrize("damage", [cut, emptied, scrambled])
def test_a_damaged_file_is_named_and_the_others_answer(
    filled: Path, capsys: pytest.CaptureFixture[str], damage: Any
) -> None:
    path = sorted(filled.glob("summaries/2026-03/*.parquet"))[0]
    ((board, value),) = duckdb.sql(f"SELECT board, value FROM '{path}'").fetchall()  # noqa: S608
    damage(path)
    assert main(["history", "series", str(filled), PAIR, "--json"]) == 0
    captured = capsys.readouterr()
    assert f"damaged, passed over: {path}: " in captured.err
    told = [(one["board"], one["value"]) for one in json.loads(captured.out)["rows"]]
    assert told == [one for one in everything() if one != (board, value)]
    if damage is not scrambled:
        ParquetStore(filled).merge()
        assert path.exists()


def test_a_merged_file_that_does_not_tell_its_runs_is_named(filled: Path) -> None:
    path = filled / "summaries/2026-03" / f"{MERGED}x.parquet"
    duckdb.sql(f"COPY (SELECT 1 AS value) TO '{path}' (FORMAT parquet)")
    assert found(filled / "summaries", connected()).damaged == ((path, "does not tell which runs it holds"),)
    assert values(filled) == everything()


def test_rounds_stay_a_month_and_summaries_for_ever(tmp_path: Path) -> None:
    store = ParquetStore(tmp_path / "store")
    store.add([a_run(tmp_path, 0), a_run(tmp_path, 5)], NOW + timedelta(days=5))
    assert len(list(store.folder.glob("rounds/*/*.parquet"))) == 2
    (row,) = duckdb.sql(f"SELECT row, values FROM '{store.folder}/rounds/2026-03-01/*.parquet'").fetchall()  # noqa: S608
    assert row == (PAIR, [5000.0] * 20)
    assert store.drop_rounds(NOW + timedelta(days=DAYS_OF_ROUNDS)) == 0
    assert store.drop_rounds(NOW + timedelta(days=DAYS_OF_ROUNDS + 1)) == 1
    assert [path.name for path in (store.folder / "rounds").iterdir()] == ["2026-03-06"]
    assert len(values(store.folder)) == 2


def test_rounds_of_old_runs_are_not_added(tmp_path: Path) -> None:
    store = ParquetStore(tmp_path / "store")
    store.add([a_run(tmp_path, 0)], NOW + timedelta(days=DAYS_OF_ROUNDS))
    assert not (store.folder / "rounds").exists()


def test_last_values_are_the_newest_of_each_row_and_kernel(tmp_path: Path, filled: Path) -> None:
    ParquetStore(filled).add([a_run(tmp_path, 20, "a", **{HEAP: 7})], NOW)
    answer = StoreReader(filled).last_values("a").as_objects()
    assert [(told["row"], told["value"]) for told in answer] == sorted([(PAIR, 5034.0), (HEAP, 7.0)])
    assert StoreReader(filled).last_values("A").rows == []


def test_what_moved_is_told_worst_first_and_only_beyond_the_limit(tmp_path: Path) -> None:
    def night(day: int) -> Path:
        counts = {"steady": 1000, "slower": 1000 + 300 * (day >= 7), "faster": 1000 - 100 * (day >= 7)}
        return exact(tmp_path / f"{day}.json", {**counts, "a little": 1000 + 40 * (day >= 7)}, minutes=day * DAY)

    ParquetStore(tmp_path / "store").add(map(night, range(14)), NOW)
    told = moved(tmp_path / "store", 7, 5, 5)
    assert [(one["row"], pytest.approx(one["ratio"])) for one in told] == [("slower", 1.3), ("faster", 0.9)]
    assert [(one["nights_before"], one["nights_after"]) for one in told] == [(7, 7)] * 2
    assert moved(tmp_path / "store", 7, 50, 50) == []
    assert moved(tmp_path / "store", 7, 5, 5, until=datetime(2020, 1, 1)) == []


def test_noise_of_a_row_is_no_move(tmp_path: Path) -> None:
    def night(day: int) -> Path:
        noisy = {f"noisy{row}": 1e-6 * (1 + 0.05 * ((day * 7919 + row * 104729) % 101 - 50) / 50) for row in range(40)}
        steady = {"moved": 1e-6 * (1 + 0.15 * (day >= 28)), "young": 1e-6 * (1 + 0.15 * (day >= 28))}
        if day in range(24):
            del steady["young"]
        return wall(tmp_path / f"{day}.json", {**noisy, **steady}, noise=0.001, seed=day, minutes=day * DAY)

    ParquetStore(tmp_path / "store").add(map(night, range(35)), NOW)
    assert [one["row"] for one in moved(tmp_path / "store", 7, 1)] == ["moved"]


def test_brackets_of_a_row_name_stand_for_themselves(filled: Path) -> None:
    assert len(values(filled, "*[udmabuf-READ-1MiB]")) == 20
    assert values(filled, "*[u]*") == []
    assert {board for board, _ in values(filled, "*", board="a")} == {"a"}
    assert values(filled, "*", kernel="7.*") == []


def test_runs_that_cannot_be_placed_in_time_are_left_out_and_named(tmp_path: Path) -> None:
    undated = document([benchmark(PAIR, [5e-6] * 5, facts())])
    del undated["datetime"]
    (tmp_path / "cut.json").write_text("{")
    os.mkfifo(tmp_path / "pipe.json")
    files = [write(tmp_path / "undated.json", undated), write(tmp_path / "empty.json", document([]))]
    added = ParquetStore(tmp_path / "store").add(
        [*files, tmp_path / "cut.json", tmp_path / "pipe.json", a_run(tmp_path, 1)], NOW
    )
    assert added.new == 1
    assert [sentence.rpartition(".json: ")[2].partition(":")[0] for sentence in added.left_out] == [
        "tells no date",
        "has no rows",
        "is not JSON, or was cut off",
        "is not a regular file",
    ]


def test_the_storage_of_today_becomes_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = Storage(tmp_path / "kept")
    for day in range(3):
        place = storage.keep(load_run(a_run(tmp_path, day)), Standing.GOOD).parent
    (place / "0009_20260301_120000_good.json").write_text("{")
    call = ["history", "--storage", str(storage.folder), "store", str(tmp_path / "store")]
    assert main(call) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("added 3 runs, 0 were there")
    assert "left out: " in captured.err
    assert main(call) == 0
    assert capsys.readouterr().out.startswith("added 0 runs, 3 were there")
    assert len(values(tmp_path / "store")) == 3
    assert main(["history", "board", str(tmp_path / "store"), "board"]) == 0
    assert "5,002" in capsys.readouterr().out


def test_a_run_file_that_was_named_and_could_not_be_added_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text("{")
    assert main(["history", "store", str(tmp_path / "store"), str(tmp_path / "cut.json")]) == 2
    assert not (tmp_path / "store").exists()


def test_a_folder_stands_for_the_runs_in_it_also_as_they_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loose").mkdir()
    storage, store = Storage(tmp_path / "kept"), str(tmp_path / "store")
    for day in range(2):
        run = a_run(tmp_path / "loose", day)
        storage.keep(load_run(run), Standing.GOOD)
    for folder, said in ((storage.folder, "added 2 runs, 0 were there"), (tmp_path / "loose", "added 0 runs, 2 were")):
        assert main(["history", "store", store, str(folder)]) == 0
        assert capsys.readouterr().out.startswith(said)
        assert main(["report", str(folder), "-o", str(tmp_path / "p.html")]) == 0
        capsys.readouterr()
    other = a_run(tmp_path, 1, "other")
    storage.keep(load_run(other), Standing.GOOD)
    assert main(["report", str(storage.folder), "-o", str(tmp_path / "p.html")]) == 2
    told = capsys.readouterr().err
    assert "its runs lie in 2 folders" in told
    assert f"such as {storage.folder}/board_" in told
    (tmp_path / "empty").mkdir()
    assert main(["history", "store", str(tmp_path / "none"), str(tmp_path / "empty")]) == 2
    assert "a folder without run files" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_large_counts_are_told_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, source = str(tmp_path / "store"), exact(tmp_path / "r.json", {PAIR: 3670871})
    assert main(["history", "store", store, str(source)]) == 0
    assert capsys.readouterr().out.startswith("added 1 run, 0 were there")
    assert main(["history", "board", store, "board"]) == 0
    assert "3,670,871" in capsys.readouterr().out
    assert main(["history", "merge", store]) == 0
    assert "merged 0 months" in capsys.readouterr().out


def test_a_night_is_added_to_the_store(tmp_path: Path) -> None:
    nightly(Storage(tmp_path / "kept"), measure=lambda output: a_night(output), store=tmp_path / "store")
    assert values(tmp_path / "store") == [("board", 5000)]


def a_night(output: Path) -> None:
    exact(output, {PAIR: 5000})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["series", "NONE", "x"], "no store is there"),
        (["merge", "NONE"], "no store is there"),
        (["moved", "STORE", "--days", "0"], "--days is 0.0"),
        (["moved", "STORE", "--percent", "-1"], "--percent is -1.0"),
        (["store", "FILE"], "FILE"),
        (["--storage", "NONE", "store", "NEW"], "no such folder"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(
    tmp_path: Path, filled: Path, capsys: pytest.CaptureFixture[str], call: list[str], said: str
) -> None:
    (tmp_path / "FILE").write_text("mine")
    places = {name: str(tmp_path / name) for name in ("NONE", "FILE", "NEW")} | {"STORE": str(filled)}
    assert main(["history", *(places.get(word, word) for word in call)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "NEW").exists()


def test_what_is_not_in_the_store_is_told_with_status_3(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "board", str(filled), "nobody"]) == 3
    assert capsys.readouterr().out == "no such row or board is in the store\n"


def test_without_duckdb_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "duckdb":
            raise ModuleNotFoundError(name=name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    source = a_run(tmp_path, 0)
    assert main(["history", "store", str(tmp_path / "store"), str(source)]) == 4
    assert "pip install duckdb" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
    night = ["history", "nightly", "--storage", str(tmp_path / "new"), "--store", str(tmp_path / "store")]
    assert main(night) == 4
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "new").exists()
    assert main(["history", "--storage", str(tmp_path / "kept"), "keep", str(source)]) == 0
