"""A report as plain text, in the form in which kernel lists read one: what moved, by how much, and how to see it."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence

from dmasync.harness.formats.results import Outcome, Result, results
from dmasync.harness.judge.by_buffer_kind import by_buffer, words_of
from dmasync.harness.judge.verdict import JudgedRow, Judgement, Side, Verdict
from dmasync.harness.judge.words import described
from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.runs.reading import Row, Run, printable

_COLUMN = 12
_MOST_NAMES = 5


def mail(judgement: Judgement, base: Sequence[Run], candidate: Sequence[Run]) -> str:
    """Headers and body; the first line is the subject."""
    moved = sorted(
        (row for row in judgement.rows if row.verdict in (Verdict.REGRESSED, Verdict.IMPROVED)),
        key=lambda row: (row.verdict is not Verdict.REGRESSED, -abs(row.ratio - 1)),
    )
    lines = [f"Subject: [dmasync] {_headline(judgement, moved)}", "", printable(judgement.summary) + "."]
    lines += [f"  {printable(sentence)}" for sentence in by_buffer(judgement)]
    lines += ["", *_sides(judgement)]
    if moved:
        lines += ["", *_table(moved, base, candidate)]
    lines += _open(judgement, candidate)
    lines += ["", "how to reproduce:", "", *(f"  {line}" for line in _commands(judgement, moved, candidate))]
    return "\n".join(lines) + "\n"


def _headline(judgement: Judgement, moved: Sequence[JudgedRow]) -> str:
    if moved:
        worst = moved[0]
        return f"{described(worst)} {_change(worst.ratio)} {worst.verdict.value}"
    return printable(judgement.summary)


def _change(ratio: float) -> str:
    percent = (ratio - 1) * 100
    return f"{percent:+.{2 if abs(percent) < 1 else 1}f}%"


def _sides(judgement: Judgement) -> list[str]:
    lines = []
    for name, side in (("base", judgement.base), ("candidate", judgement.candidate)):
        lines.append(f"{name}:")
        lines += [f"  {what + ':':13} {printable(value)}" for what, value in _facts(side) if value]
    return lines + [f"warning: {printable(warning)}" for warning in judgement.warnings]


def _facts(side: Side) -> list[tuple[str, str | None]]:
    return [
        ("commit", side.commit),
        ("kernel", side.kernel),
        ("config", f"sha256 {side.config_digest}" if side.config_digest else None),
        ("command line", side.command_line),
        ("machine", side.machine),
        ("python", side.python),
        ("taken", side.moment),
    ]


def _table(moved: Sequence[JudgedRow], base: Sequence[Run], candidate: Sequence[Run]) -> list[str]:
    amounts = "instructions (no unit) or nanoseconds (ns) per operation"
    lines = [
        f"{'base':>{_COLUMN}} %stddev   %change {'candidate':>{_COLUMN}} %stddev  {amounts}",
        "-" * 78,
    ]
    for row in moved:
        before, after = (
            f"{_amount(value, row.unit):>{_COLUMN}} {_deviation(row.fullname, side):>7}"
            for value, side in ((row.base, base), (row.candidate, candidate))
        )
        lines.append(f"{before} {_change(row.ratio):>9} {after}  {printable(row.fullname)}")
    return lines


def _amount(value: float, unit: str) -> str:
    return f"{value:.6g}" if unit == INSTRUCTIONS else f"{value:.6g}ns"


def _deviation(fullname: str, runs: Sequence[Run]) -> str:
    """The standard deviation of all rounds, in percent of their mean; empty where it is nothing or unknown."""
    rows: list[Row] = [run.rows[fullname] for run in runs if fullname in run.rows]
    rounds = [value for row in rows for value in row.data]
    mean = statistics.fmean(rounds) if rounds else 0.0
    percent = 100 * statistics.pstdev(rounds) / mean if mean else 0.0
    return f"±{percent:.0f}%" if percent >= 0.5 else ""


def _open(judgement: Judgement, candidate: Sequence[Run]) -> list[str]:
    """What nobody can tell: it is no pass, so the mail says so."""
    rows = [row for row in results(judgement, candidate)[1:] if row.outcome in (Outcome.UNKNOWN, Outcome.MISSING)]
    if not rows:
        return []
    more = [f"  and {len(rows) - _MOST_NAMES} more rows"] if len(rows) > _MOST_NAMES else []
    return ["", f"not judged ({len(rows)} rows):", *(_told(row) for row in rows[:_MOST_NAMES]), *more]


def _told(row: Result) -> str:
    return f"  {printable(row.fullname)}: {row.sentence}"


def _commands(judgement: Judgement, moved: Sequence[JudgedRow], candidate: Sequence[Run]) -> list[str]:
    """Commands that measure both sides anew, on the kernels and with the arguments that the files tell."""
    lines = ["python3 -m pip install 'dmabuf-sync[harness]'"]
    row = next(iter(candidate[0].rows.values()), None)
    target = row.facts.target if row else None
    if row is None or target is None:
        return ["(the runs are another project's: measure both sides with its own benchmarks, as base.json and"
                " candidate.json)", *lines, "dmasync gate base.json candidate.json"]  # fmt: skip
    only = [f"--only={printable(one.fullname)}" for one in moved[:1]]
    for name, side in (("base", judgement.base), ("candidate", judgement.candidate)):
        if target == "vm":
            call = ["dmasync", "bench", "--on", "vm", *["--exact"] * row.is_exact_clock]
            kernel = f"KERNEL-{printable(side.kernel or 'unknown')}"
            lines.append(f"# {kernel}: that kernel's bzImage or build tree, or debian:VERSION")
            call += ["--kernel", kernel, *_appended(judgement, side), "-o", f"{name}.json", *only]
        else:
            lines.append(f"# on {printable(side.machine or 'the board')}, kernel {printable(side.kernel or 'unknown')}")
            call = ["dmasync", "bench", "--on", target, "-o", f"{name}.json", *only]
        lines.append(shlex.join(call))
    return [*lines, "dmasync gate base.json candidate.json"]


def _appended(judgement: Judgement, side: Side) -> list[str]:
    """The kernel arguments that were asked for; in files that do not tell, those that this side alone has."""
    other = judgement.base if side is judgement.candidate else judgement.candidate
    words = side.append if side.append is not None else sorted(words_of(side) - words_of(other))
    return [f"--append={printable(word)}" for word in words]
