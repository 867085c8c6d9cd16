"""One night: measure what this host offers, judge it against the last good run of its kind, keep it, draw it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from dmasync.harness.bench.suite import LostRunError, Request, run_suite
from dmasync.harness.bench.table import print_summary
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.gate.outputs.destinations import Outputs
from dmasync.harness.history import in_store
from dmasync.harness.history.acceptances import Known, load, with_accepted
from dmasync.harness.history.creep import with_creep
from dmasync.harness.history.moves import MOST_NIGHTS, with_moves
from dmasync.harness.judge.compare import judge, side_of
from dmasync.harness.judge.settings import GateSettings, load_settings
from dmasync.harness.judge.verdict import Judgement, UnjudgedRow
from dmasync.harness.progress import ConsoleProgress, SilentProgress
from dmasync.harness.runs import measuring_machine
from dmasync.harness.runs.kept import KeptRun, Kind, Standing
from dmasync.harness.runs.reading import Run, load_run, parse_run
from dmasync.harness.runs.storage import Storage, anchor_of, baseline_of
from dmasync.harness.runs.writing import refuse_unwritable, write_atomically
from dmasync.harness.scratch import scratch_folder

_RUNS_IN_REPORT = 30
_STANDINGS = {
    ExitStatus.GOOD: Standing.GOOD,
    ExitStatus.REGRESSION: Standing.REGRESSED,
    ExitStatus.CANNOT_JUDGE: Standing.UNJUDGED,
}


class MeasureHost(Protocol):
    """Run the suites on whatever this host has and write the run to *output*; CommandError if that fails."""

    def __call__(self, output: Path) -> None: ...


def nightly(
    storage: Storage,
    report: Path | None = None,
    *,
    settings: GateSettings | None = None,
    measure: MeasureHost | None = None,
    outputs: Outputs | None = None,
    store: Path | None = None,
) -> ExitStatus:
    """Measure, gate, keep, report; return the gate's status. The first run of a kind is kept as its baseline: 0.

    With a *store* of Parquet files the run is added there, too.

    It is judged against the last good run, and against the anchor, so that small steps do not add up unseen.

    A run that is killed or fails before it is judged leaves the storage as it was.
    """
    settings = settings or load_settings()
    outputs = outputs or Outputs()
    outputs.check([])
    refuse_unwritable({"--report": report})
    load(storage.folder)
    if store is not None:
        in_store.check(store)
    lost: Exception | None = None
    with scratch_folder("nightly") as scratch:
        output = scratch / "run.json"
        (measure or measure_host)(output)
        run = load_run(output)
        if not run.rows:
            raise CommandError("nothing was measured", ExitStatus.CANNOT_JUDGE)
        kind = Kind.of(run)
        earlier = storage.of_kind(kind)
        baseline = baseline_of(earlier)
        if baseline is None or baseline.run is None:
            kept = storage.keep(run, Standing.FIRST)
            _say(f"first run of its kind, kept as the baseline: {kept}")
            status, judgement = ExitStatus.GOOD, None
            outputs.write(_first_night(run), [run], [run], settings)
        else:
            judgement = judge([baseline.run], [run], settings)
            anchor = anchor_of(earlier)
            if anchor is not None and anchor.run is not None and anchor.path != baseline.path:
                judgement = with_creep(judgement, anchor.run, run, settings)
            judgement = _with_history(judgement, storage, earlier, run, settings)
            status = judgement.status
            try:
                outputs.put(judgement, [baseline.run], [run], settings)
            except (CommandError, OSError) as error:
                lost = error  # the night is kept all the same
            kept = storage.keep(run, _STANDINGS[status])
            _say(f"kept: {kept}")
        if store is not None:
            in_store.add_run(store, output)
    if report is not None:
        from dmasync.harness.report.page import page  # drawing is slow to load

        runs = [one.run for one in storage.of_kind(kind)[-_RUNS_IN_REPORT:] if one.run is not None]
        write_atomically(report, page(runs, judgement, settings))
        _say(f"report: {report}")
    if lost is not None:
        raise lost
    return status


def _with_history(
    judgement: Judgement, storage: Storage, kept: Sequence[KeptRun], run: Run, settings: GateSettings
) -> Judgement:
    """*judgement* of *run* with what only the nights since the anchor show, and with what was accepted."""
    today = datetime.now(timezone.utc).date()
    known = Known(load(storage.folder).values(), Kind.of(run).host, kept, storage.folder)
    anchors = [at for at, one in enumerate(kept) if one.standing.is_anchor]
    if any(not row.is_exact_clock for row in run.rows.values()):
        since_anchor = kept[anchors[-1] if anchors else 0 :][-MOST_NIGHTS:]
        nights = [*(one.run for one in since_anchor if one.run is not None and _alike(one.run, run, settings)), run]
        judgement = with_moves(judgement, nights, settings, known.since(run.rows, today))
    return with_accepted(judgement, known, run, settings, today)


def _alike(earlier: Run, run: Run, settings: GateSettings) -> bool:
    """Whether a level of *run* that is another one is the kernel's, and not that of another machine."""
    return settings.same_machine or not measuring_machine.difference([earlier, run])


def _first_night(run: Run) -> Judgement:
    """Rows that have nothing to be compared with: no format may call them a pass."""
    side = side_of([run])
    new = [UnjudgedRow(name, "the first run of its kind") for name in run.rows]
    return Judgement(replace(side, files=()), side, (), appeared=new)


def measure_host(output: Path, request: Request | None = None, *, quiet: bool = False) -> None:
    """As ``dmasync bench`` does without arguments: hardware first, else a virtual machine."""
    with ConsoleProgress("dmasync bench") as console:
        try:
            status = run_suite(request or Request(), output, SilentProgress() if quiet else console)
        except LostRunError as error:
            console.done()
            print_summary(parse_run(output, error.text), sys.stderr, kept=False)
            raise
    print_summary(load_run(output), sys.stderr, is_temporary=True)  # standard output is the verdict's
    if status != ExitStatus.GOOD:
        raise CommandError(f"the suites ended with status {int(status)}: nothing was kept", status)


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
