"""Programs with a real kernel's recorded answers, to be run against the fake on any host, or against a real kernel."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tests.conformance.search_program import digest, from_json, label_of, observe, outcome_of
from tests.conformance.search_world import FakeWorld, Op, World

FOLDER = Path(__file__).with_name("recorded")


class Answered(NamedTuple):
    """One operation, and what a real kernel said to it."""

    op: Op
    outcome: str
    digest: int


class Difference(NamedTuple):
    """The first answer that is not the recorded one, after *steps* operations of all programs."""

    steps: int
    program: int
    label: str
    said: str
    recorded: str

    def __str__(self) -> str:
        recorded = "it too, but something else is to be seen" if self.said == self.recorded else self.recorded
        where = f"program {self.program}, step {self.steps}"
        return f"{where}: {self.label}: {self.said}, the recorded kernel said {recorded}"


def programs(file: Path) -> Iterator[list[Answered]]:
    """The programs of one recording."""
    with lzma.open(file, "rt") as lines:
        for line in lines:
            yield [Answered(from_json(op), outcome, number) for op, outcome, number in json.loads(line)]


def first_difference(
    file: Path, make_world: Callable[[], World] = FakeWorld, most: int | None = None
) -> tuple[int, Difference | None]:
    """Run the programs of *file*, *most* of them if given, until one is answered differently.

    Returns the steps run and the difference. *make_world* makes the kernel for each: a fake one unless told otherwise.
    """
    steps = 0
    for number, program in enumerate(islice(programs(file), most)):
        world = make_world()
        try:
            for op, outcome, wanted in program:
                steps += 1
                seen = observe(world, op)
                if digest(seen) != wanted:
                    return steps, Difference(steps, number, label_of(op), outcome_of(seen), outcome)
        finally:
            world.close()
    return steps, None
