"""Known regressions: accepted by somebody, for a reason, up to the level of one run; they do not alarm again.

Each is a file of its own in the storage, ``accepted/….toml``, so that two people write at once and anybody can read,
change or remove one.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from pathlib import Path

from dmasync.harness.exit_status import CommandError
from dmasync.harness.judge.compare import judge
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import JudgedRow, Judgement, Verdict
from dmasync.harness.runs.facts import is_named
from dmasync.harness.runs.kept import KeptRun
from dmasync.harness.runs.reading import Run, printable
from dmasync.harness.runs.writing import made_folder, write_atomically

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = "accepted"


@dataclass(frozen=True)
class Acceptance:
    """The rows that the glob *row* names may cost on *board* what they cost in *run*, until the day after *until*.

    ``run`` is the name of a kept run without what was said of it (which may change), below the storage.
    """

    row: str
    board: str
    run: str
    reason: str
    owner: str
    commit: str = ""
    until: str = ""

    def in_force(self, today: date) -> bool:
        return not self.until or today <= date.fromisoformat(self.until)

    def is_for(self, kept: KeptRun, folder: Path) -> bool:
        """Whether *kept*, in the storage at *folder*, is the run whose level was accepted."""
        return run_name(kept.path, folder) == self.run

    @property
    def told(self) -> str:
        """Why, who, and until when, in one line."""
        words = [
            self.owner,
            f"commit {self.commit}" if self.commit else "",
            f"until {self.until}" if self.until else "",
        ]
        return printable(f"{self.reason} ({', '.join(word for word in words if word)})")


def run_name(path: Path, folder: Path) -> str:
    """What stays of a kept run's name when its standing changes."""
    return str(path.with_name(path.stem.rpartition("_")[0]).relative_to(folder.resolve()))


def write(folder: Path, acceptance: Acceptance) -> Path:
    """Keep *acceptance* in the storage at *folder*; CommandError if that fails."""
    lines = [f"{one.name} = {_quoted(getattr(acceptance, one.name))}" for one in fields(Acceptance)]
    text = "\n".join(lines) + "\n"
    name = hashlib.sha256(f"{acceptance.row}\0{acceptance.board}\0{acceptance.run}".encode()).hexdigest()[:12]
    path = made_folder(folder / FOLDER) / f"{name}.toml"
    write_atomically(path, text)
    return path


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's, but for one character that only TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def load(folder: Path) -> dict[Path, Acceptance]:
    """Those of the storage at *folder*. CommandError names a file that cannot be used: it must not be passed over."""
    found = {}
    for path in sorted((folder / FOLDER).glob("*.toml")):
        try:
            found[path] = _acceptance(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CommandError(f"{printable(path)}: {printable(reason)}: correct it or remove it") from None
    return found


def _acceptance(told: Mapping[str, object]) -> Acceptance:
    known = {one.name for one in fields(Acceptance)}
    texts = {name: value for name, value in told.items() if isinstance(value, str) and name in known}
    if unknown := told.keys() - texts.keys():
        raise ValueError(f"{min(unknown)!r} is not known, or no text")
    if missing := {"row", "board", "run", "reason", "owner"} - {name for name, text in texts.items() if text.strip()}:
        raise ValueError(f"{min(missing)!r} is missing")
    if until := texts.get("until"):
        date.fromisoformat(until)
    return Acceptance(**texts)


class Known:
    """The acceptances that count for one *board* on one day, newest run first, with the runs that they mean."""

    def __init__(self, acceptances: Iterable[Acceptance], board: str, kept: Sequence[KeptRun], folder: Path) -> None:
        self.runs: list[tuple[Acceptance, Run]] = []
        for one in acceptances:
            run = next((kept_run.run for kept_run in kept if one.is_for(kept_run, folder)), None)
            if one.board == board and run is not None:
                self.runs.append((one, run))
        self.runs.sort(key=lambda pair: pair[1].moment.timestamp() if pair[1].moment else 0.0, reverse=True)

    def of(self, fullname: str) -> tuple[Acceptance, Run] | None:
        """The newest that names the row."""
        return next((pair for pair in self.runs if is_named(fullname, pair[0].row) and fullname in pair[1].rows), None)

    def since(self, names: Iterable[str], today: date) -> dict[str, datetime]:
        """When the accepted runs were taken, by row: what rose before then is known."""
        pairs = {name: pair for name in names if (pair := self.of(name)) is not None and pair[0].in_force(today)}
        return {name: run.moment for name, (_, run) in pairs.items() if run.moment is not None}


def with_accepted(judgement: Judgement, known: Known, run: Run, settings: GateSettings, today: date) -> Judgement:
    """*judgement* of *run*, with its regressions judged against the level that was accepted, where one was.

    What costs no more than was accepted is the same. What costs more stays regressed, and so does what was accepted
    until a day that is over.
    """
    accepted_rows = 0

    def judged(row: JudgedRow) -> JudgedRow:
        nonlocal accepted_rows
        pair = known.of(row.fullname) if row.verdict is Verdict.REGRESSED else None
        if pair is None:
            return row
        acceptance, accepted = pair
        if not acceptance.in_force(today):
            return replace(row, reason=_joined(row.reason, f"was accepted until {acceptance.until}: {acceptance.told}"))
        against = judge([accepted.only([])], [run], settings).rows
        other = next((one for one in against if one.fullname == row.fullname), None)
        if other is None:
            return row
        if other.verdict is Verdict.REGRESSED:
            return replace(other, reason=_joined("worse than was accepted", acceptance.told))
        accepted_rows += other.verdict is not Verdict.CANNOT_TELL
        return replace(other, reason=_joined(f"accepted: {acceptance.told}", other.reason))

    rows = [judged(row) for row in judgement.rows]
    warnings = list(judgement.warnings)
    if accepted_rows:
        warnings.append(f"{accepted_rows} regressions are known and accepted: 'dmasync history accepted' lists them")
    return replace(judgement, rows=rows, warnings=warnings)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
