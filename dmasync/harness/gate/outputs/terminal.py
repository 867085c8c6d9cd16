"""The judgement as a table for a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmasync.harness.judge.groups import by_buffer, by_reason, command_lines
from dmasync.harness.judge.verdict import Judgement, Side, Verdict
from dmasync.harness.judge.words import amount, difference, factor, interval, kernel_amounts, short
from dmasync.harness.runs.reading import printable

_STYLES = {
    Verdict.REGRESSED: "bold red",
    Verdict.IMPROVED: "green",
    Verdict.SAME: "",
    Verdict.CANNOT_TELL: "yellow",
}
_WIDTH_OF_A_FILE = 240  # as wide as no terminal: a row stays on its line


def print_judgement(judgement: Judgement, stream: TextIO | None = None) -> None:
    """Print the table, then what could not be compared, then one line that sums it up."""
    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _WIDTH_OF_A_FILE)
    for name, side in (("base", judgement.base), ("candidate", judgement.candidate)):
        console.print(Text(f"{name:9}  {_described(side)}"), soft_wrap=True)
    if changed := command_lines(judgement.base, judgement.candidate):
        console.print(Text(f"candidate's command line: {printable(changed)}"), soft_wrap=True)
    for warning in judgement.warnings:
        console.print(Text(f"warning: {printable(warning)}", style="yellow"), soft_wrap=True)
    if judgement.rows:
        console.print(_table(judgement))
    for rows, what in (
        (judgement.vanished, "vanished"),
        (judgement.not_comparable, "not comparable"),
        (judgement.appeared, "new"),
    ):
        for reason, names in by_reason(rows).items():
            console.print(Text(f"{what}: {len(names)}: {printable(reason)}:"), soft_wrap=True)
            for name in names:
                console.print(Text(f"    {printable(name)}"), soft_wrap=True)
    if judgement.self_check is not None:
        console.print(Text(f"self-check: {printable(judgement.self_check)}"), soft_wrap=True)
    for sentence in by_buffer(judgement):
        console.print(Text(printable(sentence)), soft_wrap=True)
    console.print(Text(judgement.summary, style="bold"), soft_wrap=True)


def _table(judgement: Judgement) -> Table:
    table = Table(header_style="bold")
    table.add_column("row", overflow="fold")
    for column in ("base", "candidate", "change", "", "interval", "kernel's part"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for row in judgement.rows:
        verdict = row.verdict.value + (f": {row.reason}" if row.reason else "")
        table.add_row(
            Text(short(row.fullname)),
            amount(row.base, row.unit),
            amount(row.candidate, row.unit),
            difference(row),
            factor(row),
            interval(row),
            kernel_amounts(row.kernel_base, row.kernel_candidate, row.unit),
            Text(printable(verdict), style=_STYLES[row.verdict]),
        )
    return table


def _described(side: Side) -> str:
    parts = [", ".join(side.files), f"kernel {side.kernel}" if side.kernel else "", side.python or ""]
    return printable("; ".join(part for part in parts if part))
