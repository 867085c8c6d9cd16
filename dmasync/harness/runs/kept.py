"""A file of the storage, and what is known of it without reading it again."""

from __future__ import annotations

import enum
import functools
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from dmasync.harness.exit_status import CommandError
from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.runs.reading import Run, load_run


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
class Summary:
    """What a list of runs tells of one: ``rows`` is how many it has, ``moment`` when it was taken."""

    kind: Kind
    kernel: str | None
    moment: datetime | None
    rows: int

    @classmethod
    def of(cls, run: Run) -> Summary:
        return cls(Kind.of(run), run.kernel, run.moment, len(run.rows))


@dataclass(frozen=True)
class KeptRun:
    """A file of the storage: a run, or the reason why it is none (then ``summary`` is None)."""

    path: Path
    summary: Summary | None
    damage: str = ""

    @classmethod
    def read(cls, path: Path) -> KeptRun:
        """What the file at *path* is, whatever that may be."""
        try:
            run = load_run(path)
        except CommandError as error:
            return cls(path, None, str(error).removeprefix(f"{path}: "))
        return cls(path, Summary.of(run))

    @functools.cached_property
    def run(self) -> Run | None:
        """The run itself, read now; None where the file is damaged, or went away or changed to that since."""
        if self.summary is None:
            return None
        try:
            return load_run(self.path)
        except CommandError:
            return None

    @property
    def kind(self) -> Kind | None:
        return None if self.summary is None else self.summary.kind

    @property
    def standing(self) -> Standing:
        word = self.path.stem.rpartition("_")[2]
        return Standing(word) if word in _STANDINGS else Standing.UNJUDGED

    @property
    def moment(self) -> datetime:
        """When it was taken; a run that does not tell counts as the oldest."""
        told = self.summary.moment if self.summary else None
        return told or _OLDEST


_STANDINGS = {one.value for one in Standing}
_OLDEST = datetime.min.replace(tzinfo=timezone.utc)
