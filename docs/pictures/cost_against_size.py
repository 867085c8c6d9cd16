"""Draws cost against size: python docs/pictures/cost_against_size.py X86_64.json ARM64.json cost-against-size.svg.

The runs are those of ``dmasync bench --exact`` and ``dmasync bench --exact --arch arm64``.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from dmasync.harness.runs.reading import Run, load_run

STEPS = {"first-start": "first START", "start": "later START", "end": "END"}
STYLES = {"READ": ("-", "o"), "WRITE": ("--", "s"), "READ_WRITE": (":", "^")}


def main(*names: str) -> None:
    """Draw the runs *names[:-1]* side by side into the last of *names*."""
    *sources, target = names
    runs = [load_run(Path(source)) for source in sources]
    figure = Figure(figsize=(3.3 * len(STEPS), 3.0 * len(runs)), layout="constrained")
    grid = figure.subplots(len(runs), len(STEPS), squeeze=False, sharex=True, sharey=True)
    for run, line in zip(runs, grid, strict=True):
        for step, axes in zip(STEPS, line, strict=True):
            draw(run, step, axes)
        line[0].set_ylabel("instructions per call")
    for axes in grid[-1]:
        axes.set_xlabel("buffer")
    grid[0][0].legend(fontsize="small", frameon=False)
    figure.savefig(target, metadata={"Date": None, "Creator": None})


def draw(run: Run, step: str, axes: object) -> None:
    """One step on one architecture: a line for each access, on a udmabuf, through fcntl."""
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    arch = ""
    for row in run.rows.values():
        facts = row.facts
        if (facts.provider, facts.step, facts.api) == ("udmabuf", step, "fcntl") and facts.size and facts.access:
            lines[facts.access].append((facts.size, row.median * 1e9))
            arch = {"aarch64": "arm64", "x86_64": "x86-64"}.get(facts.arch or "", facts.arch or "")
    for access, (dashes, marker) in STYLES.items():
        points = sorted(lines[access])
        axes.plot(*zip(*points, strict=True), dashes, marker=marker, label=access, markersize=4)  # type: ignore[attr-defined]
    axes.set(xscale="log", yscale="log", title=f"{arch}: {STEPS[step]}")  # type: ignore[attr-defined]
    sizes = sorted({size for points in lines.values() for size, _ in points})
    names = [f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB" for size in sizes]
    axes.set_xticks(sizes, names, rotation=60, ha="right", rotation_mode="anchor")  # type: ignore[attr-defined]
    axes.minorticks_off()  # type: ignore[attr-defined]
    axes.grid(color="#cccccc", linewidth=0.5)  # type: ignore[attr-defined]
    if any(max(points)[0] < largest(run) for points in lines.values()):
        told = "a line ends where no larger\nbuffer was measured"
        axes.text(0.97, 0.04, told, ha="right", fontsize="small", transform=axes.transAxes)  # type: ignore[attr-defined]


def largest(run: Run) -> int:
    """The largest buffer of any row that is drawn."""
    drawn = (row.facts for row in run.rows.values())
    return max(facts.size or 0 for facts in drawn if facts.provider == "udmabuf" and facts.step in STEPS)


if __name__ == "__main__":
    main(*sys.argv[1:])
