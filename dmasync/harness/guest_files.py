"""Which host folders a guest must see, which of them virtme-ng's guest hides, and the environment inside.

The guest's root is the host's, but some folders of it are new and empty in the guest. What is needed of them is brought
in as a mount of its own, under the same path.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from dmasync.harness.guest_script import GUEST_FOLDER, Share

HIDDEN = (
    "/dev",
    "/proc",
    "/run",
    "/sys",
    "/var/cache",
    "/var/lib/apt",
    "/var/lib/machines",
    "/var/lib/portables",
    "/var/lib/private",
    "/var/log",
    "/var/run",
    "/var/spool/rsyslog",
    "/var/tmp",  # noqa: S108
)
"""Folders that virtme-ng's init mounts something new over."""

WRITABLE = ("/etc", "/lib", "/usr", "/var", "/tmp")  # noqa: S108
"""Folders that already have a throw-away layer: virtme-ng's own."""


def shares(wanted: Iterable[Path], output: Path | None) -> list[Share]:
    """Return the mounts that make *wanted*, this Python and *output* visible in the guest under the same paths."""
    needed = [path.absolute() for path in (*wanted, *python_folders())]
    hidden = sorted({path for path in needed if is_hidden(path) and path.is_dir()})
    outermost = [path for path in hidden if not any(other in path.parents for other in hidden)]
    found = [Share(path, path, writable=False) for path in outermost]
    if output is not None:
        found.append(Share(output.absolute(), output.absolute(), writable=True))
    return found


def overlays(working_directory: Path) -> list[Path]:
    """Return the folders that need a throw-away layer so that the working directory can be written to."""
    path = working_directory.absolute()
    if is_hidden(path) or path == Path("/") or any(_below(path, folder) for folder in WRITABLE):
        return []
    return [Path("/", path.parts[1])]


def is_hidden(path: Path) -> bool:
    """Tell whether the guest has something else in the place of this host path."""
    hidden = HIDDEN if os.geteuid() == 0 else (*HIDDEN, "/root")
    return any(_below(form, folder) for folder in hidden for form in (path, Path(os.path.realpath(path))))


def python_folders() -> list[Path]:
    """Return the folders that this Python and what it imports live in."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent]
    folders += [Path(entry) for entry in sys.path if entry]
    # The project itself: an editable installation lies outside the environment.
    folders.append(Path(__file__).parents[2])
    return list(dict.fromkeys(folders))


def guest_environment() -> dict[str, str]:
    """Return the variables that a command in the guest gets: the host's Python first on PATH, a home to write to."""
    scripts = Path(sys.executable).parent
    environment = {
        "PATH": f"{scripts}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": f"{GUEST_FOLDER}/home",
        "TMPDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        # The root is read-only where no layer is: do not try.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if sys.prefix != sys.base_prefix:
        environment["VIRTUAL_ENV"] = sys.prefix
    return environment


def _below(path: Path, folder: str) -> bool:
    return path == Path(folder) or Path(folder) in path.parents
