"""Where a judgement goes: standard output always, and the files that were asked for."""

from __future__ import annotations

import argparse
import functools
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.formats.kcidb import DEFAULT_ORIGIN, Submitter, kcidb
from dmasync.harness.formats.lines import ktap, lava
from dmasync.harness.formats.mail import mail
from dmasync.harness.formats.numbers_only import action_benchmark, bencher
from dmasync.harness.formats.results import results
from dmasync.harness.gate.outputs.machine_readable import judgement_json, junit
from dmasync.harness.gate.outputs.markdown import markdown
from dmasync.harness.gate.outputs.terminal import print_judgement
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import Judgement
from dmasync.harness.option_types import given_path, given_text
from dmasync.harness.runs.reading import Run
from dmasync.harness.runs.writing import refuse_unwritable, write_atomically

FORMATS = {
    "json": "JSON with a versioned schema",
    "junit": "JUnit XML",
    "markdown": "Markdown for a review comment",
    "html": "one self-contained HTML page with pictures",
    "kcidb": "a KCIDB report, version 5.3, for kcidb-submit",
    "ktap": "a flat KTAP list",
    "lava": "a line a result: the arguments of lava-test-case",
    "bencher": "Bencher Metric Format",
    "action-benchmark": "JSON for github-action-benchmark, customSmallerIsBetter",
    "mail": "plain text for a kernel list",
}
"""Each format's option and what it is."""


@dataclass(frozen=True)
class Outputs:
    """The files asked for, by format (a key of :data:`FORMATS`)."""

    files: Mapping[str, Path] = field(default_factory=dict)
    submitter: Submitter = field(default_factory=Submitter)
    all_rows: bool = False
    """On a terminal: each row, instead of those that changed."""

    @staticmethod
    def add_arguments(group: argparse._ArgumentGroup) -> None:
        for name, what in FORMATS.items():
            group.add_argument(f"--{name}", metavar="F", type=given_path, help=what)
        group.add_argument("--all", action="store_true", help="on a terminal: each row, also those that are the same")
        group.add_argument(
            "--kcidb-origin", metavar="NAME", type=given_text, help="the lab's name in KCIDB (default: dmasync)"
        )
        group.add_argument(
            "--kcidb-build", metavar="ORIGIN:ID", type=given_text, help="the kernel's build, where KCIDB has it already"
        )

    @classmethod
    def of(cls, options: argparse.Namespace) -> Outputs:
        """CommandError for what the formats cannot hold."""
        told = {name: getattr(options, name.replace("-", "_")) for name in FORMATS}
        files = {name: path for name, path in told.items() if path is not None}
        given = (options.kcidb_origin, options.kcidb_build)
        if "kcidb" not in files and any(one is not None for one in given):
            raise CommandError("--kcidb-origin and --kcidb-build are for a report: add --kcidb F")
        submitter = Submitter(DEFAULT_ORIGIN if given[0] is None else given[0], given[1])
        submitter.check()
        return cls(files, submitter, options.all)

    def check(self, inputs: Sequence[Path]) -> None:
        """Before any work: CommandError if a file cannot be written, or is an input or another output."""
        refuse_unwritable({f"--{name}": path for name, path in self.files.items()}, inputs)

    def put(self, judgement: Judgement, base: Sequence[Run], candidate: Sequence[Run], settings: GateSettings) -> None:
        """Write the files, print the table; after both, the files that cannot be written are told in one line.

        CommandError does that where the judgement is good: a lost verdict is no pass. Any other judgement stands
        without its files. OSError if standard output cannot be written.
        """
        lost = list(self._written(judgement, base, candidate, settings))
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # names may hold what the terminal cannot show
        print_judgement(judgement, everything=self.all_rows)
        sys.stdout.flush()
        if lost and judgement.status == ExitStatus.GOOD:
            raise _together(lost)
        if lost:
            print(f"dmasync gate: {_together(lost)}", file=sys.stderr)  # noqa: T201

    def write(
        self, judgement: Judgement, base: Sequence[Run], candidate: Sequence[Run], settings: GateSettings
    ) -> None:
        """Write the files alone; CommandError, after that, names those that cannot be written."""
        if lost := list(self._written(judgement, base, candidate, settings)):
            raise _together(lost)

    def _written(
        self, judgement: Judgement, base: Sequence[Run], candidate: Sequence[Run], settings: GateSettings
    ) -> Iterator[CommandError]:
        """Write each file that was asked for; yield what kept one from being written."""

        def drawn() -> str:
            from dmasync.harness.report.page import page  # drawing is slow to load, and seldom asked for

            return page([*base, *candidate], judgement, settings)

        told = functools.cache(lambda: results(judgement, candidate))
        writers: dict[str, Callable[[], str]] = {
            "json": lambda: judgement_json(judgement),
            "junit": lambda: junit(judgement),
            "markdown": lambda: markdown(judgement),
            "html": drawn,
            "kcidb": lambda: kcidb(judgement, told(), self.submitter),
            "ktap": lambda: ktap(told()),
            "lava": lambda: lava(told()),
            "bencher": lambda: bencher(told()),
            "action-benchmark": lambda: action_benchmark(told()),
            "mail": lambda: mail(judgement, base, candidate),
        }
        for name, path in self.files.items():
            try:
                write_atomically(path, writers[name]())
            except CommandError as error:
                yield error


def _together(lost: Sequence[CommandError]) -> CommandError:
    return CommandError("; ".join(map(str, lost)))
