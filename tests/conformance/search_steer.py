"""Steer the search: more of what brings the fake to places that it rarely reaches.

    python -m tests.conformance.search_steer learn FILE [--steps 200000] [--seed 1000] [--profile 6.12]
    python -m tests.conformance.search_steer compare FILE [--steps 100000] [--seed 2000] [--profile 6.12]

A place is a line of the fake that refuses, told with its errno, or an operation's outcome. ``learn`` runs programs on
the fake, counts for each of the generator's productions the rare places that it reached, and writes new weights. A
program is made again from its seed and that file: ``search_fast --steering FILE``. ``compare`` counts rare places with
it and without.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import collections
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dmasync.fakes.kernel import UnmodelledCallError
from dmasync.fakes.kernel.profile import DEFAULT_PROFILE
from tests.conformance.search import PROGRAM_STEPS
from tests.conformance.search_generator import Generator
from tests.conformance.search_memory import Arena
from tests.conformance.search_program import label_of, observe, outcome_of
from tests.conformance.search_world import FakeWorld

RARE_PER_100_000 = 20
"""A place that is reached less often than this is a rare one."""
_LEAST, _MOST = 0.4, 5.0
"""How far a production's weight may move, as a factor."""
_FINENESS = 10
_TICK = 0.0002

Place = Any
Reached = dict[str, collections.Counter[Place]]
"""How often each production reached each place."""


class _Watched(FakeWorld):
    """The fake, which notes where the last operation was refused."""

    tick = _TICK

    def note(self, failure: OSError) -> None:
        before = dict(self.refusals)
        super().note(failure)
        self.last = [place for place, count in self.refusals.items() if count != before.get(place)]

    last: Sequence[Place] = ()


def reached(
    steps: int, seed: int, profile: str, weights: Mapping[str, int] | None = None
) -> tuple[Reached, collections.Counter[str]]:
    """Run *steps* operations; which production reached what, and how many operations it made."""
    places: Reached = collections.defaultdict(collections.Counter)
    operations: collections.Counter[str] = collections.Counter()
    arena = Arena()
    for number in range(-(-steps // PROGRAM_STEPS)):
        world = _Watched(profile, arena)
        generator = Generator(f"{seed}.{number}", world, weights)
        try:
            for op, _ in zip(generator.ops(), range(min(PROGRAM_STEPS, steps - number * PROGRAM_STEPS)), strict=False):
                world.last = ()
                try:
                    seen = observe(world, op)
                except UnmodelledCallError:
                    continue
                operations[generator.producing] += 1
                places[generator.producing].update([*world.last, (label_of(op), outcome_of(seen))])
        finally:
            world.close()
    arena.close()
    return places, operations


def total(places: Reached) -> collections.Counter[Place]:
    """How often each place was reached at all."""
    whole: collections.Counter[Place] = collections.Counter()
    for counts in places.values():
        whole.update(counts)
    return whole


def learned(places: Reached, operations: Mapping[str, int], weights: Mapping[str, int], steps: int) -> dict[str, int]:
    """New weights: a production whose operations reach more of the rare places than others' is chosen more often.

    Each rare place counts once, divided among those that reached it by how often each did.
    """
    whole = total(places)
    rare = {place for place, count in whole.items() if count * 100_000 < RARE_PER_100_000 * steps}
    yields = {
        name: sum(count / whole[place] for place, count in places[name].items() if place in rare) / operations[name]
        for name in weights
        if operations.get(name)
    }
    mean = sum(yields[name] * operations[name] for name in yields) / sum(operations[name] for name in yields)
    new = {}
    for name, weight in weights.items():
        factor = (yields[name] / mean) if name in yields and mean else 1.0
        new[name] = max(1, round(weight * _FINENESS * min(_MOST, max(_LEAST, factor))))
    return new


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.search_steer", description=__doc__)
    parser.add_argument("command", choices=("learn", "compare"))
    parser.add_argument("file", type=Path, help="the weights, as JSON")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--profile", default=DEFAULT_PROFILE)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGALRM, lambda *_: None)
    places, operations = reached(options.steps, options.seed, options.profile)
    if options.command == "learn":
        own = Generator("", FakeWorld(options.profile)).weights
        weights = learned(places, operations, own, options.steps)
        options.file.write_text(json.dumps(weights, indent=1) + "\n", encoding="utf-8")
        print(f"{len(weights)} productions; most: {sorted(weights, key=lambda name: weights[name] / own[name])[-5:]}")
        return 0
    weights = json.loads(options.file.read_text(encoding="utf-8"))
    steered, _ = reached(options.steps, options.seed, options.profile, weights)
    without, with_it = total(places), total(steered)
    rare = {place for place in without | with_it if without[place] * 100_000 < RARE_PER_100_000 * options.steps}
    for title, counts in (("without", without), ("with", with_it)):
        hits = sum(counts[place] for place in rare)
        print(
            f"{title:8} {len(counts)} places, {sum(counts[place] > 0 for place in rare)} of the rare ones, {hits} times"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
