"""The judgement as Markdown for a review comment: what moved first, the rest folded away."""

from __future__ import annotations

import html
from collections.abc import Sequence

from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.judge.by_buffer_kind import by_buffer, by_reason, command_lines
from dmasync.harness.judge.moved_together import headline
from dmasync.harness.judge.verdict import JudgedRow, Judgement, Side, Verdict
from dmasync.harness.judge.words import amount, difference, factor, interval, kernel_amounts, short
from dmasync.harness.runs.reading import printable

_HEAD = (
    "| row | base | candidate | change | ratio | kernel's part | verdict |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
)
_MOST_NAMES = 3
_MARKS = {
    Verdict.REGRESSED: "❌ regressed",
    Verdict.IMPROVED: "✅ improved",
    Verdict.SAME: "same",
    Verdict.CANNOT_TELL: "❔ cannot tell",
}


def markdown(judgement: Judgement) -> str:
    """The whole comment, ending in a newline."""
    mark = {ExitStatus.GOOD: "✅", ExitStatus.REGRESSION: "❌"}.get(judgement.status, "❔")
    lines = [f"### dmasync gate: {_escaped(headline(judgement))} {mark}", ""]
    lines += [f"- base: {_side(judgement.base)}", f"- candidate: {_side(judgement.candidate)}"]
    if changed := command_lines(judgement.base, judgement.candidate):
        lines.append(f"- the candidate's kernel command line: {_code(changed)}")
    lines += [f"- {_escaped(sentence)}" for sentence in by_buffer(judgement)]
    lines += [f"- warning: {_escaped(warning)}" for warning in judgement.warnings]
    if judgement.self_check is not None:
        lines.append(f"- self-check: {_escaped(judgement.self_check)}")
    for rows, what in (
        (judgement.vanished, "vanished"),
        (judgement.not_comparable, "not comparable"),
        (judgement.appeared, "new"),
    ):
        for reason, names in by_reason(rows).items():
            lines.append(f"- {what}: {len(names)}: {_escaped(reason)}: {_listed(names)}")
    moved = [row for row in judgement.rows if row.verdict is not Verdict.SAME]
    steady = [row for row in judgement.rows if row.verdict is Verdict.SAME]
    lines += _table(sorted(moved, key=_most_important))
    if steady:
        folded = ["", f"<details><summary>{len(steady)} rows are the same</summary>"]
        lines += [*folded, *_table(steady), "", "</details>"]
    return "\n".join(lines) + "\n"


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _MOST_NAMES:
        return ", ".join(map(_code, names))
    all_of_them = "".join(f"<br>{_escaped(name)}" for name in names)
    return f"<details><summary>which</summary>{all_of_them}</details>"


def _most_important(row: JudgedRow) -> tuple[int, float]:
    return list(Verdict).index(row.verdict), -row.ratio


def _table(rows: Sequence[JudgedRow]) -> list[str]:
    return ["", _HEAD, *(_line(row) for row in rows)] if rows else []


def _line(row: JudgedRow) -> str:
    ratio = f"{factor(row)} ({span})" if (span := interval(row)) else factor(row)
    cells = [
        _code(short(row.fullname)),
        amount(row.base, row.unit),
        amount(row.candidate, row.unit),
        difference(row),
        ratio,
        kernel_amounts(row.kernel_base, row.kernel_candidate, row.unit),
        _MARKS[row.verdict] + (f": {_escaped(row.reason)}" if row.reason else ""),
    ]
    return f"| {' | '.join(cells)} |"


def _side(side: Side) -> str:
    parts = [
        ", ".join(_code(file) for file in side.files),
        f"kernel {_code(side.kernel)}" if side.kernel else "",
        _escaped(side.python or ""),
    ]
    return ", ".join(part for part in parts if part)


def _code(text: str) -> str:
    # A code span cannot hold a backtick of its own, and a bar ends a table's cell even in one.
    return "`" + printable(text).replace("`", "'").replace("|", "\\|") + "`"


def _escaped(text: str) -> str:
    return html.escape(printable(text), quote=False).replace("|", "\\|").replace("`", "'")
