"""What happened to each kind of buffer, in a sentence each: what a reader wants to know before single rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dmasync.harness.judge.verdict import JudgedRow, Judgement, Side, UnjudgedRow, Verdict
from dmasync.harness.judge.words import amount, factor
from dmasync.harness.runs.facts import RowFacts

_WORDS = {
    Verdict.REGRESSED: ("slower", 1),
    Verdict.IMPROVED: ("faster", -1),
}


def by_buffer(judgement: Judgement) -> list[str]:
    """One sentence a provider; empty where no row names one, as with files of other projects."""
    groups: dict[str, list[JudgedRow]] = {}
    for row in judgement.rows:
        groups.setdefault(_subject(row.facts), []).append(row)
    if set(groups) <= {""}:
        return []
    moved_first = sorted(groups.items(), key=lambda group: not any(row.verdict in _WORDS for row in group[1]))
    return [f"{subject or 'without a buffer'}: {_told(rows)}" for subject, rows in moved_first]


def by_reason(rows: Iterable[UnjudgedRow]) -> dict[str, list[str]]:
    """The names of *rows* under the reason that they have in common."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row.reason, []).append(row.fullname)
    return names


OWN_WORDS = ("virtme", "/virtme-init-")
"""What virtme-ng adds for itself: where the modules lie, and a guest's first program, which has another name in every
boot on a root folder of our own.
"""


def command_lines(base: Side, candidate: Side) -> str:
    """What the candidate's kernel command line has more and less than the base's; empty where they are the same."""
    before, after = (
        {word for word in (side.command_line or "").split() if not word.startswith(OWN_WORDS)}
        for side in (base, candidate)
    )
    added, removed = " ".join(sorted(after - before)), " ".join(sorted(before - after))
    return " ".join(
        part for part in (f"with {added}" if added else "", f"without {removed}" if removed else "") if part
    )


def _subject(facts: RowFacts) -> str:
    if facts.provider is None:
        return ""
    # A udmabuf needs no importer: its own device has mapped it.
    if facts.provider == "udmabuf" or facts.attached is None:
        return facts.provider
    return f"{facts.provider}, {'attached' if facts.attached else 'not attached'}"


def _told(rows: Sequence[JudgedRow]) -> str:
    parts = []
    for verdict, (word, sign) in _WORDS.items():
        moved = sorted((row for row in rows if row.verdict is verdict), key=lambda row: sign * row.ratio)
        if moved:
            parts.append(f"{_of(len(moved), len(rows))} {word}, {_range(moved)}")
    for verdict, word in ((Verdict.SAME, "the same"), (Verdict.CANNOT_TELL, "undecided")):
        if count := sum(row.verdict is verdict for row in rows):
            parts.append(f"{_of(count, len(rows))} {word}")
    return "; ".join(parts)


def _of(count: int, rows: int) -> str:
    if count == rows:
        return f"all {rows} rows" if rows > 1 else "the only row"
    return f"{count} of {rows} rows"


def _range(moved: Sequence[JudgedRow]) -> str:
    least, most = moved[0], moved[-1]
    ratios = factor(least) if factor(least) == factor(most) else f"{factor(least)} to {factor(most)}"
    differences = sorted({abs(row.difference) for row in moved})
    if most.unit != "instructions":
        return ratios
    sign = "+" if most.difference > 0 else "-"
    if len(differences) == 1:
        return f"each {sign}{amount(differences[0], most.unit)} instructions ({ratios})"
    low, high = (amount(value, most.unit) for value in (differences[0], differences[-1]))
    return f"{ratios} ({sign}{low} to {sign}{high} instructions)"
