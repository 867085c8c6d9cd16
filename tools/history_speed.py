"""Make a storage of many runs, and print how long ``dmasync history list`` takes over it.

    python tools/history_speed.py FOLDER [--runs 10000] [--rows 71] [--rounds 200]

FOLDER must not be there yet; it stays, so that another version can be timed on the same runs:
``python tools/history_speed.py FOLDER --again``. A run has the size of a quick one of the suites: 10,000 take 4 GB.
"""

# ruff: noqa: T201, S311 - a command: its results go to standard output; its noise is no secret
from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from dmasync.harness.runs.facts import RowFacts, RunFacts

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
BOARDS, KERNELS = 20, 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--runs", metavar="N", type=int, default=10_000)
    parser.add_argument("--rows", metavar="N", type=int, default=71)
    parser.add_argument("--rounds", metavar="N", type=int, default=200)
    parser.add_argument("--again", action="store_true", help="take the runs that are there")
    options = parser.parse_args()
    if options.again != options.folder.is_dir():
        parser.error(f"{options.folder}: {'no such folder' if options.again else 'is there already: add --again'}")
    if not options.again:
        generate(options.folder, options.runs, options.rows, options.rounds)
    for name in ("first list", "second list", "third list"):
        began, before = time.perf_counter(), _of_children()
        listed = subprocess.run(
            [sys.executable, "-m", "dmasync", "history", "--storage", str(options.folder), "list"],
            check=True,
            capture_output=True,
            text=True,
        )
        lines = listed.stdout.count(".json")
        spent = _of_children() - before
        print(f"{name}: {time.perf_counter() - began:.2f} s, {spent:.2f} s of CPU, {lines} runs", flush=True)
    return 0


def _of_children() -> float:
    """Seconds of CPU: on a machine that is busy with other work they say more than the clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def generate(folder: Path, runs: int, rows: int, rounds: int) -> None:
    """Nights of :data:`BOARDS` with :data:`KERNELS` each, in the places where ``dmasync history`` keeps them."""
    source = random.Random(0)
    for number in range(runs):
        board, kernel = f"board{number % BOARDS:02}", f"6.{number // BOARDS % KERNELS + 12}.1"
        moment = START + timedelta(hours=number // BOARDS)
        place = folder / f"{board}_aarch64_hardware_wall_py3.11.7-compiled_{kernel}"
        place.mkdir(parents=True, exist_ok=True)
        content = document(board, kernel, moment, rows, rounds, source)
        name = f"{number // (BOARDS * KERNELS) + 1:04}_{moment:%Y%m%d_%H%M%S}_good.json"
        (place / name).write_text(json.dumps(content, indent=4))


def document(
    board: str, kernel: str, moment: datetime, rows: int, rounds: int, source: random.Random
) -> dict[str, Any]:
    """A run as ``dmasync bench`` writes it."""
    return {
        "machine_info": {
            "node": board,
            "machine": "aarch64",
            "release": kernel,
            "python_implementation": "CPython",
            "python_version": "3.11.7",
            "cpu": {"brand_raw": "a board", "count": 4},
        },
        "commit_info": {"id": "0123456789abcdef", "dirty": False, "branch": "main"},
        "benchmarks": [_benchmark(number, kernel, rounds, source) for number in range(rows)],
        "datetime": moment.isoformat(),
        "version": "5.3.1",
        "dmasync": RunFacts(kernel=kernel, target="hardware").as_block(),
    }


def _benchmark(number: int, kernel: str, rounds: int, source: random.Random) -> dict[str, Any]:
    middle = 1e-6 * (1 + number)
    data = [middle * source.lognormvariate(0, 0.03) for _ in range(rounds)]
    facts = RowFacts(
        unit="ns", target="hardware", arch="aarch64", kernel=kernel, python="3.11.7", compiled=True,
        provider="udmabuf", size=4096 << number % 12, access="READ", api="fcntl", step="pair", calls=2,
    )  # fmt: skip
    q1, _, q3 = statistics.quantiles(data, method="inclusive")
    stats = {"min": min(data), "max": max(data), "mean": statistics.fmean(data), "median": statistics.median(data)}
    name = f"test_sync_pair[row{number}]"
    return {
        "group": None,
        "name": name,
        "fullname": f"benchmarks/test_sync_pair.py::{name}",
        "extra_info": facts.as_extra_info(),
        "stats": {**stats, "q1": q1, "q3": q3, "iqr": q3 - q1, "rounds": rounds, "iterations": 1, "data": data},
    }


if __name__ == "__main__":
    raise SystemExit(main())
