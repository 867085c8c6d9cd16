"""What happened to each kind of buffer, in a sentence each: what a reader wants to know before single rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dmasync.harness.judge.verdict import JudgedRow, Judgement, Side, UnjudgedRow, Verdict
from dmasync.harness.judge.words import amount, buffer_kind, factors
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


_OWN_WORD = re.compile(r"virtme|/virtme-init-|init=\S*virtme|no_timer_check$")
"""What virtme-ng adds for itself: where the modules lie, and a guest's first program, which lies below the folder of
virtme-ng or has another name in every boot. And what an emulated guest needs to boot on a busy host.
"""


def command_lines(base: Side, candidate: Side) -> str:
    """What the candidate's kernel command line has more and less than the base's; empty where they are the same.

    Where both runs say what was asked for (--append), that alone: the rest of the line is the harness's own.
    """
    before, after = map(words_of, (base, candidate))
    if base.append is not None and candidate.append is not None:
        before, after = set(base.append), set(candidate.append)
    added, removed = " ".join(sorted(after - before)), " ".join(sorted(before - after))
    return " ".join(
        part for part in (f"with {added}" if added else "", f"without {removed}" if removed else "") if part
    )


def words_of(side: Side) -> set[str]:
    """The words of its kernel command line, without what is added to boot it."""
    return {word for word in (side.command_line or "").split() if not _OWN_WORD.match(word)}


def _subject(facts: RowFacts) -> str:
    return "" if facts.provider is None else buffer_kind(facts)


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
    ratios = factors(least, most)
    differences = sorted({abs(row.difference) for row in moved})
    if most.unit != "instructions":
        return ratios
    sign = "+" if most.difference > 0 else "-"
    if len(differences) == 1:
        return f"each {sign}{amount(differences[0], most.unit)} instructions ({ratios})"
    low, high = (amount(value, most.unit) for value in (differences[0], differences[-1]))
    return f"{ratios} ({sign}{low} to {sign}{high} instructions)"
