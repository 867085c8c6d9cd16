"""Formats of one line a result: KTAP, and what a script on a LAVA device hands to ``lava-test-case``."""

from __future__ import annotations

from collections.abc import Sequence

from dmasync.harness.formats.results import Outcome, Result

_KTAP = {
    Outcome.PASS: ("ok", ""),
    Outcome.FAIL: ("not ok", ""),
    Outcome.UNKNOWN: ("not ok", "ERROR"),
    Outcome.MISSING: ("not ok", "ERROR"),
    Outcome.NEW: ("ok", "SKIP"),
}
"""``ok`` or not, and KTAP's directive."""


def ktap(results: Sequence[Result]) -> str:
    """A flat KTAP list with unique names; what could not be judged is not ok, with KTAP's directive ERROR."""
    lines = ["KTAP version 1", f"1..{len(results)}"]
    for number, result in enumerate(results, 1):
        ok, directive = _KTAP[result.outcome]
        told = _plain(result.sentence)
        if directive:
            lines.append(f"{ok} {number} {result.name} # {directive} {told}")
        else:
            lines += [f"# {told}", f"{ok} {number} {result.name}"]
    return "\n".join(lines) + "\n"


LAVA_RESULTS = {
    Outcome.PASS: "pass",
    Outcome.FAIL: "fail",
    Outcome.UNKNOWN: "unknown",
    Outcome.MISSING: "unknown",
    Outcome.NEW: "skip",
}
"""LAVA's words."""


def lava(results: Sequence[Result]) -> str:
    """``NAME RESULT [VALUE UNIT]`` a line: the arguments of a call of ``lava-test-case`` each."""
    lines = []
    for result in results:
        measured = "" if result.value is None else f" {result.value} {result.unit}"
        lines.append(f"{result.name} {LAVA_RESULTS[result.outcome]}{measured}")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Without ``#``, behind which a reader of TAP looks for a directive."""
    return text.replace("#", "no. ")
