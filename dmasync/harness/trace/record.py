"""``dmasync record``: run a Python program on the real kernel, and write down what it asks of it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

from dmasync.harness.exit_status import CommandError, ExitStatus


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync record``."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="TRACE",
        default="dmasync-trace.jsonl",
        help="where the trace goes (default: dmasync-trace.jsonl)",
    )
    parser.add_argument(
        "program",
        metavar="PROGRAM",
        nargs=argparse.REMAINDER,
        help="a Python script or console script, or python [-m MODULE | -c CODE | SCRIPT], with its arguments",
    )
    parser.epilog = (
        "The program needs no change: what it does through dmasync's default backend is recorded. The exit status "
        "is the program's, 128 + N if signal N ended it."
    )


def run(options: argparse.Namespace) -> int:
    """Run the program; its exit status."""
    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        raise CommandError("PROGRAM is missing: dmasync record -o TRACE -- PROGRAM")
    interpreter, arguments = _as_python(program)
    folder = os.path.dirname(os.path.abspath(options.output))
    if not os.path.isdir(folder):
        raise CommandError(f"TRACE cannot be written: there is no folder {folder}")
    command = [interpreter, "-m", "dmasync.fakes.recording", os.path.abspath(options.output), *arguments]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # or the folder that this runs in would come first
    try:
        status = subprocess.run(command, env=environment, check=False).returncode
    except OSError as error:
        raise CommandError(f"{interpreter} cannot be started: {error.strerror}") from None
    if not _holds_a_call(options.output):
        sys.stderr.write("dmasync record: nothing was recorded: the program never used the default backend" + "\n")
    else:
        sys.stderr.write(f"dmasync record: wrote {options.output}" + "\n")
    return 128 - status if status < 0 else status


def _as_python(program: list[str]) -> tuple[str, list[str]]:
    """The interpreter and its command line for *program*."""
    name = os.path.basename(program[0])
    if name.startswith("python") and not name.endswith(".py"):
        interpreter = shutil.which(program[0])
        if interpreter is None:
            raise CommandError(f"PROGRAM {program[0]!r} is not on the PATH")
        if len(program) < 2 or (program[1] in ("-m", "-c") and len(program) < 3):
            raise CommandError("PROGRAM names an interpreter, but nothing that it should run")
        if program[1].startswith("-") and program[1] not in ("-m", "-c"):
            raise CommandError(f"PROGRAM may give python -m or -c, not {program[1]}")
        return interpreter, program[1:]
    path = program[0] if os.path.exists(program[0]) else shutil.which(program[0])
    if path is None or os.path.isdir(path):
        raise CommandError(f"PROGRAM {program[0]!r} is no file and not on the PATH")
    if not path.endswith(".py") and not _starts_python(path):
        raise CommandError(f"PROGRAM {program[0]!r} is no Python program: its first line names no Python")
    return sys.executable, [path, *program[1:]]


def _starts_python(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            first = file.readline(200)
    except OSError as error:
        raise CommandError(f"PROGRAM {path!r} cannot be read: {error.strerror}", ExitStatus.UNUSABLE) from None
    return first.startswith(b"#!") and b"python" in first


def _holds_a_call(path: str) -> bool:
    """Whether there is more in the trace than its first line, which says what it is."""
    try:
        with open(path, "rb") as trace:
            return bool(trace.readline()) and bool(trace.readline())
    except FileNotFoundError:
        return False
