"""Journal: a log with its formats."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO, Any

from dmasync.fakes.journal.entries import Transition
from dmasync.fakes.journal.log import Log
from dmasync.fakes.journal.words import access_name


class Journal(Log):
    """Each attempt at START and END, each other call, in order: asked by a test, read by people, kept in files.

    Formats are imported when they are asked for: most journals are only asked.
    """

    def assert_balanced(self) -> None:
        """AssertionError, with the timeline, unless every START was ended once and every END had its START."""
        pairs = self.pairs
        opened, ended = pairs.never_ended, pairs.unmatched_ends
        if opened or ended:
            problems = [f"{_words(entry)} was never ended" for entry in opened]
            problems += [f"{_words(entry)} had no open START" for entry in ended]
            listed = "\n  ".join(problems)
            raise AssertionError(f"windows do not balance:\n  {listed}\n{self.timeline(40)}")

    def timeline(self, last: int | None = None) -> str:
        """Text that a person can read: the *last* entries, or all; runs of equal refusals are one line."""
        from dmasync.fakes.journal.text import text

        return text(self, last)

    def to_trace(self) -> dict[str, Any]:
        """The journal as Chrome/Perfetto trace JSON: windows, attempts, errors and device DMA, by buffer and thread."""
        from dmasync.fakes.journal.perfetto import trace

        return trace(self)

    def to_svg(self) -> str:
        """A chart with a row for each buffer: windows as bars, attempts and errors as marks, device DMA underneath."""
        from dmasync.fakes.journal.svg import svg

        return svg(self)

    def dump(self, file: IO[str] | str | os.PathLike[str]) -> None:
        """Write it as JSON lines (format and version in dmasync.fakes.journal.json_lines)."""
        from dmasync.fakes.journal.json_lines import dump

        dump(self, file)

    @classmethod
    def load(cls, file: IO[str] | str | os.PathLike[str] | Iterable[str]) -> Journal:
        """Read what :meth:`dump` wrote, up to its last whole line. ValueError when it is no trace."""
        from dmasync.fakes.journal.json_lines import load

        return load(file, cls())


def _words(entry: Transition) -> str:
    return f"#{entry.sequence} {entry.step.name} {access_name(entry.access)} of buffer {entry.buffer}"
