"""KCIDB's report format, version 5.3: what KernelCI's database takes.

There is no status there for "cannot tell": such a row is DONE, which is neither a pass nor a failure, and its comment
says why. A row that vanished is MISS.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dmasync.harness.exit_status import CommandError
from dmasync.harness.formats.results import Outcome, Result
from dmasync.harness.judge.verdict import Judgement

VERSION = {"major": 5, "minor": 3}
STATUSES = {
    Outcome.PASS: "PASS",
    Outcome.FAIL: "FAIL",
    Outcome.UNKNOWN: "DONE",
    Outcome.MISSING: "MISS",
    Outcome.NEW: "DONE",
}
DEFAULT_ORIGIN = "dmasync"


@dataclass(frozen=True)
class Submitter:
    """Who reports: *origin* is the name that KCIDB knows a lab by, *build* the id of a build that is there already."""

    origin: str = DEFAULT_ORIGIN
    build: str | None = None

    def check(self) -> None:
        """CommandError for what KCIDB would refuse."""
        if not re.fullmatch(r"[a-z0-9_]+", self.origin):
            raise CommandError(f"--kcidb-origin is {self.origin!r}, expected small letters, digits and _")
        if self.build is not None and not re.fullmatch(r"[a-z0-9_]+:.+", self.build):
            raise CommandError(f"--kcidb-build is {self.build!r}, expected ORIGIN:ID, the id of a build in KCIDB")


def kcidb(judgement: Judgement, results: Sequence[Result], submitter: Submitter) -> str:
    """The report; without a build that is known there, one that tells the kernel's release and configuration."""
    side = judgement.candidate
    document: dict[str, Any] = {"version": VERSION}
    build = submitter.build
    if build is None:
        build = _id(submitter, side.kernel, side.config_digest)
        checkout = _id(submitter, side.kernel)
        document["checkouts"] = [
            {"id": checkout, "origin": submitter.origin, "comment": f"kernel {side.kernel or 'unknown'}"}
        ]
        told = {"command_line": side.command_line, "config_digest": side.config_digest, "kernel": side.kernel}
        document["builds"] = [
            {
                "id": build,
                "checkout_id": checkout,
                "origin": submitter.origin,
                "comment": f"kernel {side.kernel or 'unknown'}",
                "misc": _known(told),
            }
        ]
    document["tests"] = [_test(judgement, result, build, submitter) for result in results]
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _test(judgement: Judgement, result: Result, build: str, submitter: Submitter) -> dict[str, Any]:
    side, judged = judgement.candidate, result.judged
    test = {
        "id": _id(submitter, build, side.machine, side.moment, *side.files, *judgement.base.files, result.fullname),
        "build_id": build,
        "origin": submitter.origin,
        "path": result.name,
        "status": STATUSES[result.outcome],
        "comment": result.sentence,
        "start_time": side.moment,
        "environment": {"comment": side.machine} if side.machine else None,
        "misc": _known(
            {
                "fullname": result.fullname,
                "base": None if judged is None else judged.base,
                "base_kernel": judgement.base.kernel,
                "python": side.python,
                "unit": result.unit,
            }
        ),
    }
    if result.value is not None:
        test["number"] = {"value": result.value, "unit": "nanosecond" if result.unit == "ns" else result.unit}
    return _known(test)


def _known(told: dict[str, Any]) -> dict[str, Any]:
    """Without what is unknown: the schema refuses null."""
    return {name: value for name, value in told.items() if value is not None}


def _id(submitter: Submitter, *parts: str | None) -> str:
    """The same for the same run and row, so that sending a report twice adds nothing."""
    text = "\0".join(part or "" for part in parts)
    return f"{submitter.origin}:{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:24]}"
