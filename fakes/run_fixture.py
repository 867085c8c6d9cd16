"""What the fixture ``dmasync_run`` gives: a test runs a program, in whatever language, on the fake kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmasync.fakes.journal import Journal
    from dmasync.fakes.layers.faults import Fault
    from dmasync.fakes.sanitizer import Finding


@dataclass(frozen=True)
class RunResult:
    """What a program did on the fake kernel."""

    status: int
    """Of ``dmasync run``: see there."""
    output: str
    """The program's standard output."""
    errors: str
    """Its standard error, with what ``dmasync run`` said."""
    trace: Path
    """The file that the journal came from, for ``dmasync replay``."""

    @property
    def journal(self) -> Journal:
        """Every START and END, every other call of a backend."""
        from dmasync.fakes.journal import Journal

        return Journal.load(self.trace)

    @property
    def findings(self) -> list[Finding]:
        """What a Sanitizer finds in the journal; descriptors that are still open at the end are not among it."""
        from dmasync.fakes.sanitizer import Sanitizer

        return Sanitizer(self.journal, leaks=False).findings()


class ProgramRunner:
    """Call it with a program and its arguments; returns a :class:`RunResult`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs = 0

    def __call__(
        self,
        program: str | os.PathLike[str],
        *arguments: str | os.PathLike[str],
        faults: Iterable[Fault | str] = (),
        options: Sequence[str] = (),
        check: bool = True,
        timeout: float = 60,
        **how: Any,
    ) -> RunResult:
        """Run it under the plans *faults*, with *options* of ``dmasync run`` besides; *check* watches the bytes as
        well. After *timeout* seconds it is killed. *how* goes to subprocess.run: cwd, env, input.
        """
        self._runs += 1
        trace = self._folder / f"trace-{self._runs}.jsonl"
        command = [sys.executable, "-m", "dmasync", "run", f"--trace={trace}", f"--timeout={timeout}", *options]
        command += ["--check"] if check else []
        command += [f"--fault={plan if isinstance(plan, str) else repr(plan)}" for plan in faults]
        command += ["--", *(str(os.fspath(word)) for word in (program, *arguments))]
        environment: Mapping[str, str] | None = how.pop("env", None)
        done = self._run(command, env=environment, timeout=timeout + 60, **how)
        return RunResult(done.returncode, done.stdout, done.stderr, trace)

    def _run(self, command: Sequence[str], **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, check=False, capture_output=True, text=True, **how)
