"""Programs with the real kernel's recorded answers, to be run against the fake on any host."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.conformance.search_program import digest, from_json, label_of, observe, outcome_of
from tests.conformance.search_world import FakeWorld, Op

FOLDER = Path(__file__).with_name("recorded")


class Answered(NamedTuple):
    """One operation, and what a real kernel said to it."""

    op: Op
    outcome: str
    digest: int


class Difference(NamedTuple):
    """The fake's first answer that is not the recorded one, after *steps* operations of all programs."""

    steps: int
    program: int
    label: str
    fake: str
    kernel: str

    def __str__(self) -> str:
        kernel = "it too, but something else is to be seen" if self.fake == self.kernel else self.kernel
        where = f"program {self.program}, step {self.steps}"
        return f"{where}: {self.label}: the fake says {self.fake}, the kernel said {kernel}"


def programs(file: Path) -> Iterator[list[Answered]]:
    """The programs of one recording."""
    with lzma.open(file, "rt") as lines:
        for line in lines:
            yield [Answered(from_json(op), outcome, number) for op, outcome, number in json.loads(line)]


def first_difference(file: Path) -> tuple[int, Difference | None]:
    """Run all programs of *file* against the fake until it answers differently: the steps run, the difference."""
    steps = 0
    for number, program in enumerate(programs(file)):
        world = FakeWorld()
        try:
            for op, outcome, wanted in program:
                steps += 1
                seen = observe(world, op)
                if digest(seen) != wanted:
                    return steps, Difference(steps, number, label_of(op), outcome_of(seen), outcome)
        finally:
            world.close()
    return steps, None
