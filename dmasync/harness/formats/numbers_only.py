"""Services that keep numbers and judge by themselves: Bencher, and github-action-benchmark.

They have no word for a verdict. So a row goes to them only where it was judged, or is new; a number that the gate
could not judge would become a pass there. The counts of what was not judged go along, for a limit of zero on them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from dmasync.harness.formats.names import WHOLE
from dmasync.harness.formats.results import Outcome, Result, whole
from dmasync.harness.runs.facts import INSTRUCTIONS

COUNTS = {
    "regressed": (Outcome.FAIL,),
    "not-judged": (Outcome.UNKNOWN, Outcome.MISSING),
}
"""How many rows have one of these outcomes, by the name of the count."""


def bencher(results: Sequence[Result]) -> str:
    """Bencher Metric Format: by name and measure, the value and the quartiles of its rounds."""
    document: dict[str, dict[str, dict[str, int | float]]] = {
        WHOLE: {name: {"value": count} for name, count in _counts(results).items()}
    }
    for result in _told(results):
        row = result.measured
        if row is None or result.value is None:
            continue
        measure = INSTRUCTIONS if row.is_exact_clock else "latency"  # Bencher's own measure of nanoseconds
        document[result.name] = {
            measure: {
                "value": result.value,
                "lower_value": min(result.value, whole(row.q1 * 1e9)),
                "upper_value": max(result.value, whole(row.q3 * 1e9)),
            }
        }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def action_benchmark(results: Sequence[Result]) -> str:
    """For github-action-benchmark's tool ``customSmallerIsBetter``."""
    entries: list[dict[str, object]] = [
        {"name": f"{WHOLE}.{name}", "unit": "rows", "value": count} for name, count in _counts(results).items()
    ]
    for result in _told(results):
        row = result.measured
        if row is None or result.value is None:
            continue
        spread = whole(row.iqr * 1e9)
        entries.append(
            {
                "name": result.name,
                "unit": result.unit,
                "value": result.value,
                "range": f"{spread} between the quartiles",
                "extra": result.sentence,
            }
        )
    return json.dumps(entries, indent=1, allow_nan=False) + "\n"


def _told(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.outcome in (Outcome.PASS, Outcome.FAIL, Outcome.NEW)]


def _counts(results: Sequence[Result]) -> dict[str, int]:
    rows = [result for result in results if result.name != WHOLE]
    found = {name: sum(row.outcome in outcomes for row in rows) for name, outcomes in COUNTS.items()}
    if not rows or (results[0].outcome is Outcome.UNKNOWN and not found["not-judged"]):
        found["not-judged"] += 1  # the whole: nothing in common, or a base that does not equal itself
    return found
