"""Put the page together: sentences first, then pictures, then where the numbers came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.judge import by_buffer_kind, words
from dmasync.harness.judge.compare import side_of
from dmasync.harness.judge.match import by_reason
from dmasync.harness.judge.moved_together import Alike, alike, causes
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import JudgedRow, Judgement, Side, Verdict
from dmasync.harness.report.history_figure import Series, history_figure, in_time, series, told_changes
from dmasync.harness.report.html import template
from dmasync.harness.report.row_figures import part_figure, spread_figure, timeline_figure
from dmasync.harness.report.size_figure import size_figure
from dmasync.harness.report.verdict_figure import MOST_VERDICTS, verdict_figure
from dmasync.harness.runs.reading import Run


@dataclass(frozen=True)
class Picture:
    """A figure with what it shows; ``svg`` is None where the runs hold nothing to draw, and ``lacking`` says why."""

    title: str
    caption: str
    svg: Markup | None
    lacking: str
    narrow: Markup | None = None
    """The same for a narrow screen, where the whole would not fit."""


@dataclass(frozen=True)
class Origin:
    """A run's line in the table of provenance."""

    number: int
    side: Side
    target: str
    rows: int
    not_measured: list[str]


def page(runs: Sequence[Run], judgement: Judgement | None, settings: GateSettings | None = None) -> str:
    """The HTML of *runs*, the last of which is the one that pictures of a single run show."""
    settings = settings or GateSettings()
    ordered = in_time(runs)
    all_series = series(ordered, settings)
    return template("report.html").render(
        title=_title(runs, judgement),
        verdict=_verdict(judgement),
        headline=headline(judgement),
        unjudged=_unjudged(judgement) if judgement else [],
        judgement=judgement,
        verdicts=sorted(judgement.rows, key=_most_important) if judgement else [],
        words=words,
        Verdict=Verdict,
        pictures=_pictures(runs, ordered, judgement, all_series),
        changes=told_changes(all_series, ordered),
        origins=[_origin(number, run) for number, run in enumerate(ordered, 1)],
    )


def headline(judgement: Judgement | None) -> list[str]:
    """What a reader should take home, in sentences: what got slower and by how much, worst first."""
    if judgement is None:
        return ["One run, nothing to compare it with."]
    sentences = []
    for verdict, word in ((Verdict.REGRESSED, "slower"), (Verdict.IMPROVED, "faster")):
        rows = [row for row in judgement.rows if row.verdict is verdict]
        if rows:
            count = len(judgement.rows)
            rows_in_words = f"{len(rows)} of {count} {'row' if count == 1 else 'rows'} got"
            found = alike(rows, judgement.rows)
            worst = "; ".join(_change(group) for group in found[:3])
            more = f"; and {sum(len(group.rows) for group in found[3:])} more" if found[3:] else ""
            sentences.append(f"{rows_in_words} {word}: {worst}{more}.")
    if not sentences and judgement.rows:
        sentences.append("No row was shown to have changed.")
    return [*sentences, f"Verdict: {judgement.summary}.", _compared(judgement)]


_MARKS = {
    ExitStatus.GOOD: ("good", "\N{HEAVY CHECK MARK}", "Not slower"),
    ExitStatus.REGRESSION: ("bad", "\N{HEAVY BALLOT X}", "Slower"),
    ExitStatus.CANNOT_JUDGE: ("unknown", "?", "Cannot judge"),
}


def _verdict(judgement: Judgement | None) -> tuple[str, str, str, str] | None:
    """The page's first line: its class, a mark, a word, and what changed by how much."""
    if judgement is None:
        return None
    told = causes(judgement)
    return (*_MARKS[judgement.status], ", ".join(told) if told else judgement.summary)


def _compared(judgement: Judgement) -> str:
    base, candidate = (side.kernel or "an unknown kernel" for side in (judgement.base, judgement.candidate))
    changed = by_buffer_kind.command_lines(judgement.base, judgement.candidate)
    return f"The base ran on {base}, the candidate on {candidate}{f', {changed}' if changed else ''}."


def _unjudged(judgement: Judgement) -> list[tuple[str, str, list[str]]]:
    """Rows without a verdict: what became of them, why, their names."""
    return [
        (what, reason, names)
        for what, rows in (
            ("vanished", judgement.vanished),
            ("not comparable", judgement.not_comparable),
            ("new", judgement.appeared),
        )
        for reason, names in by_buffer_kind.by_reason(rows).items()
    ]


def _change(group: Alike) -> str:
    """One number from and to, of the row that moved most; several rows moved alike."""
    row = group.rows[0]
    before, after = words.amount(row.base, row.unit), words.amount(row.candidate, row.unit)
    unit = " instructions" if row.unit == "instructions" else ""
    most = ", the most" if len(group.rows) > 1 else ","
    return f"{group.name}{most} from {before} to {after}{unit} ({words.factor(row)})"


def _most_important(row: JudgedRow) -> tuple[int, float]:
    return list(Verdict).index(row.verdict), -row.ratio


def _title(runs: Sequence[Run], judgement: Judgement | None) -> str:
    if judgement is None:
        return f"dma-buf sync cost on {runs[-1].kernel or 'an unknown kernel'}"
    base, candidate = judgement.base.kernel or "unknown", judgement.candidate.kernel or "unknown"
    if base != candidate:
        return f"dma-buf sync cost: {candidate} against {base}"
    return f"dma-buf sync cost: {base} {by_buffer_kind.command_lines(judgement.base, judgement.candidate)}".strip()


def _pictures(
    runs: Sequence[Run], ordered: Sequence[Run], judgement: Judgement | None, all_series: Sequence[Series]
) -> list[Picture]:
    last = runs[-1]
    sides = ("candidate", "base") if judgement and len(runs) == 2 else ("last run", "first run")
    drawn = [
        (
            "Verdicts",
            "Candidate over base, what moved most on top; rows that moved alike are one "
            f"(at most {MOST_VERDICTS} lines; the table below has all rows). "
            "The line is the confidence interval; on the exact clock it is the rounds' quartiles, and seldom there.",
            verdict_figure(judgement) if judgement else None,
            "two runs are needed to compare",
        ),
        (
            "Cost against buffer size",
            "One panel a provider and step, one line an access; called by fcntl.ioctl where the runs have that. "
            f"Full lines are the {sides[0]}, thin dotted ones the {sides[1]}. "
            "A flat line: the buffer's size does not matter.",
            size_figure(runs, sides),
            "no row tells the size of its buffer",
        ),
        (
            "Python's part and the kernel's part",
            "The kernel's part is the row's cost less that of as many null system calls.",
            part_figure(last),
            "the run has no null row to tell them apart",
        ),
        (
            "Distribution per row",
            "Rounds of the last run about their median. A row whose rounds all took the same is a single line; "
            "a few stand for all of those.",
            spread_figure(last),
            "no row of the last run spreads: every round took the same, or the file holds no rounds",
        ),
        (
            "Timeline of the rounds",
            "The rows that spread most, round by round: noise is even, drift has a shape.",
            timeline_figure(last),
            "no row of the last run spreads: every round took the same",
        ),
        (
            "History",
            "Cost relative to the first run, for the rows that moved most; rows that moved alike are one line.",
            history_figure(all_series, ordered),
            "fewer than two runs have a row in common",
        ),
    ]
    pictures = [
        Picture(title, caption, Markup(svg) if svg else None, lacking)  # noqa: S704  # drawn here, not taken
        for title, caption, svg, lacking in drawn
    ]
    narrow = verdict_figure(judgement, is_narrow=True) if judgement else None
    return [replace(pictures[0], narrow=Markup(narrow) if narrow else None), *pictures[1:]]  # noqa: S704  # as above


def _origin(number: int, run: Run) -> Origin:
    targets = sorted(
        {row.facts.target for row in run.rows.values() if row.facts.target} | {run.facts.target or ""} - {""}
    )
    return Origin(number, side_of([run]), ", ".join(targets), len(run.rows), by_reason(run.facts.not_measured))
