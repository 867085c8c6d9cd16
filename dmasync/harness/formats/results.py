"""What a lab is told of each row, the same in every format: a result, an amount and a sentence.

No format may turn "cannot tell" into a pass. What could not be judged is its own result here, and each format says it
in the word that it has for "nobody knows".
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.formats.names import WHOLE, dotted
from dmasync.harness.judge.verdict import JudgedRow, Judgement, Verdict
from dmasync.harness.judge.words import amount, difference, factor
from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.runs.reading import Row, Run, printable


class Outcome(enum.Enum):
    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    UNKNOWN = "unknown"
    """Measured, but nobody can tell."""
    MISSING = "missing"
    """The base had the row and the candidate lacks it."""
    NEW = "new"
    """Measured, and there is nothing to compare it with."""


@dataclass(frozen=True)
class Result:
    """One row (or the whole) as a lab reads it; *measured* is the candidate's row where there is one."""

    name: str
    fullname: str
    outcome: Outcome
    sentence: str
    judged: JudgedRow | None = None
    measured: Row | None = None

    @property
    def unit(self) -> str | None:
        """``instructions`` or ``ns``; None where nothing was measured."""
        return None if self.measured is None else INSTRUCTIONS if self.measured.is_exact_clock else "ns"

    @property
    def value(self) -> int | float | None:
        """The candidate's amount in ``unit``; a whole number stays one."""
        if self.judged is not None:
            return whole(self.judged.candidate)
        return None if self.measured is None else whole(self.measured.median * 1e9)


_OUTCOMES = {
    Verdict.REGRESSED: Outcome.FAIL,
    Verdict.IMPROVED: Outcome.PASS,
    Verdict.SAME: Outcome.PASS,
    Verdict.CANNOT_TELL: Outcome.UNKNOWN,
}
_WHOLE = {
    ExitStatus.GOOD: Outcome.PASS,
    ExitStatus.REGRESSION: Outcome.FAIL,
    ExitStatus.CANNOT_JUDGE: Outcome.UNKNOWN,
}


def results(judgement: Judgement, candidate: Sequence[Run]) -> list[Result]:
    """The whole first, then every row that either side has, each name once."""
    measured = {name: row for run in reversed(candidate) for name, row in run.rows.items()}
    found = [Result(WHOLE, "the comparison as a whole", _WHOLE[judgement.status], printable(judgement.summary))]
    for row in judgement.rows:
        found.append(
            Result(
                dotted(row.fullname),
                row.fullname,
                _OUTCOMES[row.verdict],
                _sentence(row),
                row,
                measured.get(row.fullname),
            )
        )
    for rows, what, outcome in (
        (judgement.vanished, "vanished", Outcome.MISSING),
        (judgement.not_comparable, "not comparable", Outcome.UNKNOWN),
        (judgement.appeared, "new, nothing to compare with", Outcome.NEW),
    ):
        for lost in rows:
            sentence = printable(f"{what}: {lost.reason}")
            row_measured = None if outcome is Outcome.MISSING else measured.get(lost.fullname)
            found.append(Result(dotted(lost.fullname), lost.fullname, outcome, sentence, None, row_measured))
    return found


def whole(value: float) -> int | float:
    """A number as JSON should have it: on the exact clock an integer stays an integer."""
    rounded = round(value, 6)
    return int(rounded) if rounded.is_integer() else rounded


def _sentence(row: JudgedRow) -> str:
    reason = f": {row.reason}" if row.reason else ""
    before, after = amount(row.base, row.unit), amount(row.candidate, row.unit)
    return printable(f"{row.verdict.value}: {before} to {after}, {difference(row)} ({factor(row)}){reason}")
