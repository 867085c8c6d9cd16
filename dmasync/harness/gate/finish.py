"""The end of every way of the gate: judge two sides that were read or measured, and put the judgement out."""

from __future__ import annotations

from collections.abc import Sequence

from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.gate.outputs.destinations import Outputs
from dmasync.harness.judge.compare import judge, self_check
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import Judgement, Verdict
from dmasync.harness.runs.reading import Run


def finish(
    base: Sequence[Run],
    candidate: Sequence[Run],
    again: Sequence[Run] | None,
    check: bool,
    settings: GateSettings,
    outputs: Outputs,
) -> ExitStatus:
    """Judge two sides that were read or measured, and put the judgement out."""
    checked = self_check(base, again, settings) if check else None
    judgement = judge(base, candidate, settings)
    if checked is not None:
        judged = judgement.rows if checked == Verdict.SAME.value else ()
        judgement = Judgement(**{**vars(judgement), "rows": judged, "self_check": checked})
    outputs.put(judgement, base, candidate, settings)
    return judgement.status
