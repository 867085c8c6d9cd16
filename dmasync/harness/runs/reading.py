"""Read a run: one pytest-benchmark JSON file, ours or another project's, trusted in nothing.

Whatever is wrong with a file ends in one line (:class:`RunFileError`, exit status 2), and nothing is written.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple, NoReturn

from dmasync.harness import old_names
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.runs.facts import COUNTS, INSTRUCTIONS, RUN_BLOCK, RowFacts, RunFacts, is_named

LARGEST_FILE = 512 * 1024 * 1024
"""Bytes; a suite's file has a few hundred KiB. What is larger is refused before it fills the memory."""

_AGREEMENT = 1e-6
"""How far, relatively, a stored median may lie from that of the stored data (they are the same number)."""

_LONGEST_NAME = 120
"""Characters of a row's name in an error's one line."""


class RunFileError(CommandError):
    """A file that cannot be used as a run; the message is one line and names it."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{printable(path)}: {what}", ExitStatus.UNUSABLE)
        self.path = path


class Instructions(NamedTuple):
    """Instructions per operation: the quartiles of a row's rounds."""

    q1: Fraction
    middle: Fraction
    q3: Fraction


@dataclass(frozen=True)
class Row:
    """One benchmark of one run. Times are seconds per operation; ``data`` is in the order of measurement.

    ``data`` is empty where the file was saved without it (``--benchmark-save`` does that by default). ``counts`` are
    the same rounds as the exact clock counted them, in instructions per operation; empty where the file does not tell.
    """

    fullname: str
    facts: RowFacts
    data: tuple[float, ...]
    median: float
    q1: float
    q3: float
    rounds: int
    iterations: int
    counts: tuple[int, ...] = ()

    def part(self, begin: int, end: int) -> Row:
        """The same row with those of its rounds alone, at least one."""
        data = self.data[begin:end]
        middle, q1, q3 = _quartiles(data)
        counts = self.counts[begin:end]
        return replace(self, data=data, counts=counts, rounds=len(data), median=middle, q1=q1, q3=q3)

    @property
    def iqr(self) -> float:
        return self.q3 - self.q1

    @property
    def is_exact_clock(self) -> bool:
        return self.facts.unit == INSTRUCTIONS

    @property
    def instructions(self) -> Instructions:
        """The middle and the quartiles on the exact clock: of the counts, else of the seconds, a round of which counted
        an integer.
        """
        if self.counts:
            return Instructions(
                *(_quantile(self.counts, part) for part in (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)))
            )
        return Instructions(*(self._in_instructions(seconds) for seconds in (self.q1, self.median, self.q3)))

    def _in_instructions(self, seconds: float) -> Fraction:
        return Fraction(round(seconds * 1e9 * self.iterations), self.iterations)


@dataclass(frozen=True)
class Run:
    """One file: its rows by full name, in the file's order, and where it came from."""

    path: Path
    rows: Mapping[str, Row]
    facts: RunFacts
    machine: Mapping[str, Any] = field(default_factory=dict)
    commit: Mapping[str, Any] = field(default_factory=dict)
    moment: datetime | None = None
    narrowed: bool = False
    """Whether :meth:`only` left rows out."""

    @property
    def python(self) -> str | None:
        """Implementation and version, e.g. ``CPython 3.11.7``; None when the file does not tell."""
        named = [self.machine.get("python_implementation"), self.machine.get("python_version")]
        return " ".join(str(part) for part in named if part) or None

    @property
    def kernel(self) -> str | None:
        """The kernel's release as the run, its rows or the machine tell it."""
        in_rows = next((row.facts.kernel for row in self.rows.values() if row.facts.kernel), None)
        release = self.machine.get("release")
        return self.facts.kernel or in_rows or (release if isinstance(release, str) else None)

    def only(self, globs: Sequence[str]) -> Run:
        """The run as if it had the rows that one of *globs* names, and no others; all of them where there are none."""

        def wanted(name: str) -> bool:
            return not globs or any(is_named(name, glob) for glob in globs)

        not_measured = tuple(row for row in self.facts.not_measured if wanted(row.fullname))
        rows = {name: row for name, row in self.rows.items() if wanted(name)}
        facts = replace(self.facts, not_measured=not_measured)
        return replace(self, rows=rows, facts=facts, narrowed=self.narrowed or bool(globs))

    @property
    def names(self) -> set[str]:
        """The full names of all rows that the suite has, measured or not."""
        return {*self.rows, *(row.fullname for row in self.facts.not_measured)}


def load_run(path: str | os.PathLike[str]) -> Run:
    """Read the file at *path*. RunFileError tells in one line what is wrong with it."""
    path = Path(path)
    return parse_run(path, _text(path))


def parse_run(path: Path, text: str) -> Run:
    """The run that *text* is, as :func:`load_run` would read it from the file *path*, which need not be there."""
    document = _parsed(path, text)
    if not isinstance(document, dict) or not isinstance(document.get("benchmarks"), list):
        raise RunFileError(path, "is not a pytest-benchmark file (it has no list 'benchmarks')")
    machine = _mapping(path, document, "machine_info")
    rows: dict[str, Row] = {}
    for number, benchmark in enumerate(document["benchmarks"], 1):
        row = _row(path, number, benchmark, machine)
        if row.fullname in rows:
            raise RunFileError(path, f"has two rows named {_shortened(row.fullname)}: which one counts is unknown")
        rows[row.fullname] = row
    block = _mapping(path, document, RUN_BLOCK)
    try:
        facts = RunFacts.from_block(block) if block else RunFacts()
    except ValueError as error:
        raise RunFileError(path, str(error)) from None
    if old_names.TARGET in block and "target" not in block:
        old_names.say_once(
            "run file", f"{printable(path)}: of an older version: its key {old_names.TARGET!r} is now 'target'"
        )
    return Run(path, rows, facts, machine, _mapping(path, document, "commit_info"), _moment(document.get("datetime")))


def narrowed(runs: Sequence[Run], globs: Sequence[str]) -> list[Run]:
    """Each of *runs* as :meth:`Run.only` has it. CommandError for a glob that names no row of any of them."""
    names = set().union(*(run.names for run in runs))
    for glob in globs:
        if not any(is_named(name, glob) for name in names):
            files = ", ".join(printable(run.path) for run in runs)
            raise CommandError(f"--only {glob!r}: no row has such a name in {files}")
    return [run.only(globs) for run in runs]


def printable(text: object) -> str:
    """*text* on one line: what a file or a caller named may hold newlines and escape sequences."""
    told = str(text)
    return told if told.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in told)


def _shortened(name: str) -> str:
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…")


def _text(path: Path) -> str:
    try:
        # Not blocking: a FIFO that nobody writes to must not hang the gate.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RunFileError(path, "is not a regular file")
            if status.st_size > LARGEST_FILE:
                raise RunFileError(path, f"has {status.st_size} bytes, more than any run ({LARGEST_FILE})")
            content = file.read(LARGEST_FILE + 1)
    except ValueError as error:  # a NUL in the name
        raise RunFileError(path, f"cannot be read: {error}") from None
    except IsADirectoryError:
        raise RunFileError(path, "is a folder: name a run file in it") from None
    except OSError as error:
        raise RunFileError(path, f"cannot be read: {error.strerror}") from None
    if not content.strip():
        raise RunFileError(path, "is empty")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RunFileError(path, "is not JSON (not UTF-8 text)") from None


def _parsed(path: Path, text: str) -> object:
    def refuse_constant(name: str) -> NoReturn:
        raise RunFileError(path, f"holds {name}, which is not JSON and no measurement")

    def no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            repeated, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise RunFileError(path, f"repeats the key {_shortened(repeated)} in one object")
        return mapping

    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=no_repeats)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise RunFileError(path, f"is not JSON, or was cut off: {error.msg} at {where}") from None
    except RecursionError:
        raise RunFileError(path, "is nested too deeply") from None
    except ValueError:  # an integer with more digits than Python converts
        raise RunFileError(path, "holds a number with too many digits") from None


def _mapping(path: Path, document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RunFileError(path, f"has {key!r} that is not an object")
    return value


def _row(path: Path, number: int, benchmark: object, machine: Mapping[str, Any]) -> Row:
    if not isinstance(benchmark, dict):
        raise RunFileError(path, f"benchmark {number} is not an object")
    fullname = benchmark.get("fullname") or benchmark.get("name")
    if not isinstance(fullname, str):
        raise RunFileError(path, f"benchmark {number} has no name")

    def wrong(what: str) -> RunFileError:
        return RunFileError(path, f"row {_shortened(fullname)}: {what}")

    stats = benchmark.get("stats")
    if not isinstance(stats, dict):
        raise wrong("has no 'stats'")
    try:
        facts = RowFacts.from_extra_info(_mapping(path, benchmark, "extra_info"))
        data = _data(stats)
        middle = _number(stats, "median", None)
        if data:
            computed, q1, q3 = _quartiles(data)
            if middle is not None and not math.isclose(middle, computed, rel_tol=_AGREEMENT, abs_tol=1e-12):
                raise ValueError(f"its median {middle:g} is not that of its data ({computed:g})")
            middle = computed
        elif middle is not None:
            half = (_number(stats, "iqr", 0.0) or 0.0) / 2
            q1 = _number(stats, "q1", None) or max(0.0, middle - half)
            q3 = _number(stats, "q3", None) or middle + half
        else:
            raise ValueError("has neither a median nor data")
        rounds = len(data) or _count(stats, "rounds")
        if not data and stats.get("iqr") is None and (stats.get("q1") is None or stats.get("q3") is None):
            rounds = 1  # a middle without any spread is one observation
        iterations = _count(stats, "iterations")
        counts = _counts(facts, benchmark.get("extra_info"), data)
    except ValueError as error:
        raise wrong(str(error)) from None
    return Row(fullname, _completed(facts, machine), data, middle, q1, q3, rounds, iterations, counts)


def _counts(facts: RowFacts, extra_info: object, data: tuple[float, ...]) -> tuple[int, ...]:
    """The rounds as the exact clock counted them; ValueError where they are not those of *data*."""
    found = extra_info.get(COUNTS) if isinstance(extra_info, dict) else None
    if facts.unit != INSTRUCTIONS or found is None or not data:
        return ()
    if not isinstance(found, list) or not all(type(count) is int and count >= 0 for count in found):
        raise ValueError(f"extra_info {COUNTS!r} is not a list of counts")
    if len(found) != len(data) or any(
        abs(count - seconds * 1e9) > 1 for count, seconds in zip(found, data, strict=True)
    ):
        raise ValueError(f"extra_info {COUNTS!r} are not the rounds of its data")
    return tuple(found)


def _quantile(counts: Sequence[int], part: Fraction) -> Fraction:
    """As numpy's, between two of them in proportion; of integers, without rounding."""
    ordered = sorted(counts)
    at = part * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def _quartiles(data: tuple[float, ...]) -> tuple[float, float, float]:
    """The median of *data*, and the quarters below and above it: as numpy's, and no reader of a run waits for numpy."""
    if len(data) == 1:
        return data[0], data[0], data[0]
    q1, _, q3 = quantiles(data, n=4, method="inclusive")
    return median(data), q1, q3


def _completed(facts: RowFacts, machine: Mapping[str, Any]) -> RowFacts:
    """A row that does not tell its architecture and Python takes them from the file's machine."""
    texts = {
        "arch": machine.get("machine"),
        "python": machine.get("python_version"),
        "kernel": machine.get("release"),
    }
    known = {name: text for name, text in texts.items() if getattr(facts, name) is None and isinstance(text, str)}
    return replace(facts, **known)  # type: ignore[arg-type]  # the three are str | None


def _data(stats: Mapping[str, Any]) -> tuple[float, ...]:
    data = stats.get("data")
    if data is None:
        return ()
    if not isinstance(data, list):
        raise ValueError("'data' is not a list")
    if all(type(value) is float and 0 <= value <= 1e9 for value in data):  # nearly always, and a history has millions
        return tuple(data)
    return tuple(_time(value, "data") for value in data)


def _number(stats: Mapping[str, Any], key: str, default: float | None) -> float | None:
    return default if stats.get(key) is None else _time(stats[key], key)


def _time(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what!r} holds something that is not a number")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds) or seconds > 1e9:
        raise ValueError(f"{what!r} holds a number too large for a time in seconds")
    if seconds < 0:
        raise ValueError(f"{what!r} holds a negative time ({seconds:g} s)")
    return seconds


def _count(stats: Mapping[str, Any], key: str) -> int:
    value = stats.get(key, 1)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**53:
        raise ValueError(f"{key!r} is not a count")
    return value


def _moment(text: object) -> datetime | None:
    """When the run was taken; None where the file does not tell. Naive times are pytest-benchmark's UTC."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment.replace(tzinfo=timezone.utc) if moment and moment.tzinfo is None else moment
