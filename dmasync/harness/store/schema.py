"""What a run becomes in a store: for each benchmark a row in ``summaries``, and its rounds in ``rounds``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.runs.kept import Kind
from dmasync.harness.runs.reading import Row, Run

SUMMARIES = {
    "moment": "TIMESTAMP",
    "board": "VARCHAR",
    "kernel": "VARCHAR",
    "arch": "VARCHAR",
    "target": "VARCHAR",
    "clock": "VARCHAR",
    "python": "VARCHAR",
    "compiled": "BOOLEAN",
    "commit": "VARCHAR",
    "row": "VARCHAR",
    "unit": "VARCHAR",
    "value": "DOUBLE",
    "q1": "FLOAT",
    "q3": "FLOAT",
    "rounds": "INTEGER",
    "provider": "VARCHAR",
    "size": "BIGINT",
    "access": "VARCHAR",
    "step": "VARCHAR",
}
"""Columns and their types. ``moment`` is in UTC; ``value`` is the median, as the quartiles in ``unit`` (ns or
instructions) per operation."""

ROUNDS = {
    "moment": "TIMESTAMP",
    "board": "VARCHAR",
    "kernel": "VARCHAR",
    "row": "VARCHAR",
    "unit": "VARCHAR",
    "values": "DOUBLE[]",
}
"""The rounds of each row, in the order of measurement."""


UNKNOWN = "unknown"
"""In place of a kernel or target that a run does not tell: in SQL, NULL is not even equal to itself."""

TOGETHER = "*"
"""In the place of a row's name, in what moved: all rows of the board and kernel, relative to their mean."""


def moment_of(run: Run) -> datetime | None:
    """When *run* was taken, in UTC and without a zone, as Parquet has it."""
    return None if run.moment is None else run.moment.astimezone(timezone.utc).replace(tzinfo=None)


def summaries(run: Run) -> Iterator[tuple[Any, ...]]:
    """The rows of *run* in the order of :data:`SUMMARIES`."""
    kind, commit = Kind.of(run), run.commit.get("id")
    for row in run.rows.values():
        facts = row.facts
        q1, middle, q3 = _amounts(row)
        yield (
            moment_of(run), kind.host, run.kernel or UNKNOWN, kind.arch, facts.target or UNKNOWN,
            "exact" if row.is_exact_clock else "wall",
            kind.python, kind.compiled, commit if isinstance(commit, str) else None, row.fullname, _unit(row),
            middle, q1, q3, row.rounds, facts.provider, facts.size, facts.access, facts.step,
        )  # fmt: skip


def rounds(run: Run) -> Iterator[tuple[Any, ...]]:
    """The rows of *run* that have their rounds, in the order of :data:`ROUNDS`."""
    host = Kind.of(run).host
    for row in run.rows.values():
        if row.data:
            values = [float(count) for count in row.counts] or [seconds * 1e9 for seconds in row.data]
            yield moment_of(run), host, run.kernel or UNKNOWN, row.fullname, _unit(row), values


def _unit(row: Row) -> str:
    return INSTRUCTIONS if row.is_exact_clock else "ns"


def _amounts(row: Row) -> tuple[float, float, float]:
    if row.is_exact_clock:
        q1, middle, q3 = row.instructions
        return float(q1), float(middle), float(q3)
    return row.q1 * 1e9, row.median * 1e9, row.q3 * 1e9
