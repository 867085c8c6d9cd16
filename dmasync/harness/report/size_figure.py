"""Cost against buffer size: one panel a provider and step, one line an access."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from dmasync.harness.judge.kernel_part import cost
from dmasync.harness.judge.words import bytes_in_words, step_in_words
from dmasync.harness.report.drawing import COLOURS, DASHES, MARKERS, drawing, svg
from dmasync.harness.runs.facts import INSTRUCTIONS, NULL_STEP, RowFacts
from dmasync.harness.runs.reading import Run

_MOST_PANELS = 12
_ARCHITECTURES = {"aarch64": "arm64", "x86_64": "x86-64"}
"""As people write them, and ``--arch`` takes them."""
Panel = tuple[str, ...]
Line = tuple[str, ...]
Points = list[tuple[int, float]]


def size_figure(runs: Sequence[Run], names: tuple[str, str]) -> str | None:
    """The last run as full lines, the first (if another) as thin ones; panels where they differ come first.

    None when no row has a size.
    *names* are what the two are called.
    """
    shown = [runs[-1]] if len(runs) == 1 else [runs[-1], runs[0]]
    panels: dict[Panel, list[dict[Line, Points]]] = defaultdict(lambda: [{} for _ in shown])
    for index, run in enumerate(shown):
        for panel, lines in _panels(run).items():
            panels[panel][index] = lines
    # A single size draws no line; such panels are left out where others have more to show.
    telling = {panel: sides for panel, sides in panels.items() if _sizes(sides) > 1}
    panels = telling or panels
    if not panels:
        return None
    chosen = sorted(panels, key=lambda panel: -sum(len(line) for line in panels[panel][0].values()))
    chosen = sorted(chosen[:_MOST_PANELS], key=lambda panel: (not _differ(panels[panel]), panel))
    columns = 2  # one panel alone would be drawn twice as large
    rows = -(-len(chosen) // columns)
    with drawing(5.2 * columns, 3.3 * rows, columns, rows) as (figure, grid):
        for axes, panel in zip(grid, chosen, strict=False):
            _draw(axes, panel, panels[panel], names)
        for axes in grid[len(chosen) :]:
            axes.set_visible(False)
        return svg(figure, "sizes")


def _panels(run: Run) -> Mapping[Panel, dict[Line, Points]]:
    rows = [row for row in run.rows.values() if row.facts.size and row.facts.step != NULL_STEP]
    interfaces = sorted({row.facts.api or "" for row in rows})
    plain = "fcntl" if "fcntl" in interfaces else next(iter(interfaces), "")
    panels: dict[Panel, dict[Line, Points]] = defaultdict(dict)
    for row in rows:
        if (row.facts.api or "") == plain:
            line = panels[_panel(row.facts)].setdefault(_line(row.facts), [])
            line.append((row.facts.size or 0, cost(row)))
    return panels


def _panel(facts: RowFacts) -> Panel:
    mapped = None if facts.provider == "udmabuf" else facts.attached
    attached = {True: "attached", False: "not attached", None: ""}[mapped]
    step = step_in_words(facts.step) if facts.step else ""
    told = (facts.provider, attached, step, _ARCHITECTURES.get(facts.arch or "", facts.arch), facts.target)
    return (_unit(facts), *(part for part in told if part))


def _line(facts: RowFacts) -> Line:
    return (facts.access,) if facts.access else ()


def _unit(facts: RowFacts) -> str:
    return "instructions" if facts.unit == INSTRUCTIONS else "ns"


def _draw(axes: Axes, panel: Panel, sides: Sequence[dict[Line, Points]], names: tuple[str, str]) -> None:
    accesses = sorted({name for lines in sides for name in lines})
    for index, name in enumerate(accesses):
        for side, lines in enumerate(sides):
            points = sorted(lines.get(name, []))
            if not points:
                continue
            told = ", ".join(name) or "row"
            axes.plot(
                [size for size, _ in points],
                [value for _, value in points],
                marker=MARKERS[index % len(MARKERS)],
                color=COLOURS[index % len(COLOURS)],
                linestyle=DASHES[index % len(DASHES)] if side == 0 else (0, (1, 4)),
                fillstyle="full" if side == 0 else "none",
                linewidth=1.6 if side == 0 else 0.9,
                label=told if len(sides) == 1 else f"{told} ({names[side]})",
            )
    axes.set_xscale("log", base=2)
    costs = [value for lines in sides for points in lines.values() for _, value in points]
    if min(costs) > 0 and max(costs) / min(costs) > 5:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.15 * max(costs))
    sizes = sorted({size for lines in sides for points in lines.values() for size, _ in points})
    axes.set_xticks(sizes, [bytes_in_words(size) for size in sizes], rotation=45 if len(sizes) > 6 else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel(f"{panel[0]} per operation")
    axes.set_title(", ".join(panel[1:]) or "all rows", fontsize=9, fontweight="bold")
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _differ(sides: Sequence[dict[Line, Points]]) -> bool:
    """Whether a size that both sides have costs more than 1 % more on one of them."""
    for name, points in sides[0].items():
        before = dict(sides[-1].get(name, []))
        for size, value in points:
            if size in before and abs(value - before[size]) > 0.01 * before[size]:
                return True
    return False


def _sizes(sides: Sequence[dict[Line, Points]]) -> int:
    return len({size for lines in sides for points in lines.values() for size, _ in points})
