"""``dmasync record``: run a program on the real kernel, and write down what it asks of it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.option_types import given_text
from dmasync.harness.run import command as front_door
from dmasync.harness.run.outputs import Outputs

_NOTHING: Final = "dmasync record: nothing was recorded: the program asked nothing of dma-bufs\n"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync record``."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="TRACE",
        type=given_text,
        default="dmasync-trace.jsonl",
        help="where the trace goes (default: dmasync-trace.jsonl)",
    )
    parser.add_argument(
        "program",
        metavar="PROGRAM",
        nargs=argparse.REMAINDER,
        help="the program and its arguments, in any language; a file that ends in .py is run by this Python",
    )
    parser.epilog = (
        "The short name of: dmasync run --on kernel --trace TRACE -- PROGRAM, with stacks. The exit status is the "
        "program's, 128 + N if signal N ended it; 2 for unusable arguments."
    )


def run(options: argparse.Namespace) -> int:
    """Run the program; its exit status."""
    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        raise CommandError("PROGRAM is missing: dmasync record -o TRACE -- PROGRAM")
    command = _command(program)
    trace = Outputs({"TRACE": options.output}, filter(os.path.isfile, command))
    try:
        return _through_the_door(trace, options.output, program, command)
    except CommandError as problem:
        if problem.status != ExitStatus.SKIPPED or not _is_python(command[0]):
            raise
        sys.stderr.write(f"dmasync record: {problem}; what dmasync's own backend is asked is recorded nevertheless\n")
    return _in_process(options.output, command)


def _command(program: list[str]) -> list[str]:
    """The command line for *program*."""
    path = Path(program[0])
    if path.suffix == ".py" and path.is_file():
        return [sys.executable, *program]
    found = shutil.which(program[0])
    if found is not None:
        return [found, *program[1:]]
    if path.is_file() and _starts_python(path):
        return [sys.executable, *program]
    if path.exists():
        raise CommandError(f"PROGRAM {program[0]!r} is no executable file")
    raise CommandError(f"PROGRAM {program[0]!r} is no file and not on the PATH")


def _starts_python(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first = file.readline(200)
    except OSError as error:
        raise CommandError(f"PROGRAM {str(path)!r} cannot be read: {error.strerror}") from None
    return first.startswith(b"#!") and b"python" in first


def _is_python(path: str) -> bool:
    return os.path.basename(path).startswith("python")


def _through_the_door(files: Outputs, trace: str, program: list[str], command: list[str]) -> int:
    from dmasync.fakes.journal.words import call_text
    from dmasync.harness.console import counted

    parser = argparse.ArgumentParser()
    front_door.configure(parser)
    outcome = front_door.supervise(parser.parse_args(["--on=kernel"]), command, stacks=True)
    journal = outcome.system.journal
    journal.facts["program"] = list(program)
    files.write(journal)
    entries = [*journal.attempts, *journal.calls]
    answered = any(call.errno == 0 for call in journal.calls) or journal.attempts
    if not entries:
        sys.stderr.write(_NOTHING)
    elif not answered:
        refused = f"{call_text(journal.calls[0], journal.numbers)} was the first of {counted(len(entries), 'call')}"
        sys.stderr.write(f"dmasync record: wrote {trace}, but every call was refused: {refused}\n")
    else:
        told = f"{counted(len(entries), 'call')} of {counted(len({entry.thread for entry in entries}), 'thread')}"
        sys.stderr.write(f"dmasync record: wrote {trace}: {told}\n")
    return outcome.status


def _in_process(trace: str, command: list[str]) -> int:
    """A recorder under the default backend of a Python program: where its system calls cannot be seen."""
    if len(command) < 2 or (command[1] in ("-m", "-c") and len(command) < 3):
        raise CommandError("PROGRAM names an interpreter, but nothing that it should run")
    if command[1].startswith("-") and command[1] not in ("-m", "-c"):
        raise CommandError(f"PROGRAM may give python -m or -c, not {command[1]}")
    Path(trace).unlink(missing_ok=True)
    line = [command[0], "-m", "dmasync.fakes.recording", os.path.abspath(trace), *command[1:]]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # or the folder that this runs in would come first
    try:
        status = subprocess.run(line, env=environment, check=False).returncode
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be started: {error.strerror}") from None
    files = [trace, *sorted(map(str, Path(trace).parent.glob(f"{Path(trace).name}.[0-9]*")))]
    written = [file for file in files if _holds_a_call(file)]
    if written:
        sys.stderr.write(f"dmasync record: wrote {', '.join(written)}\n")
    else:
        sys.stderr.write(_NOTHING)
    return 128 - status if status < 0 else status


def _holds_a_call(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as trace:
            return any(line.startswith(('{"sync"', '{"call"')) for line in trace)
    except FileNotFoundError:
        return False
