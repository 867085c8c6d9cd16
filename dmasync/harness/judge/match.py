"""Find the rows that may be compared: same name, same facts on both sides. The rest is listed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dmasync.harness.judge.verdict import UnjudgedRow
from dmasync.harness.runs.facts import BOUNCE_LIMIT, BOUNCED, COMPARED_FACTS, NotMeasured, RowFacts
from dmasync.harness.runs.reading import Row, Run

_MOST_NAMES = 3


@dataclass(frozen=True)
class Matched:
    """One row, once per run of either side, in the runs' order."""

    fullname: str
    base: tuple[Row, ...]
    candidate: tuple[Row, ...]


@dataclass(frozen=True)
class Match:
    rows: tuple[Matched, ...]
    vanished: tuple[UnjudgedRow, ...]
    appeared: tuple[UnjudgedRow, ...]
    not_comparable: tuple[UnjudgedRow, ...]


def match(base: Sequence[Run], candidate: Sequence[Run]) -> Match:
    """Sort the rows of both sides. A row must be in every run of a side to count as there."""
    names = list(dict.fromkeys(name for run in (*base, *candidate) for name in run.rows))
    matched, vanished, appeared, not_comparable = [], [], [], []
    for name in names:
        here = tuple(run.rows[name] for run in base if name in run.rows)
        there = tuple(run.rows[name] for run in candidate if name in run.rows)
        if not here:
            appeared.append(UnjudgedRow(name, _why_missing(name, base, 0)))
        elif len(there) < len(candidate):
            vanished.append(UnjudgedRow(name, _why_missing(name, candidate, len(there))))
        elif len(here) < len(base):
            not_comparable.append(UnjudgedRow(name, f"only in {len(here)} of the base's {len(base)} runs"))
        elif difference := _difference(here + there):
            not_comparable.append(UnjudgedRow(name, difference))
        else:
            matched.append(Matched(name, here, there))
    return Match(tuple(matched), tuple(vanished), tuple(appeared), tuple(not_comparable))


def by_machine(found: Match, apart: str) -> Match:
    """*found* without the wall rows: *apart* says how the machines differ that measured them.

    The exact clock is the emulator's, whatever it runs on.
    """
    reason = f"different machines: {apart} (--same-machine judges them as one)"
    lost = [UnjudgedRow(row.fullname, reason) for row in found.rows if not row.base[0].is_exact_clock]
    kept = tuple(row for row in found.rows if row.base[0].is_exact_clock)
    return replace(found, rows=kept, not_comparable=(*found.not_comparable, *lost))


def never_measured(base: Sequence[Run], candidate: Sequence[Run]) -> list[str]:
    """What the suite has and neither side could measure: a sentence a reason, since one reason takes many rows."""
    measured = {name for run in (*base, *candidate) for name in run.rows}
    lost = {row.fullname: row for run in (*base, *candidate) for row in run.facts.not_measured}
    return by_reason([row for row in lost.values() if row.fullname not in measured])


def by_reason(rows: Iterable[NotMeasured | UnjudgedRow]) -> list[str]:
    """*rows* in sentences, those of one reason together: ``no such node: a, b and 40 more rows``."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row.reason, []).append(row.fullname)
    return [f"{reason}: {_listed(group)}" for reason, group in names.items()]


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: _MOST_NAMES - 1])} and {len(names) - _MOST_NAMES + 1} more rows"


def _why_missing(name: str, runs: Sequence[Run], found: int) -> str:
    reasons = [row.reason for run in runs for row in run.facts.not_measured if row.fullname == name]
    if reasons:
        return reasons[0] + _explained(reasons[0], runs)
    return f"only in {found} of {len(runs)} runs" if found else "not in the file"


def _explained(reason: str, runs: Sequence[Run]) -> str:
    """What a file of an older version does not say of an error that bounce buffers make."""
    bounced = any(BOUNCED in (run.facts.kernel_command_line or "").split() for run in runs)
    return f" ({BOUNCE_LIMIT})" if bounced and "[Errno 5]" in reason and BOUNCED not in reason else ""


def _difference(rows: Sequence[Row]) -> str:
    """Which facts differ among *rows*, in words; empty when none does."""
    differing = []
    for fact in COMPARED_FACTS:
        values = list(dict.fromkeys(getattr(row.facts, fact) for row in rows))
        if len(values) > 1:
            differing.append(f"{fact} {' and '.join(_said(value) for value in values)}")
    return "different " + ", ".join(differing) if differing else ""


def _said(value: object) -> str:
    return "unknown" if value is None else str(value)


def comparable_facts(facts: RowFacts) -> tuple[object, ...]:
    """What two rows must have in common to be compared."""
    return tuple(getattr(facts, fact) for fact in COMPARED_FACTS)
