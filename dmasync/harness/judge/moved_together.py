"""Rows that moved alike as one, and what a change comes down to: START of udmabuf +120, END -15."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dmasync.harness.judge.verdict import JudgedRow, Judgement, Verdict
from dmasync.harness.judge.words import amount, buffer_kind, bytes_in_words, factor, factors, kind_of_row, step_in_words
from dmasync.harness.runs.facts import END, FIRST_START, PAIR, START, RowFacts

_MOST_CAUSES = 4
_MOST_LISTED = 3
_WIDE = 3.0
_ENOUGH_FOR_A_MEDIAN = 3
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
    apart: str = ""
    """What tells them from the others of those."""

    @property
    def name(self) -> str:
        """What the rows have in common: ``START READ of 1 MiB udmabuf``, ``START of udmabuf (all 9 rows)``."""
        named = kind_of_row([row.facts for row in self.rows], self.rows[0].fullname)
        if len(self.rows) == 1:
            return named
        apart = f": {self.apart}" if self.apart else ""
        return f"{named} ({'all ' if len(self.rows) == self.of else ''}{len(self.rows)} rows{apart})"


def alike(rows: Iterable[JudgedRow], judged: Sequence[JudgedRow]) -> list[Alike]:
    """*rows* (of one verdict) in groups that moved alike, what moved most first; *judged* are all rows."""
    kinds: dict[tuple[object, ...], list[JudgedRow]] = {}
    for row in sorted(rows, key=moved, reverse=True):
        kinds.setdefault(_kind(row), []).append(row)
    groups = []
    for kind, waiting in kinds.items():
        same_kind = [row.facts for row in judged if _kind(row)[1:] == kind[1:]]
        while waiting:
            first = waiting[0]
            group = tuple(row for row in waiting if _moved_alike(first, row))
            groups.append(Alike(group, len(same_kind), _apart([row.facts for row in group], same_kind)))
            waiting = [row for row in waiting if not _moved_alike(first, row)]
    return sorted(groups, key=lambda group: moved(group.rows[0]), reverse=True)


_DIFFER_IN = ("size", "access", "api")


def _apart(rows: Sequence[RowFacts], others: Sequence[RowFacts]) -> str:
    """What tells *rows* from the *others* of their kind: sizes, accesses and interfaces, else which of each."""
    own, everybody = ({name: {getattr(row, name) for row in side} for name in _DIFFER_IN} for side in (rows, others))
    if len(rows) == sum(all(getattr(row, name) in own[name] for name in _DIFFER_IN) for row in others):
        # One size or access, and one unusual interface, stand in the common name already.
        told = [
            _listed(values, everybody[name])
            for name, values in own.items()
            if values != everybody[name] and (len(values) > 1 or values == {"fcntl"})
        ]
        return ", ".join(told)
    # Only how they are combined is their own.
    parts = [[row.access, bytes_in_words(row.size) if row.size else "", row.api] for row in rows]
    listed = "; ".join(" ".join(filter(None, words)) for words in parts[:_MOST_LISTED])
    return f"{listed} …" if len(parts) > _MOST_LISTED else listed


def _listed(values: set[Any], everybody: set[Any]) -> str:
    """``READ, WRITE``; many sizes as a range, where they are all that lie in it."""
    known = sorted(value for value in values if value is not None)
    words = [bytes_in_words(value) if isinstance(value, int) else str(value) for value in known]
    between = {value for value in everybody if isinstance(value, int) and known[0] <= value <= known[-1]}
    return f"{words[0]} to {words[-1]}" if len(words) > _MOST_LISTED and between == {*known} else ", ".join(words)


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
    ratios = _ratios(ordered)
    differences = {round(row.difference) for row in rows}
    if rows[0].unit == "instructions" and max(differences) - min(differences) <= _FEW_INSTRUCTIONS:
        middle = ordered[len(ordered) // 2]
        return f"{signed(middle.difference, middle.unit)} ({factor(middle)})"
    return ratios


def _ratios(ordered: Sequence[JudgedRow]) -> str:
    """The worst and the usual where the ratios are too far apart for a range to mean anything."""
    least, most = ordered[0], ordered[-1]
    wide = len(ordered) >= _ENOUGH_FOR_A_MEDIAN and least.ratio > 0 and _WIDE < most.ratio / least.ratio < math.inf
    middle = factor(ordered[(len(ordered) - 1) // 2])
    if wide and least.ratio > 1:
        return f"up to {factor(most)} (median {middle})"
    if wide and most.ratio < 1:
        return f"down to {factor(least)} (median {middle})"
    return factors(least, most)


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
