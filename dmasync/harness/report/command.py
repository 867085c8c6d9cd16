"""The arguments of ``dmasync report``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.judge.compare import judge
from dmasync.harness.judge.settings import load_settings
from dmasync.harness.option_types import given_path, given_text
from dmasync.harness.report.page import page
from dmasync.harness.runs.reading import files_of, load_run, printable
from dmasync.harness.runs.writing import refuse_unwritable, write_atomically


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync report``."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        type=given_text,
        nargs="+",
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


def run(options: argparse.Namespace) -> int:
    """Write the page. The status is 0 when it was written, whatever the verdicts say: the gate judges."""
    files = files_of(options.runs)
    refuse_unwritable({"--output": options.output}, files)
    settings = replace(load_settings(options.settings), same_machine=options.same_machine)
    runs = [load_run(path) for path in files]
    if not any(run.rows or run.facts.not_measured for run in runs):
        raise CommandError("nothing was measured in these runs: no picture can be drawn", ExitStatus.CANNOT_JUDGE)
    judgement = judge(runs[:1], runs[-1:], settings) if len(runs) > 1 else None
    write_atomically(options.output, page(runs, judgement, settings))
    told = f"1 run, rows: {len(runs[0].rows)}" if judgement is None else judgement.summary
    print(f"dmasync report: wrote {options.output}: {printable(told)}", file=sys.stderr)  # noqa: T201
    return ExitStatus.GOOD
