"""How much a row may grow: the defaults, ``[tool.dmasync.gate]`` of pyproject.toml, the command line."""

from __future__ import annotations

import contextlib
import difflib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dmasync.harness.exit_status import CommandError
from dmasync.harness.runs.facts import is_named

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Allowance:
    """Growth that still passes: *percent* of the base, on the exact clock at least *instructions*."""

    percent: float
    instructions: float = 0.0


@dataclass(frozen=True)
class RowRule:
    """One row of ``[tool.dmasync.gate.rows]``: None leaves that part of the allowance as it is."""

    glob: str
    percent: float | None = None
    instructions: float | None = None

    def matches(self, fullname: str) -> bool:
        return is_named(fullname, self.glob)


@dataclass(frozen=True)
class GateSettings:
    """Allowances in percent and instructions, and what the statistics of wall rows assume.

    ``noisy_percent`` is how much a row of the exact clock that is not exact may spread and still be judged.
    ``false_alarms`` is the probability of any false regression or improvement in one comparison;
    ``drift_percent`` is how much a machine may change its speed between two runs that are not interleaved.
    ``fail_on_warning``: a candidate whose kernel warned is not good.
    ``same_machine``: wall rows are judged although the files say that the machines differ.
    """

    exact_percent: float = 0.1
    exact_instructions: float = 2
    noisy_percent: float = 5.0
    wall_percent: float = 5.0
    false_alarms: float = 0.01
    drift_percent: float = 20.0
    rules: tuple[RowRule, ...] = field(default=())
    same_machine: bool = False
    fail_on_warning: bool = False

    def exact(self, fullname: str) -> Allowance:
        return self._ruled(fullname, Allowance(self.exact_percent, self.exact_instructions))

    def wall(self, fullname: str) -> Allowance:
        return self._ruled(fullname, Allowance(self.wall_percent))

    def with_max_regression(self, percent: float | None) -> GateSettings:
        """These settings with *percent* in the place of both general ones; rules of single rows stay."""
        return self if percent is None else replace(self, exact_percent=percent, wall_percent=percent)

    def _ruled(self, fullname: str, allowance: Allowance) -> Allowance:
        for rule in self.rules:  # the last that matches wins
            if rule.matches(fullname):
                allowance = Allowance(
                    allowance.percent if rule.percent is None else rule.percent,
                    allowance.instructions if rule.instructions is None else rule.instructions,
                )
        return allowance


_NEAR = 0.85
"""How alike two names are when one is taken for a misspelt other."""
_NUMBERS = {
    "exact-percent": "exact_percent",
    "exact-instructions": "exact_instructions",
    "noisy-percent": "noisy_percent",
    "wall-percent": "wall_percent",
    "false-alarms": "false_alarms",
    "drift-percent": "drift_percent",
}


def load_settings(path: Path | None = None, *, start: Path | None = None) -> GateSettings:
    """Settings of the file at *path*, else of the nearest pyproject.toml at or above *start*."""
    chosen = path or _nearest(start or Path.cwd())
    if chosen is None:
        return GateSettings()
    try:
        document = tomllib.loads(chosen.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandError(f"{chosen}: cannot be read: {reason}") from None
    try:
        table = _gate_table(document, must_be_there=path is not None)
    except ValueError as error:
        raise CommandError(f"{chosen}: {error}") from None
    try:
        return _settings(table)
    except ValueError as error:
        raise CommandError(f"{chosen}: [tool.dmasync.gate]: {error}") from None


def _gate_table(document: Mapping[str, Any], must_be_there: bool) -> object:
    """``[tool.dmasync.gate]`` of *document*; ValueError for a misspelt one, and for none where it *must be there*."""
    tools = document.get("tool", {})
    if not isinstance(tools, dict):
        raise ValueError("'tool' is not a table")
    if "dmasync" not in tools and (nearest := difflib.get_close_matches("dmasync", tools, 1, _NEAR)):
        raise ValueError(f"there is a table [tool.{nearest[0]}]: did you mean [tool.dmasync]?")
    own = tools.get("dmasync", {})
    if not isinstance(own, dict):
        raise ValueError("[tool.dmasync] is not a table")
    if unknown := set(own) - {"gate"}:
        raise ValueError(
            f"[tool.dmasync] has {min(unknown)!r}, which nothing reads: its one table is [tool.dmasync.gate]"
        )
    if must_be_there and document and "gate" not in own:
        raise ValueError("has no table [tool.dmasync.gate]")
    return own.get("gate", {})


def _nearest(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        with contextlib.suppress(PermissionError):  # a folder that this user may not look into has none for it
            if path.is_file():
                return path
    return None


def _settings(table: object) -> GateSettings:
    if not isinstance(table, dict):
        raise ValueError("is not a table")
    unknown = set(table) - set(_NUMBERS) - {"rows"}
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}: it has {', '.join([*_NUMBERS, 'rows'])}")
    numbers = {_NUMBERS[key]: number(table[key], key) for key in _NUMBERS if key in table}
    if not 0 < numbers.get("false_alarms", 0.01) < 1:
        raise ValueError("'false-alarms' is a probability between 0 and 1")
    if numbers.get("drift_percent", 0) >= 100:
        raise ValueError("'drift-percent' is below 100: a machine that drifts by all its speed stands still")
    rows = table.get("rows", {})
    if not isinstance(rows, dict):
        raise ValueError("'rows' is not a table of globs")
    rules = tuple(_rule(glob, rule) for glob, rule in rows.items())
    return GateSettings(**numbers, rules=rules, same_machine=False, fail_on_warning=False)


def _rule(glob: str, rule: Any) -> RowRule:
    if not isinstance(rule, Mapping):
        return RowRule(glob, percent=number(rule, f"rows.{glob}"))
    unknown = set(rule) - {"percent", "instructions"}
    if unknown:
        raise ValueError(f"rows.{glob!r}: unknown key {min(unknown)!r}: it has percent and instructions")
    return RowRule(glob, **{key: number(value, f"rows.{glob}.{key}") for key, value in rule.items()})


def number(value: object, what: str) -> float:
    """*value* as a finite number of at least 0; ValueError names *what*."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{what!r} is {value!r}, expected a number of at least 0")
    return float(value)
