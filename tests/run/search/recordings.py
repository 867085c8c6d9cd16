"""Programs and what a kernel answered to them, in a file."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.run.search.ops import Program, from_json, to_json
from tests.run.search.programs import Named


class Recorded(NamedTuple):
    """One program."""

    name: str
    program: Program
    answers: str


class Recorder:
    """Writes a file: a line that names the kernel, and one for each program."""

    def __init__(self, path: Path, kernel: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = lzma.open(path, "wt", encoding="utf-8", preset=9)  # noqa: SIM115 - close() does
        self._write({"kernel": kernel})

    def add(self, named: Named, answers: str) -> None:
        self._write({"name": named.name, "program": to_json(named.program), "answers": answers})

    def _write(self, row: object) -> None:
        self._stream.write(json.dumps(row, separators=(",", ":")) + "\n")

    def close(self) -> None:
        self._stream.close()


def read(path: Path) -> tuple[str, Iterator[Recorded]]:
    """The kernel, and the programs."""
    with lzma.open(path, "rt", encoding="utf-8") as stream:
        head, *rows = map(json.loads, stream)
    return head["kernel"], (Recorded(row["name"], from_json(row["program"]), row["answers"]) for row in rows)
