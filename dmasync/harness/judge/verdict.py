"""What the gate says: a verdict a row, what could not be compared, and the exit status of the whole."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.runs.facts import RowFacts


class Verdict(str, enum.Enum):
    REGRESSED = "regressed"
    IMPROVED = "improved"
    SAME = "same"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class JudgedRow:
    """One row that both sides have.

    ``base`` and ``candidate`` are the medians in the row's unit (instructions, or nanoseconds for wall rows);
    ``ratio`` is candidate over base with its confidence interval ``low`` to ``high`` (all equal on the exact
    clock when every round took the same number). ``allowance`` is the largest ratio that passes.
    ``kernel_base`` and ``kernel_candidate`` are the kernel's part, None where no null row tells it.
    """

    fullname: str
    facts: RowFacts
    verdict: Verdict
    base: float
    candidate: float
    ratio: float
    low: float
    high: float
    allowance: float
    reason: str = ""
    base_iqr: float = 0.0
    candidate_iqr: float = 0.0
    kernel_base: float | None = None
    kernel_candidate: float | None = None

    @property
    def difference(self) -> float:
        return self.candidate - self.base

    @property
    def unit(self) -> str:
        return "instructions" if self.facts.unit == "instructions" else "ns"


@dataclass(frozen=True)
class UnjudgedRow:
    """A row that could not be compared, with the reason."""

    fullname: str
    reason: str


@dataclass(frozen=True)
class Side:
    """One side of the comparison as the reports show it."""

    files: tuple[str, ...]
    kernel: str | None
    python: str | None
    machine: str | None
    commit: str | None
    command_line: str | None
    config_digest: str | None
    moment: str | None
    append: tuple[str, ...] | None = None
    """The kernel arguments that were asked for; None where the run does not tell."""


@dataclass(frozen=True)
class Judgement:
    """The whole comparison. ``vanished`` holds rows that the base had and the candidate lacks."""

    base: Side
    candidate: Side
    rows: Sequence[JudgedRow]
    vanished: Sequence[UnjudgedRow] = ()
    appeared: Sequence[UnjudgedRow] = ()
    not_comparable: Sequence[UnjudgedRow] = ()
    warnings: Sequence[str] = field(default=())
    self_check: str | None = None
    """None: not asked for; ``same``; or why the base does not equal itself (then nothing is judged)."""
    kernel_warnings: Sequence[str] = ()
    """What the candidate's kernel warned of and the base's did not, a line each."""
    fail_on_warning: bool = False
    """Whether such a candidate is not good."""

    @property
    def status(self) -> ExitStatus:
        """1 for a regression, else 3 where something could not be judged, else 0: it fails closed."""
        if self.self_check not in (None, Verdict.SAME.value):
            return ExitStatus.CANNOT_JUDGE
        verdicts = {row.verdict for row in self.rows}
        if Verdict.REGRESSED in verdicts or (self.fail_on_warning and self.kernel_warnings):
            return ExitStatus.REGRESSION
        if not verdicts or Verdict.CANNOT_TELL in verdicts or self.vanished or self.not_comparable:
            return ExitStatus.CANNOT_JUDGE
        return ExitStatus.GOOD

    @property
    def summary(self) -> str:
        """One sentence: what the status says and why."""
        if self.self_check not in (None, Verdict.SAME.value):
            return f"cannot judge: the base does not equal itself ({self.self_check})"
        failing = self.kernel_warnings if self.fail_on_warning else ()
        counted = [f"the candidate's kernel warned ({failing[0]})"] if failing else []
        counted += [f"{count} {verdict.value}" for verdict in Verdict if (count := self.count(verdict))]
        for rows, name in ((self.vanished, "vanished"), (self.not_comparable, "not comparable")):
            if rows:
                # Beside the rows that were judged, not among them.
                counted.append(f"{len(rows)} {'more ' if self.rows else ''}{name}")
        if self.appeared:
            counted.append(f"{len(self.appeared)} new")
        words = {
            ExitStatus.GOOD: "good",
            ExitStatus.REGRESSION: "regressed",
            ExitStatus.CANNOT_JUDGE: "cannot judge",
        }
        what = ", ".join(counted) or "nothing was measured"
        if not self.rows and counted:
            what = f"no row in common ({what})"
        return f"{words[self.status]}: {what}"

    def count(self, verdict: Verdict) -> int:
        return sum(row.verdict is verdict for row in self.rows)
