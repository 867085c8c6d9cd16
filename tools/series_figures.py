"""What is found in a year of nights on a shared machine, and how often nothing is found: this judge beside others.

    python tools/series_figures.py [--series 1000] [--seed 1] [--library ruptures] [--library otava]

A quarter of the series each: a **step** of 5 to 20 %, a **creep** of ten nights of +1 %, a **spike** (one night x1.5
to x3), **nothing**. The noise is that of a shared machine: nights that resemble their neighbours (a correlation of 0.6,
2 % wide), 1.5 % on top of that each night alone, and on 4 % of the nights another tenant, who makes them 5 to 60 %
slower.

Each judge sees the series as a lab does, the nights so far (the newest 120): the judge of series every third night
(--every), "yesterday" every night. It alarms when it says that the level rose, once a rise. An alarm within 21 nights
of a planted step or creep has found it. A spike is found if it is named as a single night within 21 nights. Any other
alarm is false. The libraries (pip install ruptures, apache-otava) judge the finished year: precision and recall of the
places where they cut, at most 7 nights off.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from dmasync.harness.judge.nights.series import judge_series

NIGHTS, WINDOW, FIRST, WITHIN, NEAR = 365, 120, 30, 21, 7
KINDS = ("step", "creep", "spike", "nothing")
Floats = NDArray[numpy.float64]


@dataclass(frozen=True)
class Planted:
    """A series and what was planted: its kind, first night, and the first night at the full size."""

    values: Floats
    kind: str
    begin: int
    end: int


def planted(number: int, seed: int) -> Planted:
    source = numpy.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    noise = numpy.zeros(NIGHTS)
    noise[0] = source.normal(0, 0.02)
    for night in range(1, NIGHTS):
        noise[night] = 0.6 * noise[night - 1] + source.normal(0, 0.02 * math.sqrt(1 - 0.6**2))
    noise += source.normal(0, 0.015, NIGHTS)
    noise += (source.random(NIGHTS) < 0.04) * numpy.log(source.uniform(1.05, 1.6, NIGHTS))
    begin = end = int(source.integers(60, 320))
    level = numpy.zeros(NIGHTS)
    if kind == "step":
        level[begin:] = math.log(source.uniform(1.05, 1.2))
    elif kind == "creep":
        end = begin + 9
        level[begin:end] = math.log(1.01) * numpy.arange(1, 10)
        level[end:] = 10 * math.log(1.01)
    elif kind == "spike":
        level[begin] = math.log(source.uniform(1.5, 3))
    return Planted(5000 * numpy.exp(noise + level), kind, begin, end)


def nightly_by_series(one: Planted, every: int) -> tuple[list[int], list[int]]:
    """The nights on which the judge alarms for the first time of a rise, and the spikes that it names in time."""
    alarms: list[int] = []
    known: list[int] = []
    spikes: list[int] = []
    for tonight in range(FIRST, NIGHTS, every):
        begin = max(0, tonight + 1 - WINDOW)
        told = judge_series(one.values[begin : tonight + 1])
        rises = [begin + at for move in told.moves if move.ratio > 1 for at in {move.begin, move.end}]
        if any(all(abs(at - other) > WITHIN for other in known) for at in rises):
            alarms.append(tonight)
        known += rises
        spikes += [begin + at for at in told.spikes if tonight - (begin + at) <= WITHIN]
    return alarms, spikes


def nightly_by_yesterday(one: Planted) -> tuple[list[int], list[int]]:
    values = one.values
    return [night for night in range(FIRST, NIGHTS) if values[night] > 1.1 * values[night - 1]], []


def by_ruptures(values: Floats) -> list[int]:
    import ruptures

    from dmasync.harness.judge.nights import series

    logs = numpy.log(values)
    sigma, long_run = series._noise(logs)
    around = series._running_median(logs)
    clipped = numpy.clip(logs, around - series._CLIP * sigma, around + series._CLIP * sigma)
    found = ruptures.KernelCPD(kernel="linear", min_size=series.SHORTEST_LEVEL).fit(clipped)
    return list(found.predict(pen=series.PRICE * long_run))[:-1]


def by_ruptures_plain(values: Floats) -> list[int]:
    import ruptures

    logs = numpy.log(values)
    sigma = float(numpy.std(numpy.diff(logs)) / math.sqrt(2))
    found = ruptures.KernelCPD(kernel="linear", min_size=5).fit(logs)
    return list(found.predict(pen=2 * sigma**2 * math.log(NIGHTS)))[:-1]


def by_otava(values: Floats) -> list[int]:
    from otava.analysis import compute_change_points

    points, _ = compute_change_points(list(values), window_len=50, max_pvalue=0.001, min_magnitude=0.05)
    return [int(point.index) for point in points]


def by_this_judge(values: Floats) -> list[int]:
    return [at for move in judge_series(values).moves for at in {move.begin, move.end}]


LIBRARIES: dict[str, dict[str, Callable[[Floats], list[int]]]] = {
    "ruptures": {
        "ruptures KernelCPD, noise and price as here": by_ruptures,
        "ruptures KernelCPD, plain noise and BIC": by_ruptures_plain,
    },
    "otava": {"Apache Otava": by_otava},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", metavar="N", type=int, default=1000)
    parser.add_argument(
        "--every", metavar="N", type=int, default=3, help="nights from one look at a series to the next"
    )
    parser.add_argument("--seed", metavar="S", type=int, default=1)
    parser.add_argument("--library", choices=LIBRARIES, action="append", default=[])
    parser.add_argument("--only-libraries", action="store_true", help="leave the nightly table out")
    options = parser.parse_args()
    series = [planted(number, options.seed) for number in range(options.series)]
    if not options.only_libraries:
        judge = functools.partial(nightly_by_series, every=options.every)
        print_nightly("series of 120 nights", judge, series)
        print_nightly("yesterday, 10 %", nightly_by_yesterday, series)
    print(f"\n{'the finished year':46} {'precision':>9} {'recall':>7}  {'ms a series':>11}")
    judges = {"this judge": by_this_judge}
    for library in options.library:
        judges |= LIBRARIES[library]
    for name, judge in judges.items():
        print_offline(name, judge, series)
    return 0


def print_nightly(
    name: str, judge: Callable[[Planted], tuple[list[int], list[int]]], series: Sequence[Planted]
) -> None:
    found: Counter[str] = Counter()
    false: Counter[str] = Counter()
    delays: list[int] = []
    for one in series:
        alarms, spikes = judge(one)
        right = [night for night in alarms if one.begin <= night <= one.end + WITHIN and one.kind in ("step", "creep")]
        found[one.kind] += bool(right) or (one.kind == "spike" and one.begin in spikes)
        false[one.kind] += len(alarms) - len(right)
        delays += [right[0] - one.begin] if right else []
    print(f"\n{name:24} {'series':>7} {'found':>7} {'false alarms a year':>20}")
    for kind in KINDS:
        count = sum(one.kind == kind for one in series)
        told = f"{found[kind]}" if kind != "nothing" else ""
        print(f"{kind:24} {count:7} {told:>7} {false[kind] / count:20.2f}")
    if delays:
        print(f"found after {numpy.median(delays):.0f} nights (median)", flush=True)


def print_offline(name: str, judge: Callable[[Floats], list[int]], series: Sequence[Planted]) -> None:
    cuts = right = hit = there = 0
    began = time.perf_counter()
    for one in series:
        moved = one.kind in ("step", "creep")
        found = judge(one.values)
        good = [at for at in found if moved and one.begin - NEAR <= at <= one.end + NEAR]
        cuts += len(found)
        right += len(good)
        there += moved
        hit += bool(good)
    spent = (time.perf_counter() - began) / len(series)
    print(f"{name:46} {right / max(1, cuts):9.3f} {hit / max(1, there):7.3f}  {spent * 1000:11.1f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
