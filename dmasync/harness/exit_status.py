"""What the command's exit status says; the same for every subcommand but ``vm`` (which passes its command's on)."""

from __future__ import annotations

import enum


class ExitStatus(enum.IntEnum):
    GOOD = 0
    REGRESSION = 1
    """A regression, or a failure of what was run."""
    UNUSABLE = 2
    """Unusable input or arguments."""
    CANNOT_JUDGE = 3
    """Too noisy, nothing in common, nothing measured."""
    SKIPPED = 4
    """What was asked for is not here: kselftest's number."""

    # git bisect run has rules of its own: 125 skips a commit, 128 and above stop the bisection.
    BISECT_SKIP = 125
    BISECT_STOP = 128


class CommandError(Exception):
    """Ends a subcommand with one line on standard error and an exit status."""

    def __init__(self, message: str, status: int = ExitStatus.UNUSABLE) -> None:
        super().__init__(message)
        self.status = status
