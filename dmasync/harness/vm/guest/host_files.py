"""What of the host a guest must see, and the environment inside.

A guest on the host's own root sees everything but /dev, /proc and /sys. A guest on a root of another architecture sees
nothing of the host but what is brought in: the project, and what of this Python's packages is pure Python.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from dmasync.harness.vm.guest.scripts import HOME, SITE, Mount

HIDDEN = ("/dev", "/proc", "/sys")
COMPILED = (".so", ".pyd", ".dylib")


def mounts_on_host_root(wanted: Iterable[Path], output: Path | None) -> list[Mount]:
    """Return the mounts that make *wanted* and this Python visible, and *output* writable, under the same paths."""
    needed = {path.absolute() for path in (*wanted, *python_folders())}
    return _outermost(path for path in needed if is_hidden(path)) + _output(output)


def mounts_on_foreign_root(wanted: Iterable[Path], output: Path | None) -> list[Mount]:
    """Return the mounts that bring *wanted* and this Python's own packages to a root that has nothing of the host."""
    needed = {path.absolute() for path in (*wanted, *import_folders(), project_folder())}
    standard_library = Path(os.__file__).parent
    return _outermost(path for path in needed if path not in (standard_library, Path("/"))) + _output(output)


def is_hidden(path: Path) -> bool:
    """Tell whether a guest on the host's root has something else in the place of this path."""
    forms = (path, Path(os.path.realpath(path)))
    return any(form == Path(hidden) or Path(hidden) in form.parents for hidden in HIDDEN for form in forms)


def python_folders() -> list[Path]:
    """Return the folders that this Python and what it imports live in."""
    return [
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(sys.executable).parent,
        project_folder(),
        *import_folders(),
    ]


def import_folders() -> list[Path]:
    """Return the folders of ``sys.path`` that hold installed packages."""
    return [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


def project_folder() -> Path:
    """Return the folder that ``dmasync`` is imported from: a checkout, or site-packages where it is installed."""
    return Path(__file__).parents[4]


def pure_python_links() -> dict[str, Path]:
    """Return the top-level names of the installed distributions that are pure Python, and where each lies.

    A distribution with a compiled module anywhere is left out as a whole, and so is one that needs such a
    distribution: it would be found and then fail to load.
    """
    installed = {
        _canonical(str(distribution.metadata["Name"])): distribution
        for distribution in reversed([*importlib.metadata.distributions(path=[str(path) for path in import_folders()])])
    }
    left_out = {name for name, distribution in installed.items() if not _is_pure(distribution)}
    while lost := {name for name in installed.keys() - left_out if _required(installed[name]) & left_out}:
        left_out |= lost
    links: dict[str, Path] = {}
    for name in installed.keys() - left_out:
        for top in {
            file.parts[0] for file in installed[name].files or () if file.parts[0] not in ("..", "__pycache__")
        }:
            # .pth files are read by Python itself from folders of its own only.
            if not top.endswith(".pth"):
                links[top] = Path(str(installed[name].locate_file(top)))
    return dict(sorted(links.items()))


def _is_pure(distribution: importlib.metadata.Distribution) -> bool:
    files = distribution.files
    return files is not None and not any(file.suffix in COMPILED for file in files)


def _required(distribution: importlib.metadata.Distribution) -> set[str]:
    """What *distribution* cannot do without: the names of its requirements that no extra asks for."""
    needs = (text for text in distribution.requires or () if "extra" not in text.partition(";")[2])
    return {_canonical(match[0]) for text in needs if (match := re.match(r"[\w.-]+", text))}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def environment_on_host_root() -> dict[str, str]:
    """Return the variables of a command that runs this very Python."""
    environment = {**_environment(), "PATH": f"{Path(sys.executable).parent}:{_environment()['PATH']}"}
    if sys.prefix != sys.base_prefix:
        environment["VIRTUAL_ENV"] = sys.prefix
    return environment


def environment_on_foreign_root() -> dict[str, str]:
    """Return the variables of a command that runs the foreign root's Python with this one's pure packages."""
    return {**_environment(), "PYTHONPATH": f"{project_folder()}:{SITE}"}


def _environment() -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": HOME,
        "TMPDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        # They would land in a layer that is thrown away.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _outermost(paths: Iterable[Path]) -> list[Mount]:
    folders = sorted({path for path in paths if path.is_dir()})
    return [Mount(path, path) for path in folders if not any(other in path.parents for other in folders)]


def _output(output: Path | None) -> list[Mount]:
    return [] if output is None else [Mount(output.absolute(), output.absolute(), writable=True)]
