"""Rows that moved alike stand in one line; no two lines read alike, and a wide range has its worst and its usual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmasync.harness.judge.compare import judge
from dmasync.harness.judge.moved_together import alike, causes
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import Judgement, Verdict
from dmasync.harness.runs.reading import load_run
from tests.support.run_files import benchmark, document, facts, write

SIZES = tuple(4096 << shift for shift in (0, 4, 8, 10))


def judged(folder: Path, rows: list[tuple[dict[str, Any], float]]) -> Judgement:
    """Rows of 1000 instructions, each with its facts and the factor by which it moved."""
    runs = []
    for name, moved in (("b", False), ("c", True)):
        benchmarks = [
            benchmark(f"t.py::r{at}", [round(1000 * (factor if moved else 1)) * 1e-9] * 5, facts(**told))
            for at, (told, factor) in enumerate(rows)
        ]
        runs.append(load_run(write(folder / f"{name}.json", document(benchmarks))))
    return judge(runs[:1], runs[1:], GateSettings())


def labels(judgement: Judgement) -> list[str]:
    return [
        group.name
        for verdict in (Verdict.REGRESSED, Verdict.IMPROVED, Verdict.SAME)
        for group in alike([row for row in judgement.rows if row.verdict is verdict], judgement.rows)
    ]


def test_groups_of_one_step_and_buffer_are_told_apart_by_their_sizes(tmp_path: Path) -> None:
    rows = [
        ({"step": "start", "size": size, "access": access}, 3.0 if size > 65536 else 1.5)
        for size in SIZES
        for access in ("READ", "WRITE")
    ]
    assert labels(judged(tmp_path, rows)) == [
        "START of udmabuf (4 rows: 1 MiB, 4 MiB)",
        "START of udmabuf (4 rows: 4 KiB, 64 KiB)",
    ]


def test_groups_of_one_size_are_told_apart_by_access_or_interface(tmp_path: Path) -> None:
    accesses = ("READ", "WRITE", "READ_WRITE")
    assert labels(judged(tmp_path, [({"access": one}, 1.5 if one == "READ_WRITE" else 3.0) for one in accesses])) == [
        "pair of 1 MiB udmabuf (2 rows: READ, WRITE)",
        "pair READ_WRITE of 1 MiB udmabuf",
    ]
    interfaces = ("a", "fcntl", "b", "c")
    assert labels(judged(tmp_path, [({"api": one}, 1.5 if one in ("a", "fcntl") else 3.0) for one in interfaces])) == [
        "pair READ of 1 MiB udmabuf (2 rows: b, c)",
        "pair READ of 1 MiB udmabuf (2 rows: a, fcntl)",
    ]


@pytest.mark.parametrize("other", [1.5, 1.0, 0.5])
def test_what_only_the_combination_tells_apart_is_listed(tmp_path: Path, other: float) -> None:
    rows = [
        ({"size": size, "access": access}, 3.0 if (size == SIZES[0]) == (access == "READ") else other)
        for size in SIZES[:2]
        for access in ("READ", "WRITE")
    ]
    told = labels(judged(tmp_path, rows))
    assert len(set(told)) == len(told) == 2
    assert told[0] == "pair of udmabuf (2 rows: READ 4 KiB fcntl; WRITE 64 KiB fcntl)"


def test_all_rows_of_a_kind_need_nothing_to_tell_them_apart(tmp_path: Path) -> None:
    assert labels(judged(tmp_path, [({"size": size}, 3.0) for size in SIZES])) == ["pair READ of udmabuf (all 4 rows)"]


def test_a_wide_range_is_told_by_its_worst_and_its_median(tmp_path: Path) -> None:
    def told(*factors: float) -> list[str]:
        rows = [({"step": "start", "size": 4096 << at}, factor) for at, factor in enumerate(factors)]
        return causes(judged(tmp_path, rows))

    assert told(1.4, 3.0, 927.0) == ["START of udmabuf up to x927 (median x3)"]
    assert told(0.9, 0.5, 0.01) == ["START of udmabuf down to -99.0 % (median -50.0 %)"]
    assert told(1.6, 927.0) == ["START of udmabuf x1.6 … x927"]
    assert told(0.5, 2.0, 9.0) == ["START of udmabuf x0.5 … x9"]
    assert told(1.6, 1.7, 1.8) == ["START of udmabuf x1.6 … x1.8"]
