"""Pictures of one run's rows: who the cost belongs to, how it spreads, how it went over the rounds."""

from __future__ import annotations

import numpy

from dmasync.harness.judge.kernel_part import cost, kernel_parts
from dmasync.harness.judge.words import amount, described
from dmasync.harness.report.drawing import drawing, label, svg
from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.runs.reading import Row, Run

_MOST_ROWS = 40
_MOST_TIMELINES = 6
_MOST_ALIKE = 12  # rows that are one line each: a few stand for all


def part_figure(run: Run) -> str | None:
    """The kernel's and Python's part of each row; None when no null row tells them apart."""
    parts = kernel_parts(run)
    rows = [run.rows[name] for name in parts if cost(run.rows[name]) > 0][:_MOST_ROWS]
    if not rows:
        return None
    percent = [100 * parts[row.fullname] / cost(row) for row in rows]
    with drawing(10, 1.0 + 0.27 * len(rows)) as (figure, (axes,)):
        places = range(len(rows))
        axes.barh(places, percent, color="#7d9dbd", edgecolor="#1d1d1d", hatch="///", label="kernel: the sync")
        axes.barh(
            places,
            [100 - part for part in percent],
            left=percent,
            color="#ffffff",
            edgecolor="#1d1d1d",
            hatch="..",
            label="Python and the system call entry",
        )
        for index, row in enumerate(rows):
            text = f"{amount(parts[row.fullname], _unit(row))} of {amount(cost(row), _unit(row))}"
            axes.annotate(text, (100, index), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(places, [label(described(row)) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 125)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("percent of the row's cost (right: the kernel's part of the whole, in the row's unit)")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        return svg(figure, "parts")


def spread_figure(run: Run) -> str | None:
    """How the rounds of each row lie about their median; None when no row spreads, or the file holds no rounds."""
    rows = [row for row in run.rows.values() if len(row.data) > 1 and row.median > 0]
    rows = sorted(rows, key=lambda row: row.iqr / row.median, reverse=True)
    alike = [row for row in rows if min(row.data) == max(row.data)]
    spreading = [row for row in rows if row not in alike][:_MOST_ROWS]
    if not spreading:  # a page of dashes tells nothing
        return None
    rows = spreading + alike[:_MOST_ALIKE]
    with drawing(10, 0.9 + 0.27 * len(rows)) as (figure, (axes,)):
        deviations = [100 * (numpy.array(row.data) / row.median - 1) for row in rows]
        axes.boxplot(
            deviations,
            orientation="horizontal",
            positions=range(len(rows)),
            widths=0.6,
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "#555555"},
            medianprops={"color": "#000000", "linewidth": 1.8},
        )
        for index, row in enumerate(rows):
            if min(row.data) == max(row.data):
                text = f"all {row.rounds} rounds {amount(cost(row), _unit(row))}"
                axes.annotate(text, (0, index), xytext=(6, 0), textcoords="offset points", va="center", fontsize=7)
        axes.set_yticks(range(len(rows)), [label(described(row)) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        widest = max(float(numpy.percentile(numpy.abs(deviation), 98)) for deviation in deviations)
        axes.set_xlim(-1.2 * max(widest, 0.5), 1.2 * max(widest, 0.5))
        axes.set_xlabel("rounds about the row's median, in percent (box: quartiles; outliers beyond the frame cut)")
        return svg(figure, "spread")


def timeline_figure(run: Run) -> str | None:
    """The rounds of the rows that spread most, in the order of measurement; None when none spreads."""
    rows = [row for row in run.rows.values() if len(row.data) > 1 and row.iqr > 0 and row.median > 0]
    rows = sorted(rows, key=lambda row: row.iqr / row.median, reverse=True)[:_MOST_TIMELINES]
    if not rows:
        return None
    lines = -(-len(rows) // 2)
    with drawing(10.4, 1.9 * lines, 2, lines) as (figure, grid):
        for axes, row in zip(grid, rows, strict=False):
            axes.plot(
                100 * (numpy.array(row.data) / row.median - 1), ".", color="#2b2b2b", markersize=3, linestyle="none"
            )
            axes.set_title(label(described(row)), fontsize=8)
            axes.set_ylabel("% of median")
            axes.set_xlabel("round")
        for axes in grid[len(rows) :]:
            axes.set_visible(False)
        return svg(figure, "timeline")


def _unit(row: Row) -> str:
    return "instructions" if row.facts.unit == INSTRUCTIONS else "ns"
