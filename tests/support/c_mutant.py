"""A mutant of dmasync/_window.c: pieces of its text that occur once, and what stands there instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "dmasync" / "_window.c"


@dataclass(frozen=True)
class Mutant:
    """*tests*: the test files, without ``test_``, to run first."""

    name: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """*text* with every change made. Raises ValueError for a piece that does not occur exactly once."""
        for old, new in self.changes:
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: occurs {text.count(old)} times: {old!r}")
            text = text.replace(old, new)
        return text


def mutant(name: str, old: str, new: str = "", *more: tuple[str, str], tests: str = "core") -> Mutant:
    return Mutant(name, ((old, new), *more), tuple(tests.split()))
