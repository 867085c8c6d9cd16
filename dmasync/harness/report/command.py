"""The arguments of ``dmasync report``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.judge.compare import judge
from dmasync.harness.judge.settings import load_settings
from dmasync.harness.option_types import given_path, given_text
from dmasync.harness.runs.given_files import files_of
from dmasync.harness.runs.reading import load_run, printable
from dmasync.harness.runs.writing import refuse_unwritable, write_atomically

_DAYS = 7.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync report``."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        type=given_text,
        nargs="*",
        help="run files, or folders of them; the last is judged against the first",
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=given_path, required=True, help="the page to write")
    parser.add_argument(
        "--settings",
        metavar="F",
        type=given_path,
        help="TOML with [tool.dmasync.gate] (default: pyproject.toml)",
    )
    parser.add_argument(
        "--same-machine", action="store_true", help="judge wall rows although CPU, governor or the like differ"
    )

    parser.add_argument(
        "--fleet",
        metavar="STORE",
        type=given_text,
        help="instead of RUN: boards by kernels of a store (see dmasync history store), what moved on top",
    )
    parser.add_argument(
        "--days",
        metavar="N",
        type=float,
        help="with --fleet: the last N days against the four times as many before (default: 7)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the page. The status is 0 when it was written, whatever the verdicts say: the gate judges."""
    if options.fleet is not None:
        return _fleet(options)
    if not options.runs:
        raise CommandError("name run files, or a store with --fleet STORE")
    if options.days is not None:
        raise CommandError("--days is for a fleet: add --fleet STORE")
    files = files_of(options.runs)
    refuse_unwritable({"--output": options.output}, files)
    settings = replace(load_settings(options.settings), same_machine=options.same_machine)
    runs = [load_run(path) for path in files]
    if not any(run.rows or run.facts.not_measured for run in runs):
        raise CommandError("nothing was measured in these runs: no picture can be drawn", ExitStatus.CANNOT_JUDGE)
    from dmasync.harness.report.page import page  # drawing is slow to load: not for --help and completion

    judgement = judge(runs[:1], runs[-1:], settings) if len(runs) > 1 else None
    write_atomically(options.output, page(runs, judgement, settings))
    told = f"1 run, rows: {len(runs[0].rows)}" if judgement is None else judgement.summary
    print(f"dmasync report: wrote {options.output}: {printable(told)}", file=sys.stderr)  # noqa: T201
    return ExitStatus.GOOD


def _fleet(options: argparse.Namespace) -> int:
    from dmasync.harness.report.fleet_page import fleet_page, sentence
    from dmasync.harness.store.bucket import answering, store_folder
    from dmasync.harness.store.fleet import fleet
    from dmasync.harness.store.queries import StoreReader

    if options.runs:
        raise CommandError("--fleet takes the place of run files: name a store, or runs, not both")
    days = _DAYS if options.days is None else options.days
    if not 0 < days < 1e3:
        raise CommandError(f"--days is {days}, expected a number of days above 0")
    refuse_unwritable({"--output": options.output})
    percent = load_settings(options.settings).wall_percent
    store = store_folder(options.fleet)
    with answering(store):
        found = fleet(StoreReader(store), days, percent)
    if found is None:
        raise CommandError(f"{options.fleet}: the store is empty: no picture can be drawn", ExitStatus.CANNOT_JUDGE)
    write_atomically(options.output, fleet_page(found, percent))
    print(f"dmasync report: wrote {options.output}: {printable(sentence(found))}", file=sys.stderr)  # noqa: T201
    return ExitStatus.GOOD
