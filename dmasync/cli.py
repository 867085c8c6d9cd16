"""The command ``dmasync``: finds the subcommand, calls it, turns its errors into one line and an exit status.

Each subcommand is a module in a package of :mod:`dmasync.harness` with ``configure(parser)`` and
``run(options) -> int``. Only the one that is called is imported,
so that ``dmasync probe`` needs nothing that ``dmasync gate`` needs.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import io
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn

from dmasync.harness import signals

COMMANDS = {
    "probe": "what this host offers, what is missing and the command that fixes it",
    "vm": "run a command on a real kernel in a virtual machine",
    "bench": "run the suites, write pytest-benchmark JSON",
    "gate": "judge two runs, two kernels or two kernel command lines",
    "history": "keep, list and prune runs, judge a night, ask a fleet's store",
    "report": "pictures: cost against size, history, timelines",
    "model": "fit cost = a + b * bytes and answer what a frame costs",
    "run": "run any program on the fake kernel, or on the real one behind the same layers",
    "record": "run any program on the real kernel and write down what it asks of dma-bufs",
    "replay": "run a recorded journal against the fake",
}

_SIGNALLED = 128
"""An exit status from here on tells of a signal, or stops git."""
MODULES = {"record": "trace.record", "replay": "trace.replay"}
"""Where a command's module is not ``command`` in the package of its name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dmasync`` with *argv* (default: the process's own) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] != ["gate"] or not any(argument.startswith("--bi") for argument in arguments):
        return _dispatch(arguments)
    # git bisect run takes 1 to 127 for a bad commit: a typo or a missing package must stop it instead.
    try:
        return _dispatch(arguments)
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
    except Exception as error:
        print(f"dmasync gate --bisect: internal error: {type(error).__name__}: {error}", file=sys.stderr)
    return 128


def _dispatch(arguments: list[str]) -> int:
    _open_what_is_closed()
    with signals.answering(signals.leave), _remembering_standard_output() as output:
        ended: SystemExit | None = None
        try:
            status = _run(arguments)
        except OSError as error:
            if output is None or error is not output.failure:  # of which the end tells
                where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
                print(f"{_named(arguments)}: {error.strerror or error}{where}", file=sys.stderr)
            # Python's own status for an exception is 1, which says "regressed" or "a finding".
            ended, status = SystemExit(2), 2
        except KeyboardInterrupt:  # also while a command's modules are being imported
            status = 130
        except SystemExit as error:
            ended, status = error, error.code if isinstance(error.code, int) else 0
        lost = _last_flush(output)
        if lost is not None and status < _SIGNALLED:
            # Whatever was found: half of a result, or none, is no answer. A reader that has seen enough, as head has,
            # needs no word.
            if not isinstance(lost, BrokenPipeError):
                print(f"{_named(arguments)}: cannot write to standard output: {lost.strerror}", file=sys.stderr)
            raise SystemExit(2) from None
        if ended is not None:
            raise ended
        return status


def _named(arguments: Sequence[str]) -> str:
    return " ".join(["dmasync", *(word for word in arguments[:1] if word in COMMANDS)])


def _run(arguments: list[str]) -> int:
    parser = build_parser(arguments[:1])
    options = _parsed(parser, arguments)
    from dmasync.harness.exit_status import CommandError

    try:
        return int(options.run(options))
    except (BrokenPipeError, SystemExit) as error:
        # rich turns a reader that went away into SystemExit(1), which would be a regression.
        if isinstance(error, SystemExit) and error.code != 1:
            raise
        raise SystemExit(2) from None
    except CommandError as error:
        print(f"dmasync {options.command}: {error}", file=sys.stderr)
        return error.status


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The options; a mistake ends the process with the usage of the command that it was made in."""
    name = arguments[0] if arguments else ""
    if name and not name.startswith("-") and name not in COMMANDS:
        known = f"expected one of {', '.join(COMMANDS)}"
        parser.error(f"there is no command {name!r}{_nearest(name, COMMANDS) or f': {known}'}")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(options.parser, unknown)
    return options


def _refuse(failing: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    known_options = failing._option_string_actions  # argparse has no public door to them
    told = _nearest(unknown[0].partition("=")[0], known_options) if unknown[0].startswith("-") else ""
    message = f"unrecognized arguments: {' '.join(unknown)}{told}"
    if "'--bisect'" in told:  # git would take 2 for a bad commit
        print(f"{failing.prog}: {message}", file=sys.stderr)
        raise SystemExit(128)
    failing.error(message)


def _nearest(word: str, known: Collection[str]) -> str:
    found = difflib.get_close_matches(word, known, 1)
    return f": did you mean {found[0]!r}?" if found else ""


def build_parser(commands: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of ``dmasync``, with the arguments of *commands*; the other commands are named and have none.

    The reference pages, the manual page and the shell completions are made from it.
    """
    parser = argparse.ArgumentParser(
        prog="dmasync", description="Is our dma-buf CPU access right, and what does it cost?"
    )
    parser.add_argument("-V", "--version", action=_ShowVersion)
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh", "tcsh", "fish"),
        help="print a completion script for this shell",
    )
    from dmasync.harness.help_texts import HelpFormatter, epilog

    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name in commands:
            module = _load(name)
            module.configure(subparser)
            subparser.add_argument("-V", "--version", action=_ShowVersion)
            subparser.formatter_class = HelpFormatter
            subparser.epilog = epilog(name, subparser.epilog)
            subparser.set_defaults(run=module.run, parser=subparser)
    return parser


class _PrintCompletion(argparse.Action):
    """Writes the script from all commands' parsers, which only then are imported."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, values: object, *rest: object) -> None:
        try:
            shtab = importlib.import_module("shtab")
        except ModuleNotFoundError:
            parser.exit(4, "dmasync: completion needs the package 'shtab': python3 -m pip install shtab\n")
        print(shtab.complete(build_parser(), shell=values))
        parser.exit(0)


def _open_what_is_closed() -> None:
    """Python has None for a standard stream that was closed; what is written there is for nobody."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


class _StandardOutput(io.FileIO):
    """Standard output that remembers what kept it from being written: argparse, for one, passes over that."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@contextlib.contextmanager
def _remembering_standard_output() -> Iterator[_StandardOutput | None]:
    """Print through a :class:`_StandardOutput` while the block runs; None where the caller has put something else in
    the place of standard output, which then stays.
    """
    usual = sys.stdout
    if usual is not sys.__stdout__ or not isinstance(usual, io.TextIOWrapper):
        yield None
        return
    usual.flush()
    output = _StandardOutput(usual.fileno(), "wb", closefd=False)
    unbuffered: bool = isinstance(usual.buffer, io.RawIOBase)  # PYTHONUNBUFFERED
    told = io.TextIOWrapper(
        output if unbuffered else io.BufferedWriter(output),  # as Python itself does
        encoding=usual.encoding,
        errors=usual.errors,
        newline="\n",
        line_buffering=usual.line_buffering,
        write_through=usual.write_through,
    )
    sys.stdout = told
    try:
        yield output
    finally:
        sys.stdout = usual


def _last_flush(output: _StandardOutput | None) -> OSError | None:
    """What kept standard output from being written. Asked here, and not when the interpreter ends, which would replace
    the exit status by 120.
    """
    failure = None
    try:
        sys.stdout.flush()
    except OSError as error:
        failure = error
    if output is not None:
        failure = output.failure or failure
    if failure is not None:
        # What is still in the buffer goes nowhere, and no later flush fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return failure


class _ShowVersion(argparse.Action):
    """argparse's own wants the text beforehand, and to look it up is a tenth of a short command's time."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        import importlib.metadata

        try:
            version = importlib.metadata.version("dmabuf-sync")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"dmasync {version}")
        parser.exit()


def _load(name: str):  # type: ignore[no-untyped-def]  # a module is what importlib promises, no more
    try:
        return importlib.import_module(f"dmasync.harness.{MODULES.get(name, name + '.command')}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("dmasync"):
            raise
        print(
            f"dmasync {name}: needs the package {error.name!r}: python3 -m pip install 'dmabuf-sync[harness]'",
            file=sys.stderr,
        )
        raise SystemExit(4) from None
