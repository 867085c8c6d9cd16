"""The programs of a search, by their seeds and from files."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.run.search.generating import buffers, mappings, moves, processes
from tests.run.search.generating.generator import Generator
from tests.run.search.ops import Program, encoded, from_json, to_json

PRODUCTIONS = (*buffers.PRODUCTIONS, *processes.PRODUCTIONS, *mappings.PRODUCTIONS, *moves.PRODUCTIONS)
STEPS = 80
"""Of one program, at least; what looks at everything comes in addition."""
LOOKS = ("look", "peek")


class Named(NamedTuple):
    """A program, and what it is called."""

    name: str
    program: Program
    left_out: collections.Counter[str]

    @property
    def steps(self) -> int:
        return sum(command.op not in LOOKS for command in self.program)

    @property
    def encoded(self) -> bytes:
        return encoded(self.program)


def random_program(seed: int, number: int, steps: int = STEPS) -> Named:
    """The program of that number."""
    generator = Generator(f"{seed}.{number}", PRODUCTIONS)
    return Named(f"{seed}.{number}", generator.make(steps), generator.left_out)


def from_files(paths: list[Path]) -> Iterator[Named]:
    """Programs that :func:`keep` wrote."""
    for path in paths:
        kept = json.loads(path.read_text(encoding="utf-8"))
        yield Named(path.stem, from_json(kept["program"]), collections.Counter())


def keep(folder: Path, name: str, program: Program, kernel: str, answers: str) -> Path:
    """Write *program* to a file of *folder*, with what that kernel answered."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    rows = ",\n".join(json.dumps(row) for row in to_json(program))
    lines = json.dumps(answers.splitlines(), indent=0)
    path.write_text(f'{{"kernel": "{kernel}",\n"program": [\n{rows}\n],\n"answers": {lines}}}\n', encoding="utf-8")
    return path
