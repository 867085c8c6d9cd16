"""Where runs are kept: pytest-benchmark's own storage, one folder a host and kernel, one file a run.

``pytest-benchmark compare`` reads it too. What is added here: a file appears whole or not at all, two that are kept
at once never meet, a damaged file is told and left alone, and a file's name ends in what was said of the run.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from pytest_benchmark.storage.file import FileStorage

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.runs.index import indexed
from dmasync.harness.runs.kept import KeptRun, Kind, Standing
from dmasync.harness.runs.reading import Run
from dmasync.harness.runs.writing import made_folder, no_empty_folder

STORAGE_VARIABLE = "DMASYNC_STORAGE"
_LEFT_OVER = ".partial"


class Storage:
    """The runs below one folder. Reading never makes the folder, keeping does."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def kept(self) -> list[KeptRun]:
        """Every file, oldest run first; damaged ones come first of all, each with its reason."""
        folder = Path(os.path.realpath(self.folder))
        names = list(_names(folder))
        found = indexed(folder, (path for path in names if path.suffix == ".json"))
        found += [
            KeptRun(path, None, "was left half-written by a run that was killed")
            for path in names
            if path.name.endswith(_LEFT_OVER) and path.name[0] == "." and not path.name.startswith(".dmasync-")
        ]
        return sorted(found, key=lambda kept: (kept.summary is not None, kept.moment, kept.path.name))

    def of_kind(self, kind: Kind) -> list[KeptRun]:
        """The runs of *kind*, oldest first."""
        return [kept for kept in self.kept() if kept.kind == kind]

    def baseline(self, kind: Kind) -> KeptRun | None:
        """The newest run of *kind* that was good."""
        return baseline_of(self.of_kind(kind))

    def keep(self, run: Run, standing: Standing) -> Path:
        """Copy the file of *run* into the storage, whole or not at all. CommandError (2) if that fails."""
        moment = run.moment or datetime.now(timezone.utc)
        name = f"{moment.astimezone(timezone.utc):%Y%m%d_%H%M%S}_{standing.value}"
        try:
            content = run.path.read_bytes()
            machine = Kind.of(run).folder(run.kernel)
            with no_empty_folder(self.folder / machine):
                made_folder(self.folder / machine)  # pytest-benchmark's own would not say why it cannot
                storage = _file_storage(self.folder, machine)
                return _link_new(storage, name, content)
        except OSError as error:
            raise CommandError(
                f"cannot keep {run.path.name} in {self.folder}: {error.strerror}", ExitStatus.UNUSABLE
            ) from None

    def keep_once(self, run: Run, standing: Standing) -> Path:
        """As :meth:`keep`; a file that is kept already is one observation: it gets the standing, and no copy."""
        try:
            content = run.path.read_bytes()
        except OSError as error:
            raise CommandError(f"{run.path}: cannot be read: {error.strerror}", ExitStatus.UNUSABLE) from None
        for path in self.folder.rglob("*.json") if self.folder.is_dir() else ():
            with suppress(OSError):
                if path.stat().st_size == len(content) and path.read_bytes() == content:
                    return _renamed(path, standing)
        return self.keep(run, standing)


def _renamed(path: Path, standing: Standing) -> Path:
    number_and_date = path.stem.rpartition("_")[0]
    target = path.with_name(f"{number_and_date}_{standing.value}.json")
    if standing is not Standing.UNJUDGED and target != path:
        path.rename(target)
        return target
    return path


def default_folder() -> Path:
    """``$DMASYNC_STORAGE``, else ``.benchmarks`` here, where pytest-benchmark keeps its own."""
    return Path(os.environ[STORAGE_VARIABLE] if named_by_variable() else ".benchmarks")


def named_by_variable() -> str:
    """``$DMASYNC_STORAGE`` where that variable names a folder, else ""."""
    return f"${STORAGE_VARIABLE}" if os.environ.get(STORAGE_VARIABLE, "").strip() else ""


def _file_storage(folder: Path, machine: str | None) -> FileStorage:
    return FileStorage(  # type: ignore[no-untyped-call]
        str(folder), logger=logging.getLogger("dmasync"), default_machine_id=machine
    )


def _link_new(storage: FileStorage, name: str, content: bytes) -> Path:
    """Write beside the target, then link it to the next free number: a name that exists is never written over."""
    number = int(storage._next_num)  # pytest-benchmark's own numbering, which it has no public door to
    folder: Path = storage.get(name).parent  # type: ignore[no-untyped-call]  # makes the folder
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=_LEFT_OVER, dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o644)
        for target in _numbered(folder, number, name):
            with suppress(FileExistsError):
                _put_new(temporary, target)
                return target
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    raise AssertionError("numbers do not end")


def _put_new(temporary: str, target: Path) -> None:
    try:
        os.link(temporary, target)
    except PermissionError:  # a file system without hard links, such as FAT
        if target.exists():
            raise FileExistsError(target) from None
        os.rename(temporary, target)


def _numbered(folder: Path, number: int, name: str) -> Iterator[Path]:
    while True:
        if not any(folder.glob(f"{number:04}_*")):  # another process may have taken the number meanwhile
            yield folder / f"{number:04}_{name}.json"
        number += 1


def baseline_of(kept: Iterable[KeptRun]) -> KeptRun | None:
    """The newest of runs of one kind that was good."""
    return _newest(one for one in kept if one.standing.is_baseline)


def anchor_of(kept: Iterable[KeptRun]) -> KeptRun | None:
    """The newest of runs of one kind that stays the measure while it creeps: the first, or one that was made it."""
    return _newest(one for one in kept if one.standing.is_anchor)


def _newest(runs: Iterable[KeptRun]) -> KeptRun | None:
    """The last of *runs* that can still be read."""
    return next((kept for kept in reversed(list(runs)) if kept.run is not None), None)


def _names(folder: Path) -> Iterator[Path]:
    """The files in *folder* and in the folders in it, where pytest-benchmark looks for runs."""
    for depth, place in enumerate((folder, *_folders(folder))):
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if not (depth == 0 and entry.is_dir()) and entry.name.endswith((".json", _LEFT_OVER)):
                        yield Path(entry.path)
        except OSError:
            continue  # it went away, or is no folder that this user may look into


def _folders(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]
    return []
