"""Where runs are kept: pytest-benchmark's own storage, one folder a host and kernel, one file a run.

``pytest-benchmark compare`` reads it too. What is added here: a file appears whole or not at all, two that are kept
at once never meet, a damaged file is told and left alone, and a file's name ends in what was said of the run.
"""

from __future__ import annotations

import enum
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from pytest_benchmark.storage.file import FileStorage

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.runs.reading import Run, load_run
from dmasync.harness.runs.writing import made_folder

STORAGE_VARIABLE = "DMASYNC_STORAGE"
_LEFT_OVER = ".partial"


class Standing(str, enum.Enum):
    """What the gate said of a run; it ends the run's file name."""

    FIRST = "first"
    """The first of its kind: nothing to compare with."""
    ANCHOR = "anchor"
    """Kept by hand as what every later night is measured by, however slowly it moves."""
    GOOD = "good"
    REGRESSED = "regressed"
    UNJUDGED = "unjudged"
    """The gate could not judge it, or was never asked."""

    @property
    def is_baseline(self) -> bool:
        """Whether later runs may be judged against it."""
        return self in (Standing.FIRST, Standing.ANCHOR, Standing.GOOD)

    @property
    def is_anchor(self) -> bool:
        """Whether later nights are judged against it even when newer ones were good."""
        return self in (Standing.FIRST, Standing.ANCHOR)


@dataclass(frozen=True)
class Kind:
    """What a run and its baseline must have in common; kernels may differ: that is the question."""

    host: str
    arch: str
    target: str
    clock: str
    python: str
    compiled: bool = False

    @classmethod
    def of(cls, run: Run) -> Kind:
        facts = [row.facts for row in run.rows.values()]
        clocks = {"exact" if one.unit == INSTRUCTIONS else "wall" for one in facts}
        targets = {one.target for one in facts if one.target} or {run.facts.target or "unknown"}
        node = run.machine.get("node")
        return cls(
            str(node or "unknown"),
            next((one.arch for one in facts if one.arch), None) or str(run.machine.get("machine") or "unknown"),
            "+".join(sorted(targets)),
            "+".join(sorted(clocks)) or "nothing",
            next((one.python for one in facts if one.python), None) or run.python or "unknown",
            any(one.compiled for one in facts),
        )

    def folder(self, kernel: str | None) -> str:
        python = f"py{self.python}{'-compiled' if self.compiled else ''}"
        parts = (self.host, self.arch, self.target, self.clock, python, kernel or "unknown")
        return "_".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", part).strip(".") or "unknown" for part in parts)


@dataclass(frozen=True)
class KeptRun:
    """A file of the storage: a run, or the reason why it is none."""

    path: Path
    run: Run | None
    damage: str = ""

    @property
    def kind(self) -> Kind | None:
        return None if self.run is None else Kind.of(self.run)

    @property
    def standing(self) -> Standing:
        word = self.path.stem.rpartition("_")[2]
        return Standing(word) if word in {one.value for one in Standing} else Standing.UNJUDGED

    @property
    def moment(self) -> datetime:
        """When it was taken; a run that does not tell counts as the oldest."""
        told = self.run.moment if self.run else None
        return told or datetime.min.replace(tzinfo=timezone.utc)


class Storage:
    """The runs below one folder. Reading never makes the folder, keeping does."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def kept(self) -> list[KeptRun]:
        """Every file, oldest run first; damaged ones come first of all, each with its reason."""
        if not self.folder.is_dir():
            return []
        files = _file_storage(self.folder, None).query()  # type: ignore[no-untyped-call]
        left_over = [path for path in self.folder.rglob(f".*{_LEFT_OVER}") if path.is_file()]
        found = [_kept(path) for path in dict.fromkeys(files)]
        found += [KeptRun(path, None, "was left half-written by a run that was killed") for path in left_over]
        return sorted(found, key=lambda kept: (kept.run is not None, kept.moment, kept.path.name))

    def of_kind(self, kind: Kind) -> list[KeptRun]:
        """The runs of *kind*, oldest first."""
        return [kept for kept in self.kept() if kept.kind == kind]

    def baseline(self, kind: Kind) -> KeptRun | None:
        """The newest run of *kind* that was good."""
        good = [kept for kept in self.of_kind(kind) if kept.standing.is_baseline]
        return good[-1] if good else None

    def anchor(self, kind: Kind) -> KeptRun | None:
        """The newest run of *kind* that stays the measure while it creeps: the first, or one that was made it."""
        anchors = [kept for kept in self.of_kind(kind) if kept.standing.is_anchor]
        return anchors[-1] if anchors else None

    def keep(self, run: Run, standing: Standing) -> Path:
        """Copy the file of *run* into the storage, whole or not at all. CommandError (2) if that fails."""
        moment = run.moment or datetime.now(timezone.utc)
        name = f"{moment.astimezone(timezone.utc):%Y%m%d_%H%M%S}_{standing.value}"
        try:
            content = run.path.read_bytes()
            machine = Kind.of(run).folder(run.kernel)
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
    return Path(os.environ.get(STORAGE_VARIABLE) or ".benchmarks")


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


def _kept(path: Path) -> KeptRun:
    try:
        return KeptRun(path, load_run(path))
    except CommandError as error:
        return KeptRun(path, None, str(error).removeprefix(f"{path}: "))
