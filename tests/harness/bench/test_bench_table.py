"""What ``dmasync bench`` prints: a table that fits any terminal, and what is not exact as a count a reason."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dmasync.harness.bench.table import print_summary
from dmasync.harness.console import Column, print_table
from dmasync.harness.runs.facts import RowFacts
from dmasync.harness.runs.reading import Run, load_run
from tests.support.run_files import NULL, benchmark, document, exact, facts, write


def row(name: str, step: str, resolution: float, **more: object) -> dict:
    told: RowFacts = facts(step=step, exact=False, resolution=resolution, **more)
    return benchmark(f"t.py::{name}", [5e-6, 5.1e-6, 5.2e-6], told)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    rows = [
        *(row(f"first[{size}]", "first-start", 2, size=size) for size in (4096, 8192)),
        row("map", "map", 3),
        row("threads", "pair-in-4-threads", 2),
        row("storm", "pair-after-10-EINTR", 3),
        row("recorded", "recorded-pair-first", 3),
        row("odd", "start", 0),
    ]
    return load_run(write(tmp_path / "run.json", document(rows)))


def printed(run: Run, *, verbose: bool = False) -> list[str]:
    stream = io.StringIO()
    print_summary(run, stream, verbose=verbose)
    return [line for line in stream.getvalue().splitlines() if line.startswith("not exact")]


def test_what_is_not_exact_is_counted_by_its_reason(run: Run) -> None:
    assert printed(run) == [
        "not exact: 3 rows: pages are allocated or mapped, other ones each time (-v lists them)",
        "not exact: 1 row: threads take turns at other places in every run (-v lists them)",
        "not exact: 1 row: signals arrive at other places in every run (-v lists them)",
        "not exact: 1 row: Python's memory grows while it records (-v lists them)",
        "not exact: 1 row: some rounds took another number of instructions (-v lists them)",
    ]


@pytest.mark.parametrize(
    ("target", "unit", "told"),
    [("vm", "ns", True), ("vm", "instructions", False), ("hardware", "ns", False), ("fake", "ns", False)],
)
def test_wall_time_of_an_emulator_is_said_to_be_that(tmp_path: Path, target: str, unit: str, told: bool) -> None:
    content = document([row("start", "start", 0, target=target, unit=unit)])
    stream = io.StringIO()
    print_summary(load_run(write(tmp_path / "run.json", content)), stream)
    assert ("wall time in an emulator says little: --exact counts instructions" in stream.getvalue()) is told


def test_verbose_lists_each_row_with_its_quartiles(run: Run) -> None:
    lines = printed(run, verbose=True)
    assert len(lines) == 7
    assert "t.py::map" in lines[2]
    assert "5,100, quartiles 5,050 to 5,150" in lines[2]


COLUMNS = [Column("provider"), Column("first START", number=True), Column("kernel's part of a pair", number=True)]
ROWS = [
    ("udmabuf", "136,816,123", "4,198,288"),
    "a heading that is longer than any terminal of these",
    ("system", "7", ""),
]


def shown(width: int, *, terminal: bool = True) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    print_table(console, COLUMNS, ROWS)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60, 200])
def test_no_terminal_is_too_narrow_for_a_digit(width: int) -> None:
    text = "\n".join(shown(width))
    assert "136,816,123" in text
    assert "4,198,288" in text


@pytest.mark.parametrize("width", [34, 60])
def test_names_of_columns_break_before_rows_do(width: int) -> None:
    lines = shown(width)
    assert max(len(line) for line in lines if "heading" not in line) <= width
    assert any("udmabuf" in line and "136,816,123" in line and "4,198,288" in line for line in lines)


def test_a_row_that_has_no_room_names_each_number() -> None:
    assert shown(24)[:3] == ["udmabuf", "    first START 136,816,123", "    kernel's part of a pair 4,198,288"]


def test_where_there_is_no_terminal_a_row_is_a_line() -> None:
    assert len(shown(10, terminal=False)) == 1 + len(ROWS)


def test_one_long_name_has_a_line_of_its_own_and_the_others_stay_beside_their_numbers() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=50, force_terminal=True, color_system=None)
    columns = [Column("in instructions"), Column("base", number=True), Column("candidate", number=True)]
    long = "pair after 10 EINTR of 1 MiB udmabuf, DmaSyncer-reused"
    print_table(console, columns, [("START of udmabuf", "1,941", "2,061"), (long, "372,674", "1,214,157")])
    assert stream.getvalue().splitlines() == [
        f"in instructions{'base':>24}{'candidate':>11}",
        f"START of udmabuf{'1,941':>23}{'2,061':>11}",
        long,
        f"{'372,674':>39}{'1,214,157':>11}",
    ]


def test_without_a_row_there_is_no_heading_either(tmp_path: Path) -> None:
    shown = io.StringIO()
    print_summary(load_run(exact(tmp_path / "null.json", {NULL: 1800})), shown)
    assert "provider" not in shown.getvalue()
    assert shown.getvalue().splitlines()[-1] == f"1 row in {tmp_path / 'null.json'}"
