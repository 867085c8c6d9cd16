"""Shell command lines that the caller gave: build commands, measuring commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from dmasync.harness.exit_status import CommandError
from dmasync.harness.vm.guard import guarded

OUTPUT_VARIABLE = "DMASYNC_RUN"
"""Holds the file that a measuring command must write its run to."""

_NOT_A_COMMAND = (126, 127)


class NotStartedError(Exception):
    """The shell could not start the command: a typo rather than a failure."""


def refuse_unusable(line: str | None, option: str) -> None:
    """Before any work: CommandError if *option* gave an empty line (a variable that is not set) or no shell command."""
    if line is None:
        return
    if not line.strip():
        raise CommandError(f"{option} is empty: give a command, or leave it out")
    checked = subprocess.run(
        ["sh", "-n", "-c", line],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if checked.returncode:
        said = checked.stderr.strip().splitlines() or [f"status {checked.returncode}"]
        raise CommandError(f"{option} {line!r} is no shell command: {said[0]}")


def run_line(line: str, variables: Mapping[str, str]) -> int:
    """Run *line* and return its status; its output goes to standard error, since verdicts go to the other.

    However this ends before it, by a signal or an exception, nothing that it started is left.
    """
    sys.stderr.flush()
    with guarded(["/bin/sh", "-c", line], gently=True, stdout=2, env={**os.environ, **variables}) as process:
        status = int(process.wait())
    if status in _NOT_A_COMMAND:
        raise NotStartedError(f"{line!r} could not be started (status {status})")
    return status
