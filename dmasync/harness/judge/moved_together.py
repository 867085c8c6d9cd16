"""Rows that moved alike as one, and what a change comes down to: START of udmabuf +120, END -15."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dmasync.harness.judge.verdict import JudgedRow, Judgement, Verdict
from dmasync.harness.judge.words import amount, buffer_kind, factor, factors, kind_of_row, step_in_words
from dmasync.harness.runs.facts import END, FIRST_START, PAIR, START

_MOST_CAUSES = 4
_FEW_INSTRUCTIONS = 2
_ALIKE_EXACT = 0.05
_ALIKE_WALL = 0.25
"""How far, of the change itself, two changes may be apart and still be alike."""


@dataclass(frozen=True)
class Alike:
    """Rows of one step and one kind of buffer that moved by the same; what moved most comes first."""

    rows: tuple[JudgedRow, ...]
    of: int
    """How many rows of that step and buffer were judged."""

    @property
    def name(self) -> str:
        """What the rows have in common: ``START READ of 1 MiB udmabuf``, ``START of udmabuf (all 9 rows)``."""
        named = kind_of_row([row.facts for row in self.rows], self.rows[0].fullname)
        if len(self.rows) == 1:
            return named
        return f"{named} ({'all ' if len(self.rows) == self.of else ''}{len(self.rows)} rows)"


def alike(rows: Iterable[JudgedRow], judged: Sequence[JudgedRow]) -> list[Alike]:
    """*rows* (of one verdict) in groups that moved alike, what moved most first; *judged* are all rows."""
    kinds: dict[tuple[object, ...], list[JudgedRow]] = {}
    for row in sorted(rows, key=moved, reverse=True):
        kinds.setdefault(_kind(row), []).append(row)
    groups = []
    for kind, waiting in kinds.items():
        count = sum(_kind(row)[1:] == kind[1:] for row in judged)
        while waiting:
            first = waiting[0]
            groups.append(Alike(tuple(row for row in waiting if _moved_alike(first, row)), count))
            waiting = [row for row in waiting if not _moved_alike(first, row)]
    return sorted(groups, key=lambda group: moved(group.rows[0]), reverse=True)


def moved(row: JudgedRow) -> float:
    """How far, as a factor either way."""
    return abs(math.log(row.ratio)) if 0 < row.ratio < math.inf else math.inf


def headline(judgement: Judgement) -> str:
    """The judgement in one sentence: what changed and by how much, then how many rows have which verdict."""
    told = causes(judgement)
    word, _, counts = judgement.summary.partition(": ")
    return f"{word}: {', '.join(told)}; {counts}" if told else judgement.summary


def causes(judgement: Judgement) -> list[str]:
    """What changed, by step and kind of buffer, worst first: ``START of udmabuf +120 (+6.2 %)``, ``END -15 (-1 %)``."""
    changed: dict[tuple[str, str], list[JudgedRow]] = {}
    for row in judgement.rows:
        if row.verdict in (Verdict.REGRESSED, Verdict.IMPROVED):
            changed.setdefault((buffer_kind(row.facts), row.facts.step or row.fullname), []).append(row)
    steps = {buffer for buffer, step in changed if step in (START, END, FIRST_START)}
    # A pair is a START and an END: where those are told, it says nothing new.
    told = {key: rows for key, rows in changed.items() if not (key[1].startswith(PAIR) and key[0] in steps)}
    most: dict[str, tuple[bool, float]] = {}
    for (buffer, _), rows in told.items():
        most[buffer] = max(most.get(buffer, (False, 0.0)), *map(_weight, rows))
    sentences, last = [], ""
    order = sorted(
        told.items(), key=lambda item: (most[item[0][0]], item[0][0], max(map(_weight, item[1]))), reverse=True
    )
    for (buffer, step), rows in order:
        name = step_in_words(step) if rows[0].facts.step else kind_of_row([rows[0].facts], rows[0].fullname)
        subject = f"{name} of {buffer}" if buffer and buffer != last and rows[0].facts.step else name
        sentences.append(f"{subject} {_change(rows)}")
        last = buffer
    more = len(sentences) - _MOST_CAUSES
    return [*sentences[:_MOST_CAUSES], f"and {more} more"] if more > 1 else sentences


def _weight(row: JudgedRow) -> tuple[bool, float]:
    return row.verdict is Verdict.REGRESSED, moved(row)


def _change(rows: Sequence[JudgedRow]) -> str:
    """By how much *rows* changed: in instructions where that is one number, as a factor or percent, or from to."""
    ordered = sorted(rows, key=lambda row: row.ratio)
    ratios = factors(ordered[0], ordered[-1])
    differences = {round(row.difference) for row in rows}
    if rows[0].unit == "instructions" and max(differences) - min(differences) <= _FEW_INSTRUCTIONS:
        middle = ordered[len(ordered) // 2]
        return f"{signed(middle.difference, middle.unit)} ({factor(middle)})"
    return ratios


def signed(difference: float, unit: str) -> str:
    """``+120``, ``-31.7 µs``."""
    sign = "+" if difference > 0 else "-" if difference < 0 else "±"
    return f"{sign}{amount(abs(difference), unit)}"


def _kind(row: JudgedRow) -> tuple[object, ...]:
    facts = row.facts
    if facts.step is None or facts.provider is None:
        return row.reason, row.unit, row.fullname
    return row.reason, row.unit, facts.step, buffer_kind(facts)


def _moved_alike(first: JudgedRow, row: JudgedRow) -> bool:
    if first.unit == "instructions":
        few = max(_FEW_INSTRUCTIONS, _ALIKE_EXACT * abs(first.difference))
        if abs(first.difference - row.difference) <= few:
            return True
    part = _ALIKE_EXACT if first.unit == "instructions" else _ALIKE_WALL
    a, b = (math.log(one.ratio) if 0 < one.ratio < math.inf else math.inf for one in (first, row))
    return a == b or abs(a - b) <= part * abs(a)
