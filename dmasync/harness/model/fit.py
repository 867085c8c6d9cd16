"""Fit cost = a + b * bytes to the sync rows of a run, one line per provider, access and step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy

from dmasync.harness.runs.facts import END, FIRST_START, INSTRUCTIONS, NANOSECONDS, PAIR, START
from dmasync.harness.runs.reading import Row

STEPS = (START, END, FIRST_START, PAIR)
API = "fcntl"
"""The rows that are fitted: nothing of the library's own cost is in them."""
FEWEST_SIZES = 2


class Subject(NamedTuple):
    """What one line is fitted to."""

    provider: str
    attached: bool
    access: str
    step: str

    @property
    def named(self) -> str:
        return f"{self.provider}, attached" if self.attached else self.provider


@dataclass(frozen=True)
class Line:
    """A fitted line, in the run's unit: ``fixed`` a call and ``per_byte`` a byte of the buffer.

    ``residuals`` are relative, (measured - fitted) / measured, by size in bytes. With two sizes they are zero by
    construction and say nothing: ``is_tested`` is False then.
    """

    subject: Subject
    unit: str
    fixed: float
    per_byte: float
    residuals: Mapping[int, float]

    def at(self, size: int) -> float:
        """The cost of one call on a buffer of *size* bytes."""
        return self.fixed + self.per_byte * size

    @property
    def is_tested(self) -> bool:
        return len(self.residuals) > FEWEST_SIZES

    @property
    def largest_residual(self) -> float:
        return max(abs(residual) for residual in self.residuals.values())


def fit(rows: Iterable[Row]) -> tuple[list[Line], list[Subject]]:
    """The lines, in the rows' order, and the subjects that have too few sizes for one.

    Least squares of the relative error: a kilobyte's cost counts as much as a megabyte's.
    """
    lines: list[Line] = []
    too_few: list[Subject] = []
    for subject, known in costs(rows).items():
        sizes = numpy.array(sorted(known), dtype=float)
        measured = numpy.array([known[int(size)][0] for size in sizes])
        unit = next(iter(known.values()))[1]
        if len(sizes) < FEWEST_SIZES or not (measured > 0).all():
            too_few.append(subject)
            continue
        # Sizes span four orders of magnitude: scaled to one, or the two columns would be hard to tell apart.
        scale = sizes.max()
        columns = numpy.column_stack([1 / measured, sizes / scale / measured])
        (fixed, slope), *_ = numpy.linalg.lstsq(columns, numpy.ones_like(measured), rcond=None)
        per_byte = slope / scale
        fitted = fixed + per_byte * sizes
        residuals = {int(size): float(rest) for size, rest in zip(sizes, (measured - fitted) / measured, strict=True)}
        lines.append(Line(subject, unit, float(fixed), float(per_byte), residuals))
    return lines, too_few


def costs(rows: Iterable[Row]) -> dict[Subject, dict[int, tuple[float, str]]]:
    """What the rows that are fitted tell: the cost of a call and its unit, by subject and size in bytes."""
    found: dict[Subject, dict[int, tuple[float, str]]] = {}
    for row in rows:
        facts = row.facts
        if facts.api != API or facts.step not in STEPS or facts.unit not in (INSTRUCTIONS, NANOSECONDS):
            continue
        if facts.provider is None or facts.access is None or facts.size is None:
            continue
        subject = Subject(facts.provider, bool(facts.attached), facts.access, facts.step)
        found.setdefault(subject, {})[facts.size] = (row.median * 1e9, facts.unit)
    return found
