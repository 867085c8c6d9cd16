"""``dmasync model``: fit cost = a + b * bytes to a run and answer what a frame costs."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.model_fit import Line, Subject, fit
from dmasync.harness.model_frame import BYTES_PER_PIXEL, WIDEST, FrameCost, Stream, frame_costs
from dmasync.harness.rows import INSTRUCTIONS
from dmasync.harness.rows_file import Run, load_run

SCHEMA = 1
PAGE = 4096
"""A buffer's size is whole pages, of 4 KiB unless --page-size says otherwise."""
_WIDTH_OF_A_FILE = 120


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync model``."""
    parser.add_argument("run_file", metavar="RUN.json", type=Path, help="a run of dmasync bench")
    parser.add_argument("--frame", metavar="WxH", default="1920x1080", help="pixels (default: %(default)s)")
    parser.add_argument("--format", choices=BYTES_PER_PIXEL, default="NV12", help="pixel format (default: %(default)s)")
    parser.add_argument("--bytes", type=int, metavar="N", help="the frame's size in bytes, instead of the two above")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second (default: %(default)g)")
    parser.add_argument(
        "--access", choices=("READ", "WRITE", "READ_WRITE"), default="READ", help="default: %(default)s"
    )
    parser.add_argument("--in-flight", type=int, default=4, metavar="N", help="buffers (default: %(default)s)")
    parser.add_argument("--page-size", type=int, default=PAGE, metavar="N", help="bytes (default: %(default)s)")
    parser.add_argument(
        "--instructions-per-second",
        type=float,
        metavar="N",
        help="what the board's CPU executes, as measured there: turns instructions into time",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(options: argparse.Namespace) -> int:
    """Fit, answer, print."""
    stream = _stream(options)
    found = load_run(options.run_file)
    lines, too_few = fit(found.rows.values())
    if not lines:
        detail = "" if not too_few else f": {_named(too_few[0])} was measured at one size only; run without --quick"
        raise CommandError(f"{options.run_file} has no sync rows to fit{detail}", ExitStatus.CANNOT_JUDGE)
    speed = options.instructions_per_second
    if speed is not None and lines[0].unit != INSTRUCTIONS:
        raise CommandError(f"--instructions-per-second: {options.run_file} counts {lines[0].unit}, not instructions")
    answers = frame_costs(lines, stream)
    if options.json:
        json.dump(_document(found, lines, stream, answers, speed), sys.stdout, indent=1)
        print()  # noqa: T201
    else:
        _print(found, lines, too_few, stream, answers, speed)
    if not answers:
        raise CommandError(f"no START and END lines for {stream.access} in {options.run_file}", ExitStatus.CANNOT_JUDGE)
    return ExitStatus.GOOD


def _stream(options: argparse.Namespace) -> Stream:
    size = options.bytes
    if size is None:
        if (match := re.fullmatch(r"(\d{1,6})x(\d{1,6})", options.frame)) is None:
            raise CommandError(f"--frame {options.frame}: expected WIDTHxHEIGHT in pixels")
        size = math.ceil(int(match[1]) * int(match[2]) * BYTES_PER_PIXEL[options.format])
    for name in ("fps", "in_flight", "page_size", "instructions_per_second"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise CommandError(f"--{name.replace('_', '-')} {value:g}: expected more than 0")
    if size < 1:
        raise CommandError(f"a frame of {size} bytes: expected at least 1")
    pages = -(-size // options.page_size)
    return Stream(pages * options.page_size, options.fps, options.access, options.in_flight)


def _named(subject: Subject) -> str:
    return f"{subject.named} {subject.step} {subject.access}"


def _document(
    found: Run, lines: list[Line], stream: Stream, answers: list[FrameCost], speed: float | None
) -> dict[str, object]:
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
                "seconds_per_frame": _seconds(answer.frame, answer.unit, speed),
            }
            for answer in answers
        ],
    }


def _seconds(cost: float, unit: str, speed: float | None) -> float | None:
    if unit != INSTRUCTIONS:
        return cost / 1e9
    return None if speed is None else cost / speed


def _print(
    found: Run,
    lines: list[Line],
    too_few: list[Subject],
    stream: Stream,
    answers: list[FrameCost],
    speed: float | None,
) -> None:
    stdout = sys.stdout
    console = Console(file=stdout, highlight=False, width=None if stdout.isatty() else _WIDTH_OF_A_FILE)

    def say(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    unit = lines[0].unit
    arch = next(iter(found.rows.values())).facts.arch
    say(f"cost = a + b * bytes, in {unit} per call; kernel {found.kernel}, {arch}")
    console.print(_lines_table(lines))
    for subject in too_few:
        say(f"not fitted: {_named(subject)}: measured at fewer than two sizes")
    say("")
    say(
        f"a frame of {stream.size:,} bytes in one buffer, {stream.access}, "
        f"{stream.frames_per_second:g} frames a second, {stream.in_flight} in flight"
    )
    for answer in answers:
        for line in _answer(answer, stream, speed):
            say(line)
    if unit == INSTRUCTIONS:
        say("instructions are counted by an emulator, which knows neither cache misses nor memory bandwidth")


def _lines_table(lines: list[Line]) -> Table:
    table = Table(header_style="bold")
    for column in ("provider", "step", "access"):
        table.add_column(column, no_wrap=True)
    for column in ("a", "b per KiB", "largest residual", "at", "sizes"):
        table.add_column(column, justify="right")
    for line in lines:
        worst = max(line.residuals, key=lambda size: abs(line.residuals[size]))
        tested = line.is_tested
        table.add_row(
            line.subject.named,
            line.subject.step,
            line.subject.access,
            f"{line.fixed:,.0f}",
            f"{line.per_byte * 1024:,.3f}",
            f"{line.largest_residual:.2%}" if tested else "untested",
            f"{worst // 1024:,} KiB" if tested else "",
            str(len(line.residuals)),
        )
    return table


def _answer(answer: FrameCost, stream: Stream, speed: float | None) -> list[str]:
    unit = answer.unit
    name = f"{answer.provider}, attached" if answer.attached else answer.provider
    per_second = answer.frame * stream.frames_per_second
    text = (
        f"{name}: {answer.frame:,.0f} {unit} a frame (START {answer.start:,.0f}, END {answer.end:,.0f}), "
        f"{per_second:,.0f} a second"
    )
    seconds = _seconds(answer.frame, unit, speed)
    if seconds is not None:
        share = seconds * stream.frames_per_second
        text += f"; {seconds * 1e6:,.1f} us a frame, {share:.2%} of one CPU"
    lines = [text]
    if answer.first is not None:
        once = answer.first * stream.in_flight
        lines.append(f"  once, for the first START of {stream.in_flight} buffers: {once:,.0f} {unit} more")
    if answer.saved is not None and stream.access != WIDEST:
        wide = answer.frame + answer.saved
        lines.append(
            f"  {stream.access} instead of {WIDEST} saves {answer.saved:,.0f} {unit} a frame "
            f"({answer.saved / wide:.1%} of {wide:,.0f})"
        )
    if answer.outside:
        lines.append("  beyond the sizes that were measured: an extrapolation")
    return lines
