"""Writes run files for the tests of gate, history and report: what the suites and other projects write."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from dmasync.harness.runs.facts import INSTRUCTIONS, NotMeasured, RowFacts, RunFacts

START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
PAIR = "benchmarks/test_sync.py::test_pair[udmabuf-READ-1MiB]"
HEAP = "benchmarks/test_sync.py::test_pair[system-READ-1MiB]"
NULL = "benchmarks/test_sync.py::test_null"


def facts(**changes: Any) -> RowFacts:
    return RowFacts(
        **{
            "unit": INSTRUCTIONS,
            "target": "vm",
            "arch": "x86_64",
            "kernel": "6.12.117",
            "python": "3.11.7",
            "provider": "udmabuf",
            "size": 1 << 20,
            "access": "READ",
            "api": "fcntl",
            "step": "pair",
            "calls": 2,
            "exact": True,
            **changes,
        }
    )


def benchmark(
    fullname: str, seconds: Sequence[float], row: RowFacts | None = None, iterations: int = 1
) -> dict[str, Any]:
    """One benchmark as pytest-benchmark writes it; without *row* it is another project's."""
    quartiles = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3
    return {
        "group": None,
        "name": fullname.rpartition("::")[2],
        "fullname": fullname,
        "params": None,
        "param": None,
        "extra_info": row.as_extra_info() if row else {},
        "options": {},
        "stats": {
            "min": min(seconds),
            "max": max(seconds),
            "mean": statistics.fmean(seconds),
            "median": statistics.median(seconds),
            "q1": quartiles[0],
            "q3": quartiles[2],
            "iqr": quartiles[2] - quartiles[0],
            "rounds": len(seconds),
            "iterations": iterations,
            "data": list(seconds),
        },
    }


def document(
    benchmarks: Sequence[Mapping[str, Any]],
    *,
    minutes: float = 0,
    not_measured: Mapping[str, str] | None = None,
    machine: Mapping[str, Any] | None = None,
    run: RunFacts | None = None,
) -> dict[str, Any]:
    """A whole run, taken *minutes* after the first; a run of another project unless *run* is given."""
    content = {
        "machine_info": {
            "node": "board",
            "machine": "x86_64",
            "release": "6.12.117",
            "python_implementation": "CPython",
            "python_version": "3.11.7",
            **(machine or {}),
        },
        "commit_info": {"id": "0123456789abcdef", "dirty": False, "branch": "main"},
        "benchmarks": list(benchmarks),
        "datetime": (START + timedelta(minutes=minutes)).isoformat(),
        "version": "5.3.1",
    }
    if not_measured is not None or run is not None:
        lost = tuple(NotMeasured(name, reason) for name, reason in (not_measured or {}).items())
        content["dmasync"] = (run or RunFacts(kernel="6.12.117", target="vm", not_measured=lost)).as_block()
    return content


def write(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def exact(path: Path, counts: Mapping[str, int], minutes: float = 0, **more: Any) -> Path:
    """A run of the exact clock: every round of a row took the same number of instructions."""
    rows = []
    for fullname, count in counts.items():
        step = {"step": "null", "calls": 1, "provider": "none"} if fullname == NULL else {}
        provider = {"provider": "system"} if "[system" in fullname else {}
        rows.append(benchmark(fullname, [count * 1e-9] * 20, facts(**{**provider, **step})))
    return write(path, document(rows, minutes=minutes, **{"not_measured": {}, **more}))


def wall(
    path: Path,
    medians: Mapping[str, float],
    *,
    noise: float = 0.01,
    rounds: int = 60,
    seed: int = 0,
    minutes: float = 0,
    **more: Any,
) -> Path:
    """A run of another project: *medians* in seconds, normal noise relative to them."""
    source = random.Random(seed)  # noqa: S311  # noise, no secret
    rows = [
        benchmark(name, [middle * (1 + noise * source.gauss(0, 1)) for _ in range(rounds)])
        for name, middle in medians.items()
    ]
    return write(path, document(rows, minutes=minutes, **more))
