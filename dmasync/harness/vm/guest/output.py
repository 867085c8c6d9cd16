"""What a guest writes, as it comes, and what its console said in the end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO

from dmasync.harness.vm.guest import scripts


class Follower(contextlib.ExitStack):
    """Reads what the guest writes to the control folder, as it comes."""

    def __init__(self, control: Path, stdout: BinaryIO | None, stderr: BinaryIO | None) -> None:
        super().__init__()
        self._control = control
        self._sinks = {
            name: (sink, self.enter_context((control / name).open("rb")))
            for name, sink in ((scripts.STDOUT, stdout), (scripts.STDERR, stderr))
            if sink is not None
        }

    def has(self, name: str) -> bool:
        return (self._control / name).exists()

    def read(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self._control / name).read_text(encoding="utf-8", errors="replace").strip()
        return ""

    def pump(self) -> None:
        for sink, source in self._sinks.values():
            while block := source.read(1 << 16):
                sink.write(block)
                sink.flush()

    def text(self, name: str) -> str:
        if name in self._sinks:
            return ""
        return (self._control / name).read_text(encoding="utf-8", errors="backslashreplace")


def console_of(scratch: Path) -> str:
    return (scratch / "console").read_text(encoding="utf-8", errors="replace")


def last_words(console: str) -> str:
    """Pick the line of *console* that says why it ended, as the tail of a sentence: the panic's, else the last."""
    lines = [line.strip() for line in console.replace("\r", "").splitlines() if line.strip()]
    panics = [line for line in lines if "Kernel panic" in line]
    return f": {panics[0] if panics else lines[-1]}" if lines else ""
