"""Numbers and names in words, the same in every output."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dmasync.harness.judge.verdict import JudgedRow
from dmasync.harness.runs.facts import END, FIRST_START, START, RowFacts
from dmasync.harness.runs.reading import Row, printable

_WALL_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))


def amount(value: float | None, unit: str) -> str:
    """*value* instructions or nanoseconds as a person reads it: ``5,649``, ``31.7 µs``; empty for None."""
    if value is None:
        return ""
    if unit == "instructions":
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    scale, name = next(((s, n) for s, n in _WALL_UNITS if abs(value) >= s), _WALL_UNITS[-1])
    return f"{value / scale:,.4g} {name}"


def difference(row: JudgedRow) -> str:
    """How much was added, signed, with its unit on the exact clock: ``+38 instructions``."""
    text = amount(abs(row.difference), row.unit)
    sign = "+" if row.difference > 0 else "-" if row.difference < 0 else "±"
    return f"{sign}{text}{' instructions' if row.unit == 'instructions' else ''}"


def factor(row: JudgedRow) -> str:
    """The ratio as a factor from 1.5 on, else as a signed percentage."""
    if not math.isfinite(row.ratio):
        return "?"
    if row.ratio >= 1.5:
        return f"x{row.ratio:,.3g}" if row.ratio < 1000 else f"x{row.ratio:,.0f}"
    percent = (row.ratio - 1) * 100
    return f"{percent:+.{2 if abs(percent) < 1 else 1}f} %"


def factors(least: JudgedRow, most: JudgedRow) -> str:
    """The ratios of several rows in one unit: ``x1.39 … x890`` or ``+5.0 % … +10.0 %``; one where they read alike."""
    low, high = factor(least), factor(most)
    if low.startswith("x") != high.startswith("x") and math.isfinite(least.ratio) and math.isfinite(most.ratio):
        low, high = (f"x{row.ratio:,.3g}" if row.ratio < 1000 else f"x{row.ratio:,.0f}" for row in (least, most))
    return low if low == high else f"{low} … {high}"


def interval(row: JudgedRow) -> str:
    """The confidence interval of a wall row's ratio; empty on the exact clock, where there is none."""
    if row.unit == "instructions" and row.low == row.high:
        return ""
    if not math.isfinite(row.high) or row.high > 1e6:
        return f"{row.low:.3f} … ?"
    return f"{row.low:.3f} … {row.high:.3f}"


def in_days(days: float) -> str:
    """``7 days``, ``1 day``, ``0.5 days``."""
    number = f"{round(days)}" if days >= 1 else f"{days:g}"
    return f"{number} {'day' if number == '1' else 'days'}"


def kernel_amounts(before: float | None, after: float | None, unit: str) -> str:
    """The kernel's part on both sides: ``174 → 212``."""
    return "" if before is None or after is None else f"{amount(before, unit)} → {amount(after, unit)}"


def short(fullname: str) -> str:
    """A row's name without the folder of its file, on one line."""
    return printable(fullname.rsplit("/", 1)[-1] if "[" not in fullname else _without_folder(fullname))


def described(row: JudgedRow | Row) -> str:
    """A row in the words of its facts, ``START READ of 1 MiB udmabuf``; else its name."""
    return kind_of_row([row.facts], row.fullname)


_ATTACHED = {True: ", attached", False: ", not attached", None: ""}
_STEPS = {START: "START", END: "END", FIRST_START: "first START"}


def step_in_words(step: str) -> str:
    """``START`` and ``first START``; any other as it is, with blanks."""
    return _STEPS.get(step, step.replace("-", " "))


def buffer_kind(facts: RowFacts) -> str:
    """The kind of buffer, ``udmabuf`` or ``system, attached``; empty where the row has none."""
    # A udmabuf needs no importer: its own device has mapped it.
    attached = None if facts.provider == "udmabuf" else facts.attached
    return f"{facts.provider or ''}{_ATTACHED[attached]}"


def kind_of_row(rows: Sequence[RowFacts], fullname: str) -> str:
    """What *rows* of one step and one kind of buffer have in common: ``START READ of 1 MiB udmabuf``.

    *fullname* of the first stands for rows that say nothing about themselves.
    """
    first = rows[0]
    if first.step is None or first.provider is None:
        return short(fullname)
    accesses, sizes, interfaces = ({getattr(row, name) for row in rows} for name in ("access", "size", "api"))
    access = f" {first.access}" if accesses == {first.access} and first.access else ""
    size = f"{bytes_in_words(first.size)} " if len(sizes) == 1 and first.size is not None else ""
    usual = first.api in (None, "fcntl") or len(interfaces) > 1
    interface = "" if usual else f", {first.api}"
    return printable(f"{step_in_words(first.step)}{access} of {size}{buffer_kind(first)}{interface}")


def bytes_in_words(size: float) -> str:
    """4096 as ``4 KiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:g} {unit}"
        size /= 1024
    return f"{size:g} GiB"


def _without_folder(fullname: str) -> str:
    head, bracket, parameters = fullname.partition("[")
    return head.rsplit("/", 1)[-1] + bracket + parameters
