"""The arguments of ``dmasync report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.judge.compare import judge
from dmasync.harness.judge.settings import load_settings
from dmasync.harness.report.page import page
from dmasync.harness.runs.reading import files_of, load_run
from dmasync.harness.runs.writing import refuse_unwritable, write_atomically


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync report``."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="run files, or folders of them; the last is judged against the first",
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the page to write")
    parser.add_argument(
        "--settings", metavar="F", type=Path, help="a TOML file with [tool.dmasync.gate] (default: pyproject.toml)"
    )


def run(options: argparse.Namespace) -> int:
    """Write the page. The status is 0 when it was written, whatever the verdicts say: the gate judges."""
    files = files_of(options.runs)
    refuse_unwritable([options.output], files)
    settings = load_settings(options.settings)
    runs = [load_run(path) for path in files]
    if not any(run.rows or run.facts.not_measured for run in runs):
        raise CommandError("nothing was measured in these runs: no picture can be drawn", ExitStatus.CANNOT_JUDGE)
    judgement = judge(runs[:1], runs[-1:], settings) if len(runs) > 1 else None
    write_atomically(options.output, page(runs, judgement, settings))
    return ExitStatus.GOOD
