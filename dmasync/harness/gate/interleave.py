"""Take the runs of two sides in turn, A B B A and again, so that the machine's drift falls on both alike.

Each side is a shell command line that writes one run to ``$DMASYNC_RUN``: on a board, with two builds of a driver,
whatever sets the one or the other up and calls ``dmasync bench``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.gate.finish import finish
from dmasync.harness.gate.outputs.destinations import Outputs
from dmasync.harness.gate.shell import OUTPUT_VARIABLE, NotStartedError, refuse_unusable, run_line
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.runs.reading import Run, load_run, narrowed
from dmasync.harness.runs.writing import made_folder
from dmasync.harness.scratch import scratch_folder

DEFAULT_BLOCKS = 6
"""A B B A that often: 12 runs a side found a true +10 % in 99.9 % of simulated comparisons."""


def add_arguments(group: argparse._ArgumentGroup) -> None:
    for side in ("base", "candidate"):
        group.add_argument(
            f"--measure-{side}", metavar="CMD", help=f"a shell command line that writes a run to ${OUTPUT_VARIABLE}"
        )
    group.add_argument(
        "--blocks",
        metavar="N",
        type=int,
        help=f"how often A B B A is measured (default: {DEFAULT_BLOCKS})",
    )


def is_asked_for(options: argparse.Namespace) -> bool:
    return options.measure_base is not None or options.measure_candidate is not None


def run(options: argparse.Namespace, settings: GateSettings, outputs: Outputs) -> ExitStatus:
    """Measure both sides in turn and judge them; CommandError (3) if a measurement fails."""
    if options.measure_base is None or options.measure_candidate is None:
        raise CommandError("give both --measure-base and --measure-candidate")
    refuse_unusable(options.measure_base, "--measure-base")
    refuse_unusable(options.measure_candidate, "--measure-candidate")
    blocks = DEFAULT_BLOCKS if options.blocks is None else options.blocks
    if blocks < 1:
        raise CommandError(f"--blocks is {blocks}, expected at least 1")
    with scratch_folder("gate") as scratch:
        folder = made_folder(options.keep) if options.keep else scratch
        lines = {"A": options.measure_base, "B": options.measure_candidate}
        runs: dict[str, list[Run]] = {"A": [], "B": []}
        sequence = "ABBA" * blocks
        for number, side in enumerate(sequence, 1):
            name = "base" if side == "A" else "candidate"
            print(f"run {number} of {len(sequence)}: {name}", file=sys.stderr)  # noqa: T201
            runs[side].append(_measured(lines[side], folder / f"{number:03}-{name}.json"))
        both = narrowed([*runs["A"], *runs["B"]], options.only)
        return finish(both[: len(runs["A"])], both[len(runs["A"]) :], None, options.self_check, settings, outputs)


def _measured(line: str, output: Path) -> Run:
    try:
        status = run_line(line, {OUTPUT_VARIABLE: str(output)})
    except NotStartedError as error:
        raise CommandError(str(error)) from None
    if status:
        raise CommandError(f"{line!r} ended with status {status}: nothing is judged", ExitStatus.CANNOT_JUDGE)
    if not output.is_file():
        raise CommandError(f"{line!r} wrote no run to ${OUTPUT_VARIABLE}", ExitStatus.CANNOT_JUDGE)
    return load_run(output)
