"""A fitted model, its answers and its predictions, printed as tables and sentences."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from dmasync.harness.console import Column, console, print_table
from dmasync.harness.model.check import Prediction
from dmasync.harness.model.fit import Line, Subject
from dmasync.harness.model.stream import WIDEST, FrameCost, Stream
from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.runs.reading import Run

_WIDTH_OF_A_FILE = 120
NOTHING = 5e-4
"""A part of a frame's cost that rounds to 0.0 %: no more than how far a fitted line is off."""


def named(subject: Subject) -> str:
    return f"{subject.named} {subject.step} {subject.access}"


def seconds_of(cost: float, unit: str, speed: float | None) -> float | None:
    if unit != INSTRUCTIONS:
        return cost / 1e9
    return None if speed is None else cost / speed


def print_model(
    found: Run,
    lines: list[Line],
    too_few: list[Subject],
    stream: Stream,
    answers: list[FrameCost],
    speed: float | None,
) -> None:
    stdout = sys.stdout
    shown = console(stdout, file_width=_WIDTH_OF_A_FILE)

    def say(text: str) -> None:
        shown.print(Text(text), soft_wrap=True)

    unit = lines[0].unit
    arch = next(iter(found.rows.values())).facts.arch
    say(f"cost = a + b * bytes, in {unit} per call; kernel {found.kernel}, {arch}")
    _print_lines(shown, lines)
    for subject in too_few:
        say(f"not fitted: {named(subject)}: measured at fewer than two sizes")
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


def print_predictions(checked: list[Prediction], path: Path) -> None:
    shown = console(file_width=_WIDTH_OF_A_FILE)
    columns = [Column(name) for name in ("provider", "step", "access")]
    columns += [Column(name, number=True) for name in ("size", "predicted", "measured", "off by")]
    rows = [
        (
            one.subject.named,
            one.subject.step,
            one.subject.access,
            f"{one.size // 1024:,} KiB" + (" (extrapolated)" if one.outside else ""),
            f"{one.predicted:,.0f}",
            f"{one.measured:,.0f}",
            f"{one.error:+.2%}",
        )
        for one in checked
    ]
    shown.print(Text(f"held against {path}", style="italic"), soft_wrap=True)
    print_table(shown, columns, rows)


def _print_lines(shown: Console, lines: list[Line]) -> None:
    columns = [Column(name) for name in ("provider", "step", "access")]
    columns += [Column(name, number=True) for name in ("a", "b per KiB", "largest residual", "at", "sizes")]
    rows = []
    for line in lines:
        worst = max(line.residuals, key=lambda size: abs(line.residuals[size]))
        tested = line.is_tested
        rows.append(
            (
                line.subject.named,
                line.subject.step,
                line.subject.access,
                f"{line.fixed:,.0f}",
                f"{line.per_byte * 1024:,.3f}",
                f"{line.largest_residual:.2%}" if tested else "untested",
                f"{worst // 1024:,} KiB" if tested else "",
                str(len(line.residuals)),
            )
        )
    print_table(shown, columns, rows)


def _answer(answer: FrameCost, stream: Stream, speed: float | None) -> list[str]:
    unit = answer.unit
    name = f"{answer.provider}, attached" if answer.attached else answer.provider
    per_second = answer.frame * stream.frames_per_second
    text = (
        f"{name}: {answer.frame:,.0f} {unit} a frame (START {answer.start:,.0f}, END {answer.end:,.0f}), "
        f"{per_second:,.0f} a second"
    )
    seconds = seconds_of(answer.frame, unit, speed)
    if seconds is not None:
        part = seconds * stream.frames_per_second
        text += f"; {seconds * 1e6:,.1f} us a frame, {part:.2%} of one CPU"
    lines = [text]
    if answer.first is not None:
        once = answer.first * stream.in_flight
        lines.append(f"  once, for the first START of {stream.in_flight} buffers: {once:,.0f} {unit} more")
    if answer.saved is not None and stream.access != WIDEST and abs(answer.saved) < NOTHING * answer.frame:
        lines.append(f"  {stream.access} costs what {WIDEST} costs")
    elif answer.saved is not None and stream.access != WIDEST:
        wide = answer.frame + answer.saved
        lines.append(
            f"  {stream.access} instead of {WIDEST} saves {answer.saved:,.0f} {unit} a frame "
            f"({answer.saved / wide:.1%} of {wide:,.0f})"
        )
    if answer.outside:
        lines.append("  beyond the sizes that were measured: an extrapolation")
    return lines
