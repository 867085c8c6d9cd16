"""Names that users knew under another word: they work for one more version, and say once what they are called now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

TARGET = "rung"
"""What ``target`` was called, in files and options."""
PREDICTED = "foretold"
"""What ``predicted`` was called in the JSON of ``dmasync model``."""


MOUNT = "share"
"""What the option ``--mount`` of ``dmasync vm`` was called."""


class OldName(argparse.Action):
    """An option under its old name; *now* is the action of the new one, which does the work."""

    def __init__(self, option_strings: list[str], dest: str, *, now: argparse.Action, **rest: Any) -> None:
        super().__init__(
            option_strings,
            now.dest,
            nargs=now.nargs,
            type=now.type,  # type: ignore[arg-type]  # typeshed: what one action has, another takes
            choices=now.choices,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
        self._now = now

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        new = self._now.option_strings[-1]
        print(f"{parser.prog}: {option} is now called {new}; the next version drops the old name", file=sys.stderr)  # noqa: T201
        self._now(parser, namespace, values, option)


_said: set[str] = set()


def say_once(what: str, text: str) -> None:
    """One line on standard error, the first time that *what* comes up in this process."""
    if what not in _said:
        _said.add(what)
        print(f"dmasync: {text}", file=sys.stderr)  # noqa: T201


def with_old_target(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """*mapping*, whose ``target`` older programs look for under its old key."""
    return {**mapping, TARGET: mapping["target"]}


def target_of(mapping: Mapping[str, Any]) -> Any:
    """The target that *mapping* names under its key or the old one; None where it names none."""
    return mapping.get("target", mapping.get(TARGET))
