"""Judge two sets of runs: match the rows, judge each by its clock, put the whole together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dmasync.harness.judge.exact import judge_exact
from dmasync.harness.judge.kernel_part import kernel_parts
from dmasync.harness.judge.match import Matched, by_machine, match, never_measured
from dmasync.harness.judge.settings import Allowance, GateSettings
from dmasync.harness.judge.verdict import JudgedRow, Judgement, Side, UnjudgedRow, Verdict
from dmasync.harness.runs import measuring_machine
from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.runs.reading import Row, Run, printable


def judge(base: Sequence[Run], candidate: Sequence[Run], settings: GateSettings) -> Judgement:
    """Compare the runs of two sides, at least one each; several a side are taken as repetitions."""
    found = match(base, candidate)
    if not settings.same_machine and (apart := measuring_machine.difference([*base, *candidate])):
        found = by_machine(found, apart)
    judged = {row.fullname: row for row in _judged(found.rows, base, candidate, settings)}
    parts = kernel_parts(base[0]), kernel_parts(candidate[0])
    warned = _new_warnings(base, candidate)
    return Judgement(
        side_of(base),
        side_of(candidate),
        [_with_parts(judged[row.fullname], *parts) for row in found.rows],
        found.vanished,
        found.appeared,
        found.not_comparable,
        [
            *_warnings(base, candidate),
            *(f"the candidate's kernel warned while it was measured: {line}" for line in warned),
            *_idle_rules([*base, *candidate], settings),
            *(f"not measured on either side: {lost}" for lost in never_measured(base, candidate)),
        ],
        kernel_warnings=warned,
        fail_on_warning=settings.fail_on_warning,
    )


def self_check(base: Sequence[Run], again: Sequence[Run] | None, settings: GateSettings) -> str:
    """``same`` when the base equals itself, else why not.

    With *again* (a second measurement of the base) the two are compared. Without it, each run's rounds are
    split: the exact clock must have given one number, and by the wall the first half must match the second.
    """
    excused: set[str] = set()
    if again is None:
        halves = [_half(run, 0) for run in base], [_half(run, 1) for run in base]
        judgement = judge(*halves, settings)
        # Half of a few rounds spreads more or less than the other by chance; on the exact clock all of them tell.
        whole = judge(base, base, settings).rows
        excused = {row.fullname for row in whole if row.verdict is Verdict.SAME and row.unit == INSTRUCTIONS}
    else:
        judgement = judge(base, again, settings)
    unlike = [
        row
        for row in judgement.rows
        if row.verdict is not Verdict.SAME and not (row.verdict is Verdict.CANNOT_TELL and row.fullname in excused)
    ]
    if unlike:
        more = f" and {len(unlike) - 1} more rows" if len(unlike) > 1 else ""
        return f"{unlike[0].fullname}: {unlike[0].verdict.value}{more}"
    missing: list[UnjudgedRow] = [*judgement.vanished, *judgement.appeared, *judgement.not_comparable]
    if missing:
        return f"{missing[0].fullname}: {missing[0].reason}"
    return Verdict.SAME.value if judgement.rows else "nothing was measured"


def _judged(
    rows: Sequence[Matched], base: Sequence[Run], candidate: Sequence[Run], settings: GateSettings
) -> list[JudgedRow]:
    places = _places(base, candidate)
    exact = [
        judge_exact(row.base, row.candidate, exact_allowance(row.base[0], settings), settings.noisy_percent)
        for row in rows
        if row.base[0].is_exact_clock
    ]
    wall_rows = [row for row in rows if not row.base[0].is_exact_clock]
    if not wall_rows:
        return exact
    # The exact clock needs no statistics, and who has it need not wait for numpy.
    from dmasync.harness.judge.blocks import Timed
    from dmasync.harness.judge.wall import WallRow, judge_wall

    wall = [
        WallRow(
            [Timed(place, one) for place, one in zip(places[0], row.base, strict=True)],
            [Timed(place, one) for place, one in zip(places[1], row.candidate, strict=True)],
        )
        for row in wall_rows
    ]
    return exact + judge_wall(wall, settings)


def exact_allowance(base: Row, settings: GateSettings) -> Allowance:
    """The row's allowance, and not less than what the suite knows the row to move by itself (the base's word)."""
    allowance = settings.exact(base.fullname)
    return replace(allowance, percent=max(allowance.percent, base.facts.resolution))


def _places(base: Sequence[Run], candidate: Sequence[Run]) -> tuple[list[int], list[int]]:
    """Each run's place in time. Files that do not tell theirs count as not interleaved: base first."""
    runs = [*base, *candidate]
    moments = [run.moment for run in runs]
    order = list(range(len(runs)))
    if None not in moments and len(set(moments)) == len(moments):
        order.sort(key=lambda index: moments[index])  # type: ignore[arg-type,return-value]  # none is None
    place = {index: at for at, index in enumerate(order)}
    return [place[i] for i in range(len(base))], [place[i] for i in range(len(base), len(runs))]


def _with_parts(row: JudgedRow, base: Mapping[str, float], candidate: Mapping[str, float]) -> JudgedRow:
    return replace(row, kernel_base=base.get(row.fullname), kernel_candidate=candidate.get(row.fullname))


def _half(run: Run, which: int) -> Run:
    return replace(run, rows={name: _half_row(row, which) for name, row in run.rows.items()})


def _half_row(row: Row, which: int) -> Row:
    middle = len(row.data) // 2
    begin, end = (0, middle) if which == 0 else (middle, len(row.data))
    return row.part(begin, end) if end - begin > 1 else row


def side_of(runs: Sequence[Run]) -> Side:
    first = runs[0]
    commit = first.commit.get("id")
    return Side(
        tuple(str(run.path) for run in runs),
        first.kernel,
        first.python,
        _machine(first),
        f"{commit}{' (changed)' if first.commit.get('dirty') else ''}" if isinstance(commit, str) else None,
        first.facts.kernel_command_line,
        first.facts.kernel_config_digest,
        first.moment.isoformat(timespec="seconds") if first.moment else None,
        first.facts.kernel_append,
    )


def _warnings(base: Sequence[Run], candidate: Sequence[Run]) -> list[str]:
    warnings = []
    for what, told in (("machines", _machine), ("Pythons", _python)):
        sides = [sorted({told(run) or "unknown" for run in side}) for side in (base, candidate)]
        if sides[0] != sides[1]:
            warnings.append(f"the {what} differ: {', '.join(sides[0])} and {', '.join(sides[1])}")
    suites = [sorted({_suites(run) for run in side} - {""}) for side in (base, candidate)]
    if all(suites) and suites[0] != suites[1]:
        before, after = (", ".join(commits) for commits in suites)
        warnings.append(f"the suites differ, and with them what a row costs in Python: commits {before} and {after}")
    same = {run.path.resolve() for run in base} & {run.path.resolve() for run in candidate}
    if same:
        warnings.append(f"both sides hold the same file: {min(same).name}")
    return warnings


def _new_warnings(base: Sequence[Run], candidate: Sequence[Run]) -> list[str]:
    """The first lines of what only the candidate's kernel warned of; numbers in them (of processes) do not count."""
    known = {_without_numbers(splat) for run in base for splat in run.facts.kernel_warnings}
    new = {_without_numbers(splat): splat for run in candidate for splat in run.facts.kernel_warnings}
    return [printable(splat.splitlines()[0]) for words, splat in new.items() if words not in known]


def _without_numbers(splat: str) -> str:
    return re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b", "#", (splat.splitlines() or [""])[0])


def _idle_rules(runs: Sequence[Run], settings: GateSettings) -> list[str]:
    """Rules of single rows that no row has the name for: a misspelt glob allows nothing."""
    if any(run.narrowed for run in runs):
        return []
    names = set().union(*(run.names for run in runs))
    return [
        f"[tool.dmasync.gate.rows]: no row is named {rule.glob!r}: the rule does nothing"
        for rule in settings.rules
        if not any(rule.matches(name) for name in names)
    ]


def _machine(run: Run) -> str | None:
    told: Mapping[str, Any] = run.machine
    cpu = told.get("cpu")
    brand = cpu.get("brand_raw") if isinstance(cpu, dict) else None
    count = cpu.get("count") if isinstance(cpu, dict) else None
    parts = [told.get("node"), told.get("machine"), brand, f"{count} CPUs" if count else None]
    return ", ".join(str(part) for part in parts if part) or None


def _suites(run: Run) -> str:
    """The commit of our own suites that took *run*; another project's commit is what that project measures."""
    commit = run.commit.get("id")
    if run.facts.target is None or not isinstance(commit, str):
        return ""
    return f"{commit[:12]}{' (changed)' if run.commit.get('dirty') else ''}"


def _python(run: Run) -> str | None:
    build = run.machine.get("python_build")
    compiler = run.machine.get("python_compiler")
    extra = [str(part) for part in (build, compiler) if part]
    return " ".join([run.python or "unknown", *extra]) if run.machine else None
