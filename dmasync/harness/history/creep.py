"""What moved in steps too small for any night: each row against the anchor as well as against the last good run."""

from __future__ import annotations

from dataclasses import replace

from dmasync.harness.judge.compare import judge
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import JudgedRow, Judgement, Verdict
from dmasync.harness.runs.reading import Run


def with_creep(judgement: Judgement, anchor: Run, run: Run, settings: GateSettings) -> Judgement:
    """*judgement* of *run* against the last good one, with the rows that regressed since *anchor* as regressed.

    The anchor only adds regressions. What cannot be told against it, after months of other machines and suites, leaves
    the night's own verdict as it is.
    """
    since = anchor.moment.date().isoformat() if anchor.moment else "the anchor"
    against = {row.fullname: row for row in judge([anchor], [run], settings).rows}

    def judged(row: JudgedRow) -> JudgedRow:
        other = against.get(row.fullname)
        if row.verdict is Verdict.REGRESSED or other is None or other.verdict is not Verdict.REGRESSED:
            return row
        return replace(other, reason=f"crept since {since}, in steps that passed one by one")

    rows = [judged(row) for row in judgement.rows]
    crept = sum(one is not other for one, other in zip(rows, judgement.rows, strict=True))
    if not crept:
        return judgement
    warning = (
        f"{crept} rows crept since {since}: if that is meant, make a run the measure: dmasync history keep --anchor RUN"
    )
    return replace(judgement, rows=rows, warnings=[*judgement.warnings, warning])
