"""What a person sees on standard error while a machine is fetched, built and booted."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol

from rich.status import Status
from rich.text import Text

from dmasync.harness.console import console


class Progress(Protocol):
    """Told what is being done; each phase replaces the one before."""

    def phase(self, text: str) -> None:
        """Say what begins now."""

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""

    def done(self) -> None:
        """Nothing more is being done: leave the screen to what comes next."""


class SilentProgress:
    """Says nothing; what the Python interface uses unless told otherwise."""

    def phase(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def done(self) -> None:
        pass


class ConsoleProgress:
    """A line that moves on a terminal, a plain line a phase elsewhere; always on standard error.

    A context manager: the terminal is given back however the block ends.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._console = console(sys.stderr)
        self._status: Status | None = None
        self._started = time.monotonic()

    def phase(self, text: str) -> None:
        if not self._console.is_terminal or self._console.color_system is None:
            # A moving line takes escape sequences, which NO_COLOR and a dumb terminal do not want.
            self.note(text)
        elif self._status is None:
            self._status = self._console.status(Text(f"{self._prefix}: {text}"))
            self._status.start()
        else:
            self._status.update(Text(f"{self._prefix}: {text}"))

    def note(self, text: str) -> None:
        print(f"{self._prefix}: {text}", file=sys.stderr, flush=True)  # noqa: T201

    def done(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done()
