"""The judgement for a terminal: what changed first. Elsewhere every row, one a line, as wide as it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from dmasync.harness.console import Column, console, fits, print_table
from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.judge.by_buffer_kind import by_buffer, by_reason, command_lines
from dmasync.harness.judge.moved_together import Alike, alike, headline, moved, signed
from dmasync.harness.judge.verdict import JudgedRow, Judgement, Side, UnjudgedRow, Verdict
from dmasync.harness.judge.words import amount, difference, factor, interval, kernel_amounts, short
from dmasync.harness.runs.reading import printable

_STYLES = {
    Verdict.REGRESSED: "bold red",
    Verdict.IMPROVED: "green",
    Verdict.SAME: "",
    Verdict.CANNOT_TELL: "yellow",
}
_ORDER = (Verdict.REGRESSED, Verdict.IMPROVED, Verdict.CANNOT_TELL, Verdict.SAME)
_MARKS = {
    ExitStatus.GOOD: ("\N{HEAVY CHECK MARK}", "OK", "bold green"),
    ExitStatus.REGRESSION: ("\N{HEAVY BALLOT X}", "BAD", "bold red"),
    ExitStatus.CANNOT_JUDGE: ("?", "?", "bold yellow"),
}
_FEW_NAMES = 3


def print_judgement(judgement: Judgement, stream: TextIO | None = None, *, everything: bool = False) -> None:
    """Print the rows, then what could not be compared, then one line that sums it up.

    On a terminal rows that moved alike are one line, and those that are the same are counted, unless *everything*.
    """
    stream = stream or sys.stdout
    shown = console(stream)
    everything = everything or not shown.is_terminal

    def say(text: str, style: str = "") -> None:
        shown.print(Text(printable(text), style=style), soft_wrap=True)

    for name, side in (("base", judgement.base), ("candidate", judgement.candidate)):
        say(f"{name:9}  {_described(side)}")
    if changed := command_lines(judgement.base, judgement.candidate):
        say(f"candidate's command line: {changed}")
    for warning in judgement.warnings:
        say(f"warning: {warning}", "yellow")
    if judgement.rows and shown.is_terminal:
        _print_changes(shown, judgement, everything)
    elif judgement.rows:
        _print_every_row(shown, judgement)
    for rows, what in (
        (judgement.vanished, "vanished (only in the base)"),
        (judgement.not_comparable, "not comparable"),
        (judgement.appeared, "new (only in the candidate)"),
    ):
        for line in _unjudged(rows, what, everything):
            say(line)
    if judgement.self_check is not None:
        say(f"self-check: {judgement.self_check}")
    if everything:
        for sentence in by_buffer(judgement):
            say(sentence)
    mark, word, style = _MARKS[judgement.status]
    say(f"{mark if _can_show(mark, stream) else word} {headline(judgement)}", style)


def _print_every_row(shown: Console, judgement: Judgement) -> None:
    columns = [Column("row"), *(Column(name, number=True) for name in ("base", "candidate", "change", "", "interval"))]
    columns += [Column("kernel's part", number=True), Column("verdict")]
    rows = sorted(judgement.rows, key=lambda row: (_ORDER.index(row.verdict), -moved(row)))
    table = [
        (
            short(row.fullname),
            amount(row.base, row.unit),
            amount(row.candidate, row.unit),
            difference(row),
            factor(row),
            interval(row),
            kernel_amounts(row.kernel_base, row.kernel_candidate, row.unit),
            printable(row.verdict.value + (f": {row.reason}" if row.reason else "")),
        )
        for row in rows
    ]
    print_table(shown, columns, table)


def _print_changes(shown: Console, judgement: Judgement, everything: bool) -> None:
    told = "in instructions" if {row.unit for row in judgement.rows} == {"instructions"} else ""
    columns = [Column(told), *(Column(name, number=True) for name in ("base", "candidate", "change", ""))]
    with_ranges, styles = _lines(judgement, everything, ranges=True)
    lines = with_ranges if fits(shown, columns, with_ranges) else _lines(judgement, everything, ranges=False)[0]
    print_table(shown, columns, lines, styles)
    same = judgement.count(Verdict.SAME)
    if same and not everything:
        shown.print(Text(f"same: {same} of {len(judgement.rows)} rows (--all lists them)"), soft_wrap=True)


def _lines(judgement: Judgement, everything: bool, *, ranges: bool) -> tuple[list[Sequence[str] | str], list[str]]:
    """The rows of the table under a heading a verdict, and their styles.

    Rows that moved alike from different numbers have them as a range, or not at all.
    """
    lines: list[Sequence[str] | str] = []
    styles: list[str] = []
    for verdict in _ORDER:
        rows = sorted((row for row in judgement.rows if row.verdict is verdict), key=moved, reverse=True)
        if not rows or (verdict is Verdict.SAME and not everything):
            continue
        lines.append(f"{verdict.value}: {len(rows)} of {len(judgement.rows)} rows")
        styles.append(f"bold {_STYLES[verdict].removeprefix('bold ')}".strip())
        groups = [Alike((row,), 1) for row in rows] if everything else alike(rows, judgement.rows)
        reason = ""
        # What cannot be told has reasons: rows of one reason stand together.
        for group in sorted(groups, key=lambda one: one.rows[0].reason):
            if group.rows[0].reason != reason:
                reason = group.rows[0].reason
                lines.append(f"  {printable(reason)}:")
                styles.append("")
            lines.append((f"  {'  ' if reason else ''}{group.name}", *_numbers(group.rows, ranges)))
            styles.append(_STYLES[verdict])
    return lines, styles


def _numbers(rows: Sequence[JudgedRow], ranges: bool) -> tuple[str, str, str, str]:
    """Base, candidate, change and ratio of rows that moved alike: one number, or from to."""

    def span(values: Sequence[float], texts: Sequence[str], shown: bool = True) -> str:
        ordered = [text for _, text in sorted(zip(values, texts, strict=True))]
        if ordered[0] == ordered[-1]:
            return ordered[0]
        return f"{ordered[0]}…{ordered[-1]}" if shown else ""

    unit = rows[0].unit
    base, candidate = [row.base for row in rows], [row.candidate for row in rows]
    changes, ratios = [row.difference for row in rows], [row.ratio for row in rows]
    ratio = span(ratios, [factor(row) for row in rows])
    change = span(changes, [signed(value, unit) for value in changes], ranges)
    return (
        span(base, [amount(value, unit) for value in base], ranges),
        span(candidate, [amount(value, unit) for value in candidate], ranges),
        change,
        ratio,
    )


def _unjudged(rows: Sequence[UnjudgedRow], what: str, everything: bool) -> list[str]:
    lines = []
    for reason, names in by_reason(rows).items():
        lines.append(f"{what}: {len(names)} rows: {reason}:")
        few = names if everything or len(names) <= _FEW_NAMES else names[: _FEW_NAMES - 1]
        lines += [f"    {name if everything else short(name)}" for name in few]
        if len(few) < len(names):
            lines.append(f"    and {len(names) - len(few)} more rows (--all lists them)")
    return lines


def _can_show(text: str, stream: TextIO) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _described(side: Side) -> str:
    parts = [", ".join(side.files), f"kernel {side.kernel}" if side.kernel else "", side.python or ""]
    return "; ".join(part for part in parts if part)
