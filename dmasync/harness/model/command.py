"""``dmasync model``: fit cost = a + b * bytes to a run and answer what a frame costs."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from dataclasses import asdict
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.model.check import Prediction, predictions
from dmasync.harness.model.fit import Line, fit
from dmasync.harness.model.stream import BYTES_PER_PIXEL, FrameCost, Stream, frame_costs
from dmasync.harness.model.tables import named, print_model, print_predictions, seconds_of
from dmasync.harness.old_names import PREDICTED
from dmasync.harness.option_types import given_path
from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.runs.reading import Run, load_run

SCHEMA = 1
PAGE = 4096
"""A buffer's size is whole pages: the run's machine says of how many bytes. An older run does not."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync model``."""
    parser.add_argument("run_file", metavar="RUN.json", type=given_path, help="a run of dmasync bench")
    parser.add_argument("--frame", metavar="WxH", default="1920x1080", help="pixels (default: %(default)s)")
    parser.add_argument(
        "--format",
        type=str.upper,
        choices=BYTES_PER_PIXEL,
        default="NV12",
        help="pixel format, in small or capital letters (default: %(default)s)",
    )
    parser.add_argument("--bytes", type=int, metavar="N", help="the frame's size in bytes, instead of the two above")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second (default: %(default)g)")
    parser.add_argument(
        "--access",
        type=str.upper,
        choices=("READ", "WRITE", "READ_WRITE"),
        default="READ",
        help="default: %(default)s",
    )
    parser.add_argument("--in-flight", type=int, default=4, metavar="N", help="buffers (default: %(default)s)")
    parser.add_argument("--page-size", type=int, metavar="N", help="bytes (default: that of the run's machine)")
    parser.add_argument(
        "--instructions-per-second",
        type=float,
        metavar="N",
        help="what the board's CPU executes, as measured there: turns instructions into time",
    )
    parser.add_argument(
        "--check",
        metavar="OTHER.json",
        type=given_path,
        help="hold the model against this run's rows of other sizes (dmasync bench --sizes); status 1 where one is off",
    )
    parser.add_argument(
        "--within",
        type=float,
        default=1.0,
        metavar="PCT",
        help="what --check takes for right, in percent (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(options: argparse.Namespace) -> int:
    """Fit, answer, print."""
    found = load_run(options.run_file)
    stream = _stream(options, found)
    lines, too_few = fit(found.rows.values())
    if not lines:
        detail = "" if not too_few else f": {named(too_few[0])} was measured at one size only; run without --quick"
        raise CommandError(f"{options.run_file} has no sync rows to fit{detail}", ExitStatus.CANNOT_JUDGE)
    speed = options.instructions_per_second
    if speed is not None and lines[0].unit != INSTRUCTIONS:
        raise CommandError(f"--instructions-per-second: {options.run_file} counts {lines[0].unit}, not instructions")
    answers = frame_costs(lines, stream)
    checked = None if options.check is None else _checked(found, lines, options.check)
    if options.json:
        json.dump(_document(found, lines, stream, answers, speed, checked), sys.stdout, indent=1)
        print()  # noqa: T201
    else:
        print_model(found, lines, too_few, stream, answers, speed)
        if checked is not None:
            print_predictions(checked, options.check)
    if not answers:
        raise CommandError(f"no START and END lines for {stream.access} in {options.run_file}", ExitStatus.CANNOT_JUDGE)
    off = [one for one in checked or () if abs(one.error) * 100 > options.within]
    if off:
        worst = max(off, key=lambda one: abs(one.error))
        raise CommandError(
            f"{len(off)} of {len(checked or ())} predictions are off by more than {options.within:g} %, most that of "
            f"{named(worst.subject)} at {worst.size:,} bytes: {worst.error:+.2%}",
            ExitStatus.REGRESSION,
        )
    return ExitStatus.GOOD


_SAME_MACHINE = ("unit", "target", "arch", "python", "compiled")
"""What the model's run and the one that it is held against must have in common. The kernel is free to differ."""


def _checked(found: Run, lines: list[Line], path: Path) -> list[Prediction]:
    other = load_run(path)
    for name in _SAME_MACHINE:
        ours, theirs = ({getattr(row.facts, name) for row in run.rows.values()} for run in (found, other))
        if ours != theirs:
            raise CommandError(
                f"--check {path}: its rows have {name} {_listed(theirs)}, those of {found.path} {_listed(ours)}"
            )
    checked = predictions(lines, other.rows.values())
    if not checked:
        raise CommandError(
            f"--check {path}: no row of a size that {found.path} lacks; measure some with dmasync bench --sizes",
            ExitStatus.CANNOT_JUDGE,
        )
    return checked


def _listed(values: set[object]) -> str:
    return ", ".join(sorted(map(str, values))) or "none"


def _stream(options: argparse.Namespace, found: Run) -> Stream:
    size = options.bytes
    if size is None:
        if (match := re.fullmatch(r"(\d{1,6})x(\d{1,6})", options.frame)) is None:
            raise CommandError(f"--frame {options.frame}: expected WIDTHxHEIGHT in pixels")
        size = math.ceil(int(match[1]) * int(match[2]) * BYTES_PER_PIXEL[options.format])
    for name in ("fps", "in_flight", "page_size", "instructions_per_second", "within"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise CommandError(f"--{name.replace('_', '-')} {value:g}: expected more than 0")
    if size < 1:
        raise CommandError(f"a frame of {size} bytes: expected at least 1")
    page = options.page_size or _page_size(found)
    return Stream(-(-size // page) * page, options.fps, options.access, options.in_flight)


def _page_size(found: Run) -> int:
    told = found.machine.get("page_size")
    return told if isinstance(told, int) and told > 0 else PAGE


def _document(
    found: Run,
    lines: list[Line],
    stream: Stream,
    answers: list[FrameCost],
    speed: float | None,
    checked: list[Prediction] | None,
) -> dict[str, object]:
    predicted = {} if checked is None else {"predictions": [_prediction(one) for one in checked]}
    return {
        "schema": SCHEMA,
        "run": str(found.path),
        "kernel": found.kernel,
        "unit": lines[0].unit,
        "lines": [
            {
                **line.subject._asdict(),
                "fixed": line.fixed,
                "per_byte": line.per_byte,
                "residuals": {str(size): residual for size, residual in line.residuals.items()},
            }
            for line in lines
        ],
        "stream": asdict(stream),
        "frames": [
            {
                **asdict(answer),
                "frame": answer.frame,
                "per_second": answer.frame * stream.frames_per_second,
                "once": None if answer.first is None else answer.first * stream.in_flight,
                "seconds_per_frame": seconds_of(answer.frame, answer.unit, speed),
            }
            for answer in answers
        ],
        **predicted,
    }


def _prediction(one: Prediction) -> dict[str, object]:
    told = {
        "size": one.size,
        "predicted": one.predicted,
        PREDICTED: one.predicted,
        "measured": one.measured,
        "error": one.error,
    }
    return {**one.subject._asdict(), **told, "outside": one.outside}
