"""Hold a model against another run: what it predicts for sizes that it was not fitted to, and what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dmasync.harness.model.fit import Line, Subject, costs
from dmasync.harness.runs.reading import Row


@dataclass(frozen=True)
class Prediction:
    """One size (in bytes) of one subject: predicted and measured, in the lines' unit."""

    subject: Subject
    size: int
    predicted: float
    measured: float
    outside: bool
    """The size lies beyond those that the line was fitted to."""

    @property
    def error(self) -> float:
        """(measured - predicted) / measured, as a residual."""
        return (self.measured - self.predicted) / self.measured


def predictions(lines: Sequence[Line], rows: Iterable[Row]) -> list[Prediction]:
    """One for each line and each size in *rows* that the line was not fitted to, in the lines' order."""
    measured = costs(rows)
    found = []
    for line in lines:
        for size, (cost, unit) in sorted(measured.get(line.subject, {}).items()):
            if size in line.residuals or unit != line.unit or cost <= 0:
                continue
            outside = not min(line.residuals) <= size <= max(line.residuals)
            found.append(Prediction(line.subject, size, line.at(size), cost, outside))
    return found
