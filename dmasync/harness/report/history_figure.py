"""Rows over runs, relative to the first, with the change points marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dmasync.harness.judge.by_buffer_kind import command_lines
from dmasync.harness.judge.compare import side_of
from dmasync.harness.judge.kernel_part import cost
from dmasync.harness.judge.match import comparable_facts
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.words import amount, buffer_kind, described, kind_of_row
from dmasync.harness.report.changes import change_points
from dmasync.harness.report.drawing import COLOURS, DASHES, MARKERS, drawing, label, ratio_axis, svg
from dmasync.harness.runs.reading import Row, Run

_MOST_LINES = 8
_MOST_TOLD = 3


@dataclass(frozen=True)
class Series:
    """One row over the runs that have it: their places among all runs, and where it changed."""

    fullname: str
    places: tuple[int, ...]
    rows: tuple[Row, ...]
    changes: tuple[int, ...]

    @property
    def reach(self) -> float:
        costs = [cost(row) for row in self.rows]
        return max(costs) / min(costs) if min(costs) > 0 else float("inf")


def in_time(runs: Sequence[Run]) -> list[Run]:
    """The runs by date; as given where one of them tells none."""
    if any(run.moment is None for run in runs):
        return list(runs)
    return sorted(runs, key=lambda run: run.moment)  # type: ignore[arg-type,return-value]  # none is None


def series(runs: Sequence[Run], settings: GateSettings) -> list[Series]:
    """Each row that two or more *runs* (in their order) have, with comparable facts."""
    found: dict[tuple[object, ...], list[tuple[int, Row]]] = {}
    for place, run in enumerate(runs):
        for row in run.rows.values():
            found.setdefault((row.fullname, *comparable_facts(row.facts)), []).append((place, row))
    return [
        Series(
            points[0][1].fullname,
            tuple(place for place, _ in points),
            tuple(row for _, row in points),
            tuple(points[at][0] for at in change_points([row for _, row in points], settings)),
        )
        for points in found.values()
        if len(points) > 1
    ]


def told_changes(all_series: Sequence[Series], runs: Sequence[Run]) -> list[str]:
    """The change points as sentences, one a run: how many rows changed there, and the largest changes."""
    changes: dict[int, list[tuple[float, str]]] = {}
    for one in all_series:
        for place in one.changes:
            index = one.places.index(place)
            changes.setdefault(place, []).append(_told(one.rows[index - 1], one.rows[index]))
    sentences = []
    for place, told in sorted(changes.items()):
        largest = "; ".join(text for _, text in sorted(told, reverse=True)[:_MOST_TOLD])
        rows = "1 row changed" if len(told) == 1 else f"{len(told)} rows changed, the most"
        changed = command_lines(side_of(runs[place - 1 : place]), side_of(runs[place : place + 1]))
        told_of = ", ".join(part for part in (run_name(runs[place]), changed) if part)
        sentences.append(f"Run {place + 1} ({told_of}): {rows}: {largest}.")
    return sentences


def _told(before: Row, after: Row) -> tuple[float, str]:
    unit = "instructions" if after.is_exact_clock else "ns"
    suffix = " instructions" if after.is_exact_clock else ""
    amounts = f"{amount(cost(before), unit)} to {amount(cost(after), unit)}{suffix}"
    low, high = sorted((cost(before), cost(after)))
    return (high / low if low else float("inf")), f"{described(after)} from {amounts}"


def run_name(run: Run) -> str:
    """A run in a few words: its date and kernel, else its file."""
    parts = [run.moment.strftime("%Y-%m-%d %H:%M") if run.moment else run.path.name, run.kernel or ""]
    return ", ".join(part for part in parts if part)


def _chosen(all_series: Sequence[Series]) -> list[list[Series]]:
    """What is drawn, each with those whose line would lie on its own: first one for every change, then what moved most.

    Lines are the same where they differ by less than could be seen.
    """
    bundles: dict[tuple[object, ...], list[Series]] = {}
    for one in sorted(all_series, key=lambda one: -one.reach):
        first = cost(one.rows[0])
        if first > 0:
            heights = tuple(round(cost(row) / first, 2) for row in one.rows)
            bundles.setdefault((one.places, heights), []).append(one)
    waiting = list(bundles.values())
    chosen: list[list[Series]] = []
    for change in sorted({place for one in all_series for place in one.changes}):
        here = [bundle for bundle in waiting if change in bundle[0].changes]
        # The line that shows this change best, unless one is there already whose largest it is.
        if here and not any(_largest(bundle[0]) == change for bundle in chosen):
            best = max(here, key=lambda bundle: (_largest(bundle[0]) == change, bundle[0].reach))
            chosen.append(best)
            waiting.remove(best)
    waiting.sort(key=lambda bundle: (-len(bundle[0].changes), -bundle[0].reach))
    return [*chosen, *waiting][:_MOST_LINES]


def _largest(one: Series) -> int | None:
    """The run of the largest of its changes."""

    def step(place: int) -> float:
        index = one.places.index(place)
        low, high = sorted((cost(one.rows[index - 1]), cost(one.rows[index])))
        return high / low if low else float("inf")

    return max(one.changes, key=step, default=None)


def _name(bundle: Sequence[Series]) -> str:
    if len(bundle) == 1:
        return described(bundle[0].rows[-1])
    common = kind_of_row([one.rows[-1].facts for one in bundle if _kind(one) == _kind(bundle[0])], bundle[0].fullname)
    return f"{common} (1 of {len(bundle)} alike)"


def _kind(one: Series) -> tuple[object, ...]:
    facts = one.rows[-1].facts
    return facts.step, buffer_kind(facts)


def history_figure(all_series: Sequence[Series], runs: Sequence[Run]) -> str | None:
    """The rows that moved most over *runs*; None when fewer than two runs have a row in common."""
    bundles = _chosen(all_series)
    chosen = [bundle[0] for bundle in bundles]
    if not chosen:
        return None
    with drawing(10, 5.2) as (figure, (axes,)):
        for index, one in enumerate(chosen):
            first = cost(one.rows[0])
            heights = [cost(row) / first for row in one.rows]
            axes.plot(
                one.places,
                heights,
                marker=MARKERS[index % len(MARKERS)],
                linestyle=DASHES[index % len(DASHES)],
                color=COLOURS[index % len(COLOURS)],
                linewidth=1.4,
                markersize=5,
                label=label(_name(bundles[index])),
            )
            for place in one.changes:
                axes.plot(
                    [place],
                    [heights[one.places.index(place)]],
                    marker="o",
                    markersize=13,
                    fillstyle="none",
                    color="#000000",
                    linestyle="none",
                )
        for place in sorted({place for one in chosen for place in one.changes}):
            axes.axvline(place - 0.5, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)))
            axes.annotate(
                f"change at run {place + 1}",
                (place - 0.5, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                fontsize=8,
                rotation=90,
            )
        if max(one.reach for one in chosen) > 5:
            axes.set_yscale("log")
            ratio_axis(axes.yaxis, 1.0, max(one.reach for one in chosen))
        axes.set_xticks(
            range(len(runs)),
            [f"{place + 1}\n{run.kernel or ''}" for place, run in enumerate(runs)],
            fontsize=7,
            rotation=0 if len(runs) <= 6 else 60,
        )
        axes.set_xlabel("run, in order of date (circled: first run of a new level)")
        axes.set_ylabel("cost / cost in the first run")
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        return svg(figure, "history")
