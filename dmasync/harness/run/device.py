"""--device: a Python file that plays the device beside the program.

It may define ``setup(backend)``, called before the program starts; ``before_sync(backend, fd, flags)`` and
``after_sync(backend, fd, flags)``, called around each START and END of the program, while that waits for its answer.
*fd* is the backend's descriptor of the buffer: a FakeDevice takes it.
"""

from __future__ import annotations

import os
import runpy
from functools import partial
from typing import TYPE_CHECKING

from dmasync.harness.exit_status import CommandError
from dmasync.harness.run.supervisor import Supervisor

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import System


def install(path: str, system: System, run: Supervisor) -> None:
    """Load the file and have its functions called; CommandError where it cannot be used."""
    if not os.path.isfile(path):
        raise CommandError(f"--device {path!r} cannot be loaded: it is no file")
    try:
        names = runpy.run_path(path)
    except Exception as problem:
        raise CommandError(f"--device {path!r} cannot be loaded: {type(problem).__name__}: {problem}") from problem
    functions = {name: names[name] for name in ("setup", "before_sync", "after_sync") if callable(names.get(name))}
    if not functions:
        raise CommandError(f"--device {path!r} defines none of setup, before_sync and after_sync")
    backend = system.backend
    if "before_sync" in functions:
        run.before_sync = partial(functions["before_sync"], backend)
    if "after_sync" in functions:
        run.after_sync = partial(functions["after_sync"], backend)
    if "setup" in functions:
        functions["setup"](backend)
