"""The judgement for programs: JSON with a versioned schema, JUnit XML for a CI's test page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from dmasync.harness.judge.verdict import JudgedRow, Judgement, UnjudgedRow, Verdict
from dmasync.harness.judge.words import amount, difference, factor, interval
from dmasync.harness.old_names import with_old_target
from dmasync.harness.runs.reading import printable

SCHEMA = "dmasync.gate"
SCHEMA_VERSION = 1
"""Counted up when a key changes its meaning or goes; new keys alone leave it."""


def judgement_json(judgement: Judgement) -> str:
    """The judgement as strict JSON; amounts are instructions or nanoseconds, as ``unit`` of the row says."""
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "status": judgement.status.name.lower().replace("_", " "),
        "exit_status": int(judgement.status),
        "summary": judgement.summary,
        "self_check": judgement.self_check,
        "base": asdict(judgement.base),
        "candidate": asdict(judgement.candidate),
        "warnings": list(judgement.warnings),
        "kernel_warnings": list(judgement.kernel_warnings),
        "rows": [_row(row) for row in judgement.rows],
        "vanished": [asdict(row) for row in judgement.vanished],
        "appeared": [asdict(row) for row in judgement.appeared],
        "not_comparable": [asdict(row) for row in judgement.not_comparable],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _row(row: JudgedRow) -> dict[str, Any]:
    facts = with_old_target(asdict(row.facts))
    del facts["kernel"]  # the two sides tell theirs
    return {
        "fullname": row.fullname,
        "verdict": row.verdict.value,
        "reason": row.reason,
        "unit": row.unit,
        "base": row.base,
        "candidate": row.candidate,
        "difference": row.difference,
        "ratio": _finite(row.ratio),
        "ratio_low": _finite(row.low),
        "ratio_high": _finite(row.high),
        "largest_ratio_allowed": _finite(row.allowance),
        "base_iqr": row.base_iqr,
        "candidate_iqr": row.candidate_iqr,
        "kernel_base": row.kernel_base,
        "kernel_candidate": row.kernel_candidate,
        "facts": facts,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def junit(judgement: Judgement) -> str:
    """JUnit XML: a regression is a failure, and what could not be judged is an error, never a skip."""
    suite = TestSuite("dmasync gate")
    suite.add_property("summary", _xml(judgement.summary))
    for row in judgement.rows:
        case = TestCase(_xml(row.fullname), classname="dmasync.gate")
        case.system_out = _xml(_sentence(row))
        if row.verdict is Verdict.REGRESSED:
            case.result = [Failure(_xml(_sentence(row)), "regressed")]
        elif row.verdict is Verdict.CANNOT_TELL:
            case.result = [Error(_xml(_sentence(row)), "cannot tell")]
        suite.add_testcase(case)
    if judgement.fail_on_warning and judgement.kernel_warnings:
        case = TestCase("the candidate's kernel", classname="dmasync.gate")
        case.result = [Failure(_xml(f"warned: {line}"), "warned") for line in judgement.kernel_warnings]
        suite.add_testcase(case)
    for rows, what in ((judgement.vanished, "vanished"), (judgement.not_comparable, "not comparable")):
        _add_errors(suite, rows, what)
    if not judgement.rows or judgement.self_check not in (None, Verdict.SAME.value):
        _add_errors(suite, [UnjudgedRow("the comparison as a whole", judgement.summary)], "cannot judge")
    suite.update_statistics()  # type: ignore[no-untyped-call]
    document = JUnitXml()
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    text: str | bytes = document.tostring()  # type: ignore[no-untyped-call]
    return text.decode() if isinstance(text, bytes) else text


def _add_errors(suite: TestSuite, rows: Sequence[UnjudgedRow], what: str) -> None:
    for row in rows:
        case = TestCase(_xml(row.fullname), classname="dmasync.gate")
        case.result = [Error(_xml(f"{what}: {row.reason}"), what)]
        suite.add_testcase(case)


def _sentence(row: JudgedRow) -> str:
    span = f", interval {interval(row)}" if interval(row) else ""
    reason = f": {row.reason}" if row.reason else ""
    before, after = amount(row.base, row.unit), amount(row.candidate, row.unit)
    return f"{row.verdict.value}: {before} to {after}, {difference(row)} ({factor(row)}{span}){reason}"


def _xml(text: str) -> str:
    """*text* without what XML cannot hold: control characters and lone surrogates."""
    return printable(text).encode("utf-8", "backslashreplace").decode()
