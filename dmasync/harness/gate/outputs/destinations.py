"""Where a judgement goes: standard output always, and the files that were asked for."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.gate.outputs.machine_readable import judgement_json, junit
from dmasync.harness.gate.outputs.markdown import markdown
from dmasync.harness.gate.outputs.terminal import print_judgement
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import Judgement
from dmasync.harness.option_types import given_path
from dmasync.harness.runs.reading import Run
from dmasync.harness.runs.writing import refuse_unwritable, write_atomically


@dataclass(frozen=True)
class Outputs:
    """The files asked for; None where one was not."""

    json: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    html: Path | None = None
    all_rows: bool = False
    """On a terminal: each row, instead of those that changed."""

    @staticmethod
    def add_arguments(group: argparse._ArgumentGroup) -> None:
        for name, what in (
            ("json", "JSON with a versioned schema"),
            ("junit", "JUnit XML"),
            ("markdown", "Markdown for a review comment"),
            ("html", "one self-contained HTML page with pictures"),
        ):
            group.add_argument(f"--{name}", metavar="F", type=given_path, help=what)
        group.add_argument("--all", action="store_true", help="on a terminal: each row, also those that are the same")

    @classmethod
    def of(cls, options: argparse.Namespace) -> Outputs:
        return cls(options.json, options.junit, options.markdown, options.html, options.all)

    def check(self, inputs: Sequence[Path]) -> None:
        """Before any work: CommandError if a file cannot be written, or is an input or another output."""
        asked = [path for path in (self.json, self.junit, self.markdown, self.html) if path is not None]
        refuse_unwritable(asked, inputs)
        regular = [path.resolve() for path in asked if not path.exists() or path.is_file()]
        if len(set(regular)) != len(regular):
            raise CommandError("two outputs name the same file: one would overwrite the other")

    def put(self, judgement: Judgement, base: Sequence[Run], candidate: Sequence[Run], settings: GateSettings) -> None:
        """Write the files, print the table. A file that cannot be written is told, and the others are written.

        CommandError if standard output cannot be written, or a file where the judgement is good: a lost verdict is no
        pass. Any other judgement stands without the file.
        """
        lost = list(self._written(judgement, base, candidate, settings))
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # names may hold what the terminal cannot show
        try:
            print_judgement(judgement, everything=self.all_rows)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CommandError(f"cannot write to standard output: {error.strerror}") from None
        if lost and judgement.status == ExitStatus.GOOD:
            raise lost[0]
        for loss in lost:
            print(f"dmasync gate: {loss}", file=sys.stderr)  # noqa: T201

    def _written(
        self, judgement: Judgement, base: Sequence[Run], candidate: Sequence[Run], settings: GateSettings
    ) -> Iterator[CommandError]:
        """Write each file that was asked for; yield what kept one from being written."""

        def drawn() -> str:
            from dmasync.harness.report.page import page  # drawing is slow to load, and seldom asked for

            return page([*base, *candidate], judgement, settings)

        files: tuple[tuple[Path | None, Callable[[], str]], ...] = (
            (self.json, lambda: judgement_json(judgement)),
            (self.junit, lambda: junit(judgement)),
            (self.markdown, lambda: markdown(judgement)),
            (self.html, drawn),
        )
        for path, content in files:
            if path is None:
                continue
            try:
                write_atomically(path, content())
            except CommandError as error:
                yield error
