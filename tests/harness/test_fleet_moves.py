"""What moved in a fleet: the page, the command that writes it and ``history moved`` tell one truth."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dmasync.cli import main
from dmasync.harness.store.fleet_moves import moves
from dmasync.harness.store.parquet_files import connected, write_rows
from dmasync.harness.store.queries import StoreReader
from dmasync.harness.store.schema import SUMMARIES, TOGETHER
from tests.support.run_files import START

Cost = Callable[[int, int], float]
"""Of a night and the number of a row."""


def fill(store: Path, board: str, nights: int, cost: Cost, *, rows: int = 6, noise: float | None = None) -> None:
    """Put *nights* of *board* into *store*: on the exact clock, or by the wall with *noise*."""
    source = random.Random(board)  # noqa: S311  # noise, no secret
    clock, unit = ("exact", "instructions") if noise is None else ("wall", "ns")
    fixed = {"kernel": "6.12.1", "arch": "x86_64", "target": "vm", "python": "3.11.7", "compiled": True}
    told = [
        {
            **dict.fromkeys(SUMMARIES),
            **fixed,
            "moment": START.replace(tzinfo=None) + timedelta(days=day),
            "board": board,
            "clock": clock,
            "row": f"t.py::r{row}",
            "unit": unit,
            "value": cost(day, row) * (1 + (noise or 0) * source.gauss(0, 1)),
        }
        for day in range(nights)
        for row in range(rows)
    ]
    path = store / "summaries/2026-03" / f"{board}.parquet"
    write_rows(path, SUMMARIES, (tuple(one.values()) for one in told), connected())


def steady(_: int, row: int) -> float:
    return 1933 + 100 * row


def moved(store: Path) -> list[dict[str, Any]]:
    return moves(StoreReader(store), 7, 5).told.as_objects()


def told_by_all(store: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str, list[dict[str, Any]]]:
    """The page's first sentence, the command's line, and what ``history moved`` answers to a program."""
    assert main(["report", "--fleet", str(store), "-o", str(store / "p.html")]) == 0
    line = capsys.readouterr().err
    page = (store / "p.html").read_text()
    (answer,) = re.findall(r'<p class="answer \w+"><span class="mark">.</span> (.*?)</p>', page)
    assert main(["history", "moved", str(store), "--json"]) == 0
    return answer, line, json.loads(capsys.readouterr().out)["rows"]


@pytest.mark.parametrize(
    ("nights", "rise", "noise", "days"),
    [(101, 0.2, 0.01, 90), (41, 0.152, None, 40), (41, 0.152, 0.01, 40), (101, -0.2, 0.01, 90)],
)
def test_what_creeps_over_the_shown_weeks_is_told_alike_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nights: int, rise: float, noise: float | None, days: int
) -> None:
    fill(tmp_path, "board6", nights, lambda day, row: steady(0, row) * (1 + rise * day / (nights - 1)), noise=noise)
    fill(tmp_path, "board7", nights, steady, noise=noise)
    answer, line, rows = told_by_all(tmp_path, capsys)
    assert "board6" in answer
    assert "board7" not in answer
    assert answer in line
    assert {one["board"] for one in rows} == {"board6"}
    assert len(rows) == 6
    assert {round(one["over_days"]) for one in rows} == {days}
    for one in rows:
        assert one["ratio"] == pytest.approx(1 + rise, abs=0.06)
    assert main(["history", "moved", str(tmp_path)]) == 0
    assert f"{days} days" in capsys.readouterr().out
    page = (tmp_path / "p.html").read_text()
    assert f'<td class="over">{days} days</td>' in page


def test_on_the_exact_clock_each_integer_that_rose_for_good_is_a_move(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, "long_ago", 60, lambda day, row: steady(0, row) + (row == 0 and day >= 20))
    fill(tmp_path, "this_week", 60, lambda day, row: steady(0, row) - (row == 1 and day >= 55))
    fill(tmp_path, "one_night", 60, lambda day, row: steady(0, row) + 9 * (row == 0 and day in (30, 59)))
    fill(tmp_path, "and_back", 60, lambda day, row: steady(0, row) + 9 * (row == 0 and 22 <= day < 29))
    fill(tmp_path, "two_values", 60, lambda day, row: steady(0, row) + 40 * (day * 7919 % 10 < 4))
    answer, _, rows = told_by_all(tmp_path, capsys)
    assert [(one["board"], one["row"], round(one["before"]), round(one["after"])) for one in rows] == [
        ("long_ago", "t.py::r0", 1933, 1934),
        ("this_week", "t.py::r1", 2033, 2032),
    ]
    assert answer == "1 of 5 boards got slower: long_ago. 1 board only got faster: this_week."
    assert "+0.05 %" in (tmp_path / "p.html").read_text()


def test_what_only_all_rows_together_show_is_told_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "noisy", 90, lambda day, row: steady(0, row) * (1 + 0.1 * (day >= 40)), rows=60, noise=0.25)
    answer, _, rows = told_by_all(tmp_path, capsys)
    assert answer == "1 of 1 board got slower: noisy."
    assert [one["row"] for one in rows] == [TOGETHER]
    assert rows[0]["ratio"] == pytest.approx(1.1, abs=0.04)
    assert main(["history", "moved", str(tmp_path)]) == 0
    assert "all rows together" in capsys.readouterr().out


def test_what_rose_weeks_ago_and_fell_a_little_since_is_still_slower(tmp_path: Path) -> None:
    fill(tmp_path, "b", 60, lambda day, row: steady(0, row) * (1 + 0.3 * (day >= 15) - 0.1 * (day >= 54)), noise=0.01)
    assert {round(one["ratio"], 1) for one in moved(tmp_path)} == {1.2}


def test_noise_and_busy_weeks_are_no_moves(tmp_path: Path) -> None:
    def busy(day: int, row: int) -> float:
        return steady(0, row) * (1 + 0.06 * random.Random(day // 3).random())  # noqa: S311  # no secret

    fill(tmp_path, "busy", 90, busy, noise=0.02, rows=20)
    fill(tmp_path, "noisy", 90, steady, noise=0.08, rows=60)
    assert moved(tmp_path) == []
