"""What a stream of frames pays for its syncs, from fitted lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from dmasync.harness.model.fit import Line, Subject
from dmasync.harness.runs.facts import END, FIRST_START, START

BYTES_PER_PIXEL = {
    "GREY": Fraction(1),
    "NV12": Fraction(3, 2),
    "NV16": Fraction(2),
    "P010": Fraction(3),
    "RAW8": Fraction(1),
    "RAW16": Fraction(2),
    "RGB24": Fraction(3),
    "XRGB8888": Fraction(4),
    "YUYV": Fraction(2),
}
"""Pixel formats by their usual names, all planes together, lines without padding. RAW10 and RAW12 in memory of 16 bits
a pixel are RAW16."""
WIDEST = "READ_WRITE"


@dataclass(frozen=True)
class Stream:
    """Frames of ``size`` bytes each (one dma-buf a frame), ``frames_per_second`` of them, in ``in_flight`` buffers in
    turn, each bracketed once a frame with ``access``.
    """

    size: int
    frames_per_second: float
    access: str
    in_flight: int


@dataclass(frozen=True)
class FrameCost:
    """What one provider asks for a stream, in ``unit``; None where the run has no rows to tell.

    ``first`` is what the first START of a buffer costs more than a later one, once for each buffer in flight.
    ``saved`` is what a frame costs less than with READ_WRITE.
    """

    provider: str
    attached: bool
    unit: str
    start: float
    end: float
    first: float | None
    saved: float | None
    outside: bool
    """The frame is larger or smaller than every buffer that was measured."""

    @property
    def frame(self) -> float:
        return self.start + self.end


def frame_costs(lines: Sequence[Line], stream: Stream) -> list[FrameCost]:
    """One answer per provider that has START and END lines for the stream's access."""
    by_subject = {line.subject: line for line in lines}

    def line(provider: str, attached: bool, access: str, step: str) -> Line | None:
        return by_subject.get(Subject(provider, attached, access, step))

    answers = []
    for provider, attached in dict.fromkeys((each.subject.provider, each.subject.attached) for each in lines):
        start = line(provider, attached, stream.access, START)
        end = line(provider, attached, stream.access, END)
        if start is None or end is None:
            continue
        first = line(provider, attached, stream.access, FIRST_START)
        wide_start, wide_end = (
            line(provider, attached, WIDEST, START),
            line(provider, attached, WIDEST, END),
        )
        cost = start.at(stream.size) + end.at(stream.size)
        wide = None
        if wide_start is not None and wide_end is not None:
            wide = wide_start.at(stream.size) + wide_end.at(stream.size)
        answers.append(
            FrameCost(
                provider,
                attached,
                start.unit,
                start.at(stream.size),
                end.at(stream.size),
                None if first is None else max(0.0, first.at(stream.size) - start.at(stream.size)),
                None if wide is None else wide - cost,
                not min(start.residuals) <= stream.size <= max(start.residuals),
            )
        )
    return answers
