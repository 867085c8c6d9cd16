"""SARIF 2.1.0 for what the sanitizer found: code review pages show it at the line of the program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from dmasync.fakes.sanitizer import Finding

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_INNER = 6
"""Frames of a stack that are told."""


def sarif(findings: Sequence[Finding]) -> str:
    """One run of one tool; every kind of finding is a rule, whether it was found or not."""
    from dmasync.fakes.sanitizer import KINDS

    rules = [
        {
            "id": kind,
            "shortDescription": {"text": kind.replace("-", " ")},
            "fullDescription": {"text": told.consequence},
            "help": {"text": told.fix},
            "defaultConfiguration": {"level": "error"},
        }
        for kind, told in KINDS.items()
    ]
    driver = {"name": "dmasync", "rules": rules}
    results = [_result(finding, list(KINDS).index(finding.kind)) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _result(finding: Finding, rule: int) -> dict[str, Any]:
    named = {"name": finding.name} if finding.name else {}
    times = f" ({finding.times} times)" if finding.times > 1 else ""
    result: dict[str, Any] = {
        "ruleId": finding.kind,
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": f"{finding.message}{times} {finding.consequence} {finding.fix}"},
        "properties": {"buffer": str(finding.buffer), **named, "bytes": [list(span) for span in finding.ranges]},
    }
    stacks = [trace for trace in finding.traces if _own(trace.stack)]
    if stacks:
        result["locations"] = [_location(_own(stacks[-1].stack)[0])]
        result["stacks"] = [
            {
                "message": {"text": trace.what},
                "frames": [{"location": _location(frame)} for frame in _own(trace.stack)[:_INNER]],
            }
            for trace in stacks
        ]
    return result


def _own(stack: Sequence[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """The frames that are the program's; all of them where there is no other."""
    package = str(Path(__file__).resolve().parents[2])
    return [frame for frame in stack if not frame[0].startswith(package)] or list(stack)


def _location(frame: tuple[str, int, str]) -> dict[str, Any]:
    file, line, function = frame
    uri = Path(file).as_uri() if file.startswith("/") else quote(file)
    place: dict[str, Any] = {"artifactLocation": {"uri": uri}}
    if line > 0:
        place["region"] = {"startLine": line}
    return {"physicalLocation": place, "logicalLocations": [{"name": function}]}
