"""Which run files are meant where files and folders are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dmasync.harness.exit_status import CommandError
from dmasync.harness.runs.reading import printable


def files_of(given: Sequence[str | None]) -> list[Path]:
    """The run files that were named; a folder stands for the ``.json`` files in it. No file counts twice."""
    files: list[Path] = []
    for name in given:
        if name is None:
            continue
        path = Path(name)
        if path.is_dir():
            files += _inside(path)
        else:
            files.append(path)
    known: dict[Path, Path] = {}
    for path in files:
        try:
            resolved = path.resolve()
        except (OSError, ValueError, RuntimeError):  # a NUL in it, a loop of links: reading will say so
            continue
        if resolved in known:
            raise CommandError(f"{printable(path)} was given twice: one run is one observation")
        known[resolved] = path
    return files


def files_in(folder: Path) -> list[Path]:
    """All run files in *folder* and in the folders in it, as kept runs lie; CommandError where there are none."""
    if inside := sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        return inside
    raise CommandError(f"{printable(folder)}: a folder without run files (*.json)")


def _inside(folder: Path) -> list[Path]:
    """The run files in *folder*, or in its one folder that has any."""
    files = files_in(folder)
    if own := [path for path in files if path.parent == folder]:
        return own
    places = sorted({path.parent for path in files})
    if len(places) > 1:
        raise CommandError(
            f"{printable(folder)}: its runs lie in {len(places)} folders, each of one board, clock and kernel: name "
            f"those that you mean, such as {printable(places[0])}"
        )
    return files
