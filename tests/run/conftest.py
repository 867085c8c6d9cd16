"""C programs, compiled when a test wants them, and run without loading Python for each."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dmasync.fakes.run_fixture import ProgramRunner
from tests.support import warm

PROGRAMS = Path(__file__).with_name("programs")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles ``programs/NAME.c``; more arguments go to the compiler. Each program is compiled once."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("programs")
    done: dict[tuple[str, ...], Path] = {}

    def compile_program(name: str, *arguments: str) -> Path:
        key = (name, *arguments)
        if key not in done:
            program = folder / f"{name}-{len(done)}"
            language = "c++" if (PROGRAMS / f"{name}.cpp").exists() else "c"
            source = PROGRAMS / f"{name}.{'cpp' if language == 'c++' else 'c'}"
            subprocess.run(
                [shutil.which("g++") if language == "c++" else compiler, "-g", "-O1", "-Wall", "-Werror",
                 "-o", program, source, "-pthread", *arguments],
                check=True,
            )  # fmt: skip
            done[key] = program
        return done[key]

    return compile_program


class WarmRunner(ProgramRunner):
    """The fixture that users have, but for the start of Python."""

    def _run(self, command: Sequence[str], **how: Any) -> subprocess.CompletedProcess[str]:
        return warm.python(*command[1:], **how)


@pytest.fixture
def dmasync_run(tmp_path: Path) -> ProgramRunner:
    return WarmRunner(tmp_path)
