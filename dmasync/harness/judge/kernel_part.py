"""Tell the kernel's part of a row from Python's: take away what the same call costs when nothing is synced.

A run's null row (:data:`dmasync.harness.runs.facts.NULL_STEP`) makes the same system call without a sync. Its cost
is Python's and the system call entry's, so a row's cost less that of its calls is what the sync itself took
in the kernel. A row of another interface (a context manager, say) has no null row of its own: its part
is that of the plain call with otherwise equal facts, since the kernel does the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dmasync.harness.judge.match import comparable_facts
from dmasync.harness.runs.facts import NULL_STEP, RowFacts
from dmasync.harness.runs.reading import Row, Run


def cost(row: Row) -> float:
    """The row's median: instructions on the exact clock, else nanoseconds."""
    return float(row.instructions.middle) if row.is_exact_clock else row.median * 1e9


def kernel_parts(run: Run) -> Mapping[str, float]:
    """The kernel's part of each row of *run* that it can be told of, in the row's unit."""
    nulls = {
        _surroundings(row.facts): cost(row) / row.facts.calls
        for row in run.rows.values()
        if row.facts.step == NULL_STEP and row.facts.calls > 0
    }
    direct: dict[str, float] = {}
    by_facts: dict[tuple[object, ...], float] = {}
    for row in run.rows.values():
        null = nulls.get(_surroundings(row.facts))
        if null is not None and row.facts.step != NULL_STEP:
            part = cost(row) - row.facts.calls * null
            direct[row.fullname] = max(0.0, part)
            by_facts.setdefault(_without_interface(row.facts), direct[row.fullname])
    for row in run.rows.values():
        part_of_twin = by_facts.get(_without_interface(row.facts))
        if row.fullname not in direct and row.facts.step != NULL_STEP and part_of_twin is not None:
            direct[row.fullname] = min(part_of_twin, cost(row))
    return direct


def _surroundings(facts: RowFacts) -> tuple[object, ...]:
    return facts.unit, facts.target, facts.arch, facts.python, facts.compiled, facts.api


def _without_interface(facts: RowFacts) -> tuple[object, ...]:
    return comparable_facts(replace(facts, api=None))
