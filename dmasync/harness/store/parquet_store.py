"""A store: a folder of Parquet files, to which anybody adds without a lock.

``summaries/MONTH/RUN.parquet`` stay for ever, ``rounds/DAY/RUN.parquet`` go after :data:`DAYS_OF_ROUNDS`. A run's id
is the digest of its file: one that is added twice, here or in a copy of the store, is there once. Files never change,
so that stores of several places become one by copying files together. ``merge`` puts the files of a month into one,
because reading half a million small ones takes minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.runs.reading import Run, load_run, printable
from dmasync.harness.store.bucket import in_bucket
from dmasync.harness.store.night_files import write_nights
from dmasync.harness.store.parquet_files import MERGED, connected, found, run_ids, write_query, write_rows
from dmasync.harness.store.queries import reading
from dmasync.harness.store.schema import ROUNDS, SUMMARIES, moment_of, rounds, summaries

DAYS_OF_ROUNDS = 30
_ORDER = 'row, board, kernel, target, "python", moment'


@dataclass
class Added:
    """What became of the runs that were to be added."""

    new: int = 0
    known: int = 0
    left_out: list[str] = field(default_factory=list)
    """A sentence for each that was not taken."""


class ParquetStore:
    """The store in *folder*. Reading never makes the folder, adding does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if self.folder.exists() and not self.folder.is_dir():
            raise CommandError(f"{printable(self.folder)}: is not a folder")
        self.connection = connected(folder)

    def add(self, files: Iterable[Path], now: datetime) -> Added:
        """Add the runs of *files* that are not there yet, with their rounds if they are young.

        *now* is in UTC and without a zone. CommandError where the store cannot be written.
        """
        added = Added()
        known = run_ids(found(self.folder / "summaries", self.connection).files, self.connection)
        for path in files:
            try:
                run_id = _id_of(path)
                run = None if run_id in known else load_run(path)
            except CommandError as error:
                added.left_out.append(str(error))
                continue
            if run is None:
                added.known += 1
            elif (moment := moment_of(run)) is None or not run.rows:
                added.left_out.append(f"{printable(path)}: {'has no rows' if run.moment else 'tells no date'}")
            else:
                self._write(run, run_id, moment, now)
                known.add(run_id)
                added.new += 1
        return added

    def _write(self, run: Run, run_id: str, moment: datetime, now: datetime) -> None:
        """The summaries last: a run that has them is whole."""
        if now - moment < timedelta(days=DAYS_OF_ROUNDS):
            place = self.folder / "rounds" / f"{moment:%Y-%m-%d}"
            write_rows(place / f"{run_id}.parquet", ROUNDS, rounds(run), self.connection)
        place = self.folder / "summaries" / f"{moment:%Y-%m}"
        write_rows(place / f"{run_id}.parquet", SUMMARIES, summaries(run), self.connection)

    def drop_rounds(self, now: datetime) -> int:
        """Remove the rounds that are older than :data:`DAYS_OF_ROUNDS`; how many runs' they were."""
        gone = 0
        for place in sorted((self.folder / "rounds").glob("????-??-??")):
            try:
                day = date.fromisoformat(place.name)
            except ValueError:
                continue
            if now.date() - day <= timedelta(days=DAYS_OF_ROUNDS):
                continue
            for path in place.glob("*.parquet"):
                with suppress(FileNotFoundError):  # another process is at it
                    path.unlink()
                    gone += 1
            if not in_bucket(place):
                with suppress(OSError):
                    place.rmdir()
        return gone

    def merge(self) -> int:
        """Put the summaries of each month into one file; the number of months that had more than one.

        Runs may be added and queries may run meanwhile. CommandError (3) where another process merges. In a bucket that
        is not noticed: what both merged is there twice until the next time, and told once.
        """
        months = 0
        try:
            with nullcontext() if in_bucket(self.folder) else FileLock(self.folder / ".merging", timeout=0):
                for place in sorted((self.folder / "summaries").glob("*")):
                    months += self._merge_month(place)
                write_nights(self.folder, found(self.folder / "summaries", self.connection), self.connection)
        except Timeout:
            raise CommandError(
                f"{printable(self.folder)}: another process is merging it", ExitStatus.CANNOT_JUDGE
            ) from None
        return months

    def _merge_month(self, place: Path) -> bool:
        inside = found(place.parent, self.connection)
        files = [path for path in inside.files if path.parent == place]
        left_over = [path for path in place.glob("*.parquet") if path not in files]
        if len(files) > 1:
            table = reading(files, distinct=inside.overlapping)
            ids = sorted(run_ids(files, self.connection))
            digest = hashlib.sha256(",".join(ids).encode()).hexdigest()[:16]
            whole = place / f"{MERGED}{digest}.parquet"
            write_query(whole, f"SELECT * FROM {table} ORDER BY {_ORDER}", ids, self.connection)  # noqa: S608
            left_over += [path for path in files if path != whole]
        damaged = {path for path, _ in inside.damaged}
        for path in left_over:
            if path not in damaged and path.name[0] != ".":
                path.unlink(missing_ok=True)
        return len(files) > 1


def _id_of(path: Path) -> str:
    if not path.is_file():
        load_run(path)  # says what is wrong with it, and does not wait for a pipe
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandError(f"{printable(path)}: cannot be read: {reason}") from None
