"""Where a judgement goes: standard output always, and the files that were asked for."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmasync.harness.exit_status import CommandError
from dmasync.harness.gate.outputs.machine_readable import judgement_json, junit
from dmasync.harness.gate.outputs.markdown import markdown
from dmasync.harness.gate.outputs.terminal import print_judgement
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import Judgement
from dmasync.harness.runs.reading import Run
from dmasync.harness.runs.writing import refuse_unwritable, write_atomically


@dataclass(frozen=True)
class Outputs:
    """The files asked for; None where one was not."""

    json: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    html: Path | None = None

    @staticmethod
    def add_arguments(group: argparse._ArgumentGroup) -> None:
        for name, what in (
            ("json", "JSON with a versioned schema"),
            ("junit", "JUnit XML"),
            ("markdown", "Markdown for a review comment"),
            ("html", "one self-contained HTML page with pictures"),
        ):
            group.add_argument(f"--{name}", metavar="F", type=Path, help=what)

    @classmethod
    def of(cls, options: argparse.Namespace) -> Outputs:
        return cls(options.json, options.junit, options.markdown, options.html)

    def check(self, inputs: Sequence[Path]) -> None:
        """Before any work: CommandError if a file cannot be written, or is an input or another output."""
        asked = [path for path in (self.json, self.junit, self.markdown, self.html) if path is not None]
        refuse_unwritable(asked, inputs)
        regular = [path.resolve() for path in asked if not path.exists() or path.is_file()]
        if len(set(regular)) != len(regular):
            raise CommandError("two outputs name the same file: one would overwrite the other")

    def put(self, judgement: Judgement, base: Sequence[Run], candidate: Sequence[Run], settings: GateSettings) -> None:
        """Write the files, print the table. CommandError if that fails: a lost verdict is no pass."""
        if self.json:
            write_atomically(self.json, judgement_json(judgement))
        if self.junit:
            write_atomically(self.junit, junit(judgement))
        if self.markdown:
            write_atomically(self.markdown, markdown(judgement))
        if self.html:
            from dmasync.harness.report.page import page  # drawing is slow to load, and seldom asked for

            write_atomically(self.html, page([*base, *candidate], judgement, settings))
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # names may hold what the terminal cannot show
        try:
            print_judgement(judgement)
            sys.stdout.flush()
        except OSError as error:
            raise CommandError(f"cannot write to standard output: {error.strerror}") from None
