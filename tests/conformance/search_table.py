# ruff: noqa: T201 - a command: its results go to standard output
"""Join the search's logs with the table in docs/explanation/fidelity.md: how often the search walked each errno path.

    python -m tests.conformance.search_table LOG… [--least 100] [--merged FILE]

Exit status: 0 every row was walked often enough or says why it cannot be, 1 one was not, 2 a row of the table has no
entry here.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.conformance.search_table_rows import ROWS, Row, WhyNot

TABLE = Path(__file__).parents[2] / "docs" / "explanation" / "fidelity.md"


class Walked(NamedTuple):
    """One row of the table and how often the search walked it."""

    function: str
    condition: str
    count: int
    why_not: str
    """Empty, or why the search cannot get there."""


def table_rows(text: str) -> list[tuple[str, str]]:
    """(source function, condition) of each row under "The table"."""
    part = text.partition("## The table")[2].partition("\n## ")[0]
    rows = []
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) >= 4:
            rows.append((cells[0], cells[1]))
    return rows


def joined(logs: Iterable[dict[str, Any]], rows: Sequence[tuple[str, str]]) -> tuple[list[Walked], list[str]]:
    """Each row with its count, and those that have no entry."""
    reached: collections.Counter[str] = collections.Counter()
    for log in logs:
        reached.update(log["refusals"])
        for label, outcomes in log["operations"].items():
            for outcome, count in outcomes.items():
                reached[f"{label} = {outcome}"] += count
    walked, unknown = [], []
    for function, condition in rows:
        entry = _entry(function, condition)
        if entry is None:
            unknown.append(f"{function}: {condition}")
        elif isinstance(entry, WhyNot):
            walked.append(Walked(function, condition, 0, entry.reason))
        else:
            counts = [
                sum(count for name, count in reached.items() if re.search(pattern, name)) for pattern in entry.patterns
            ]
            walked.append(Walked(function, condition, min(counts), ""))
    return walked, unknown


def merged(logs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One log of what several searches on one kernel did; ValueError where there was more than one kernel."""
    kernels = sorted({log["kernel"] for log in logs})
    if len(kernels) != 1:
        raise ValueError(f"logs of several kernels make no common one: {', '.join(kernels)}")
    whole: dict[str, Any] = {"kernel": kernels[0]}
    for name in ("steps", "checkpoints", "programs", "unmodelled", "seconds", "divergences"):
        whole[name] = sum((log[name] for log in logs), start=type(logs[0][name])())
    whole["seeds"] = sorted({seed for log in logs for seed in log["seeds"]})
    operations: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    refusals: collections.Counter[str] = collections.Counter()
    for log in logs:
        refusals.update(log["refusals"])
        for label, outcomes in log["operations"].items():
            operations[label].update(outcomes)
    whole["operations"] = {label: dict(sorted(operations[label].items())) for label in sorted(operations)}
    whole["refusals"] = dict(sorted(refusals.items()))
    return whole


def _entry(function: str, condition: str) -> Row | WhyNot | None:
    for (name, beginning), entry in ROWS.items():
        if f"`{name}`" in function and condition.startswith(beginning):
            return entry
    return None


def main() -> int:
    """Print the join."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.search_table", description=__doc__)
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--least", type=int, default=100, help="how often is often enough (default: %(default)s)")
    parser.add_argument("--merged", type=Path, help="write the logs here as one")
    options = parser.parse_args()
    logs = [json.loads(log.read_text()) for log in options.logs]
    if options.merged is not None:
        options.merged.write_text(json.dumps(merged(logs), indent=1) + "\n")
    walked, unknown = joined(logs, table_rows(TABLE.read_text()))
    few = [row for row in walked if not row.why_not and row.count < options.least]
    for row in walked:
        shown = f"not by search: {row.why_not}" if row.why_not else f"{row.count:8}"
        print(f"{shown}  {row.function}: {row.condition}")
    for name in unknown:
        print(f"no entry  {name}")
    apart = sum(bool(row.why_not) for row in walked)
    print(
        f"{len(walked) + len(unknown)} rows: {len(walked) - len(few) - apart} walked at least {options.least} times, "
        f"{apart} not by search, {len(few)} too rarely, {len(unknown)} without an entry"
    )
    return 2 if unknown else 1 if few else 0


if __name__ == "__main__":
    sys.exit(main())
