"""What moved is found for all series of a fleet at once: the same as SQL and a look at one after another tell."""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dmasync.harness.store import night_files, nights
from dmasync.harness.store.fleet_moves import moves
from dmasync.harness.store.parquet_files import connected, quoted, write_query
from dmasync.harness.store.parquet_store import ParquetStore
from dmasync.harness.store.queries import StoreReader
from dmasync.harness.store.schema import SUMMARIES, TOGETHER
from tests.support import plain_moves

NEWEST = datetime(2026, 3, 1, 2)
NIGHTS = 110
KINDS = ("steady", "step", "young step", "creep", "fall", "and back", "spike", "all rows")


def cost(kind: str, night: int, row: int) -> float:
    """In nanoseconds or instructions."""
    from_end = NIGHTS - night
    factor = {
        "steady": 1.0,
        "step": 1.2 if from_end <= 30 and row == 1 else 1.0,
        "young step": 1.15 if from_end <= 5 and row < 2 else 1.0,
        "creep": 1 + 0.25 * night / NIGHTS if row == 2 else 1.0,
        "fall": 0.85 if from_end <= 6 and row != 1 else 1.0,
        "and back": 1.3 if 20 < from_end < 50 else 1.0,
        "spike": 2.0 if from_end in (1, 40) else 1.0,
        "all rows": 1.12 if from_end <= 45 else 1.0,
    }[kind]
    return float(round((1900 + 137 * row) * factor))


def plant(store: Path, seed: int) -> None:
    """A board of each kind, by both clocks: some nights are missing, some have two runs, two Pythons take turns."""
    source = random.Random(seed)  # noqa: S311  # noise, no secret
    months: dict[str, list[tuple[Any, ...]]] = {}
    for number, kind in enumerate(KINDS):
        board, noise = f"{kind}'s", source.choice([0.01, 0.03, 0.3 if kind == "all rows" else 0.02])
        kernels, clocks = ("6.12.1", "6.9.1")[: 1 + number % 2], ("wall", "exact")[: 1 + number % 3]
        for night in range(NIGHTS):
            moment = NEWEST - timedelta(days=NIGHTS - 1 - night, seconds=source.randrange(7200))
            for at in [moment] * source.choices([0, 1, 2], [1, 8, 1])[0]:
                for kernel in kernels:
                    run = at + timedelta(seconds=source.randrange(3600))
                    for clock in clocks:
                        for row in range(5 if night % 7 else 4):
                            value = cost(kind, night, row)
                            value *= 1 + (noise * source.gauss(0, 1) if clock == "wall" else 0)
                            told = {
                                "moment": run, "board": board, "kernel": kernel, "arch": "aarch64", "target": "vm",
                                "clock": clock, "python": "3.11.7" if row % 4 or night % 2 else "3.12.1",
                                "compiled": True, "row": f"t.py::r{row}", "value": abs(value) if night % 50 else 0.0,
                                "unit": "ns" if clock == "wall" else "instructions",
                            }  # fmt: skip
                            rows = months.setdefault(f"{run:%Y-%m}", [])
                            rows.append(tuple((dict.fromkeys(SUMMARIES) | told).values()))
    for month, rows in months.items():
        source.shuffle(rows)
        for half in (0, 1):
            write(store / "summaries" / month / f"{half}.parquet", rows[half::2])


def write(path: Path, rows: list[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = path.with_suffix(".csv")
    with listed.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in SUMMARIES.items())
    query = f"SELECT * FROM read_csv({quoted(listed)}, header = false, columns = {{{columns}}})"  # noqa: S608
    write_query(path, query, [], connected())
    listed.unlink()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("planted")
    plant(store, 1)
    return store


@pytest.fixture(scope="module")
def merged(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, in a file a month, with the nights of each written beside it."""
    store = Path(shutil.copytree(planted, tmp_path_factory.mktemp("merged") / "store"))
    assert ParquetStore(store).merge() == 5
    return store


@pytest.fixture(scope="module")
def half_merged(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but that half of the last whole month came after the merge."""
    store = Path(shutil.copytree(planted, tmp_path_factory.mktemp("half") / "store"))
    late = store / "summaries/2026-02/1.parquet"
    aside = late.rename(store / "late.parquet")
    ParquetStore(store).merge()
    aside.rename(late.with_name("late.parquet"))
    return store


@pytest.fixture(params=["planted", "merged", "half_merged"])
def store(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def assert_same(store: Path, days: float, percent: float, exact_percent: float, until: datetime | None) -> set[str]:
    """That both ways tell the same; the boards that they tell of."""
    asked = (StoreReader(store), days, percent, exact_percent, until)
    fast, plain = moves(*asked), plain_moves.moves(*asked)
    told, expected = fast.told.as_objects(), plain.told.as_objects()

    def named(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in ("board", "kernel", "row", "clock", "python"))

    assert sorted(map(named, told)) == sorted(map(named, expected))
    for one, other in zip(sorted(told, key=named), sorted(expected, key=named), strict=True):
        for name, value in other.items():
            assert one[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)
    assert [row["ratio"] for row in told] == pytest.approx([row["ratio"] for row in expected], rel=1e-9)
    assert {place: line.nights for place, line in fast.lines.items()} == lines_of(plain)
    for row in plain.cells.as_objects():
        line = fast.lines[row["board"], row["kernel"]]
        if row["age"] == line.nights[-1][0]:
            assert (line.rows, f"{line.last.isoformat(timespec='seconds')}+00:00") == (row["rows"], row["moment"])
    return {str(row["board"]) for row in expected}


def lines_of(plain: plain_moves.Moves) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for row in plain.cells.as_objects():
        found.setdefault((row["board"], row["kernel"]), []).append((row["age"], pytest.approx(row["cost"], rel=1e-9)))
    return {place: tuple(line) for place, line in found.items()}


@pytest.mark.parametrize(
    ("days", "percent", "exact_percent", "before"),
    [
        (7, 5, 0, 0),
        (7, 0, 0, 0),
        (1, 5, 5, 0),
        (30, 5, 0, 0),
        (0.4, 1, 0, 0),
        (7, 12, 12, 0),
        (7, 5, 0, 20),
        (3, 5, 0, 95),
    ],
)
def test_all_at_once_and_one_by_one_tell_the_same(
    store: Path, days: float, percent: float, exact_percent: float, before: int
) -> None:
    assert_same(store, days, percent, exact_percent, NEWEST - timedelta(days=before) if before else None)


def test_what_was_planted_is_among_what_both_tell(planted: Path) -> None:
    told = assert_same(planted, 7, 5, 0, None)
    assert {"step's", "young step's", "creep's", "fall's"} <= told
    assert "steady's" not in told


def test_parts_of_the_fleet_are_put_together_whole(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = moves(StoreReader(planted), 7, 5)
    monkeypatch.setattr(nights, "_AT_ONCE", 1)
    parts = moves(StoreReader(planted), 7, 5)
    assert (parts.told.rows, parts.lines) == (whole.told.rows, whole.lines)
    assert len(whole.lines) > len(KINDS)


def test_merging_changes_no_move_and_the_nights_that_it_writes_are_what_is_read(
    planted: Path, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = moves(StoreReader(planted), 7, 5)
    assert before.told.rows
    monkeypatch.delattr(night_files, "_nights")  # which reads summaries
    after = moves(StoreReader(merged), 7, 5)
    assert (after.told.rows, after.lines) == (before.told.rows, before.lines)


def test_series_of_one_hash_are_told_apart(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = moves(StoreReader(store), 7, 5)
    at_first = night_files._HASH
    monkeypatch.setattr(night_files, "_HASH", "unused")
    for name in ("_SERIES", "_NIGHTS"):
        worse = f"({at_first} % CASE {{salt}} WHEN 0 THEN 7 ELSE 1099511627776 END)"
        coarse = getattr(night_files, name).replace(at_first, worse)
        assert coarse != getattr(night_files, name)
        monkeypatch.setattr(night_files, name, coarse)
    assert moves(StoreReader(store), 7, 5).told.rows == whole.told.rows


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def other(path: Path) -> None:
    path.write_bytes(b"of another version")


@pytest.mark.parametrize("harm", [Path.unlink, cut, other])
@pytest.mark.parametrize("ending", ["npy", "parquet"])
def test_written_nights_that_are_of_no_use_change_no_answer(
    merged: Path, tmp_path: Path, harm: Callable[[Path], None], ending: str
) -> None:
    whole = moves(StoreReader(merged), 7, 5)
    copy = Path(shutil.copytree(merged, tmp_path / "copy"))
    (harmed,) = (copy / "nights/2026-01").glob(f"*.{ending}")
    harm(harmed)
    after = moves(StoreReader(copy), 7, 5)
    assert (after.told.rows, after.lines, after.told.damaged) == (whole.told.rows, whole.lines, ())


def test_the_nights_of_the_newest_months_are_written_and_those_of_files_that_are_gone_are_not_kept(
    planted: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(planted, tmp_path / "copy"))
    place = store / "summaries/2025-01/merged-old.parquet"
    place.parent.mkdir()
    shutil.copy(store / "summaries/2026-01/0.parquet", place)
    ParquetStore(store).merge()

    def written() -> list[str]:
        return sorted(str(path.relative_to(store / "nights").with_suffix("")) for path in store.glob("nights/*/*.npy"))

    def summaries() -> list[str]:
        every = store.glob("summaries/*/*.parquet")
        return sorted(str(path.relative_to(store / "summaries").with_suffix("")) for path in every)

    first = written()
    assert first == summaries()[1:]
    shutil.copy(store / f"summaries/{first[-1]}.parquet", store / "summaries/2026-03/more.parquet")
    ParquetStore(store).merge()
    assert written() == summaries()[1:]
    assert set(first) - set(written()) == {first[-1]}


def test_a_store_without_a_cost_above_0_has_no_moves(tmp_path: Path) -> None:
    row = dict.fromkeys(SUMMARIES) | {"moment": NEWEST, "board": "b", "kernel": "6.12.1", "value": 0.0, "row": "r"}
    write(tmp_path / "summaries/2026-03/a.parquet", [tuple(row.values())])
    found = moves(StoreReader(tmp_path), 7, 5)
    assert (found.told.rows, dict(found.lines)) == ([], {})


def test_all_rows_together_are_told_by_both(tmp_path: Path) -> None:
    source = random.Random(3)  # noqa: S311  # noise, no secret
    rows = [
        {
            "moment": NEWEST - timedelta(days=90 - night), "board": "b", "kernel": "6.12.1", "clock": "wall",
            "row": f"r{row}", "value": 1000 * (1.1 if night >= 40 else 1) * source.lognormvariate(0, 0.25),
            "arch": "a", "target": "t", "python": "3", "compiled": True, "unit": "ns",
        }
        for night in range(90)
        for row in range(40)
    ]  # fmt: skip
    told = [tuple((dict.fromkeys(SUMMARIES) | row).values()) for row in rows]
    write(tmp_path / "summaries/2026-03/a.parquet", told)
    assert assert_same(tmp_path, 7, 5, 0, None) == {"b"}
    assert [row["row"] for row in moves(StoreReader(tmp_path), 7, 5).told.as_objects()] == [TOGETHER]
