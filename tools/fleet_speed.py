"""Make a store of a whole fleet's year, and print how long its answers take, beside those over JSON files.

    python tools/fleet_speed.py STORE [--boards 300] [--kernels 5] [--nights 365] [--rows 71] [--again]

STORE must not be there yet; it stays. 300 boards x 5 kernels x 365 nights x 71 rows are 39 million rows. The noise is
that of a shared machine; on every 50th board one row in 10 gets a tenth slower in the last week. What the same answers
take over JSON files is measured on a sample of files, and told for all of them by their count.
"""

# ruff: noqa: T201, S311, S608 - a command: its results go to standard output; its noise is no secret, its SQL its own
from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

from history_speed import document  # beside this file

from dmasync.harness.runs.reading import load_run
from dmasync.harness.store.fleet_moves import WEEKS
from dmasync.harness.store.parquet_files import MERGED, connected, quoted, write_query
from dmasync.harness.store.parquet_store import ParquetStore

NEWEST = datetime(2026, 3, 1, 2)
SAMPLE = 40
ROW = "benchmarks/test_sync_pair.py::test_sync_pair[row7]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", metavar="STORE", type=Path)
    parser.add_argument("--boards", metavar="N", type=int, default=300)
    parser.add_argument("--kernels", metavar="N", type=int, default=5)
    parser.add_argument("--nights", metavar="N", type=int, default=365)
    parser.add_argument("--rows", metavar="N", type=int, default=71)
    parser.add_argument("--again", action="store_true", help="take the store that is there")
    options = parser.parse_args()
    if options.again != options.store.is_dir():
        parser.error(f"{options.store}: {'no such folder' if options.again else 'is there already: add --again'}")
    if not options.again:
        began = time.perf_counter()
        generate(options.store, options.boards, options.kernels, options.nights, options.rows)
        print(f"made in {time.perf_counter() - began:.0f} s")
    files = list(options.store.glob("summaries/*/*.parquet"))
    size = sum(path.stat().st_size for path in options.store.rglob("*") if path.is_file())
    runs = options.boards * options.kernels * options.nights
    print(f"{runs * options.rows:,} rows of {runs:,} runs in {len(files)} files, {size / 1e6:,.0f} MB")
    a_run = seconds_a_json_run(options.rows)
    a_board, shown = options.kernels * options.nights, options.boards * options.kernels * min(options.nights, WEEKS * 7)
    print(f"today, from JSON files: {a_run * 1000:.1f} ms of CPU a run, measured on {SAMPLE}")
    print(f"{'question':38} {'best':>8} {'median':>8} {'CPU':>8} {'JSON files, at that speed':>26}")
    for name, arguments, read in (
        ("a row's series on a board and kernel", ["series", ROW, "--board", "board007", "--kernel", "6.13.1"], a_board),
        ("a row's series on a board", ["series", ROW, "--board", "board007"], a_board),
        ("a board's last values", ["board", "board007"], a_board),
        ("what moved on the fleet this week", ["moved"], shown),
    ):
        wall, middle, cpu, rows = asked(options.store, arguments)
        told = f"{read * a_run:,.0f} s ({read:,} runs)"
        print(f"{name:38} {wall:6.2f} s {middle:6.2f} s {cpu:6.2f} s {told:>26}  {rows:,} rows", flush=True)
    print(f"list of all runs: {runs * a_run / 3600:.1f} h from JSON files without an index")
    print(f"peak memory of an answer: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")
    return 0


def generate(store: Path, boards: int, kernels: int, nights: int, rows: int) -> None:
    """Write a merged file a month, as ``dmasync history merge`` leaves them."""
    connection = connected(store)
    first = NEWEST - timedelta(days=nights - 1)
    months: dict[str, list[int]] = {}
    for night in range(nights):
        months.setdefault(f"{first + timedelta(days=night):%Y-%m}", []).append(night)
    for month, inside in months.items():
        query = f"""
            SELECT TIMESTAMP {quoted(first)} + night * INTERVAL 1 DAY + board * INTERVAL 1 SECOND AS moment,
                printf('board%03d', board) AS board, printf('6.%d.1', 12 + kernel) AS kernel, 'aarch64' AS arch,
                'hardware' AS target, 'wall' AS clock, '3.11.7' AS "python", true AS compiled,
                '0123456789abcdef' AS commit,
                printf('benchmarks/test_sync_pair.py::test_sync_pair[row%d]', number) AS "row", 'ns' AS unit,
                level * (1 + 0.03 * noise) AS value, (level * (0.98 + 0.03 * noise))::FLOAT AS q1,
                (level * (1.03 + 0.03 * noise))::FLOAT AS q3, 200 AS rounds, 'udmabuf' AS provider,
                (4096 << (number % 12)::INTEGER)::BIGINT AS size, 'READ' AS access, 'pair' AS step
            FROM (SELECT *, (1000.0 + 1000 * number + 50 * kernel) * (CASE WHEN board % 50 = 7 AND number % 10 = 7
                    AND night >= {nights - 7} THEN 1.1 ELSE 1 END) AS level,
                sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()) AS noise
                FROM range({rows}) a(number), range({boards}) b(board), range({kernels}) k(kernel),
                    range({inside[0]}, {inside[-1] + 1}) n(night))
            ORDER BY "row", board, kernel, moment"""
        ids = [
            f"{night:04x}{board:06x}{kernel:06x}"
            for night in inside
            for board in range(boards)
            for kernel in range(kernels)
        ]
        write_query(store / "summaries" / month / f"{MERGED}synthetic.parquet", query, ids, connection)
    ParquetStore(store).merge()


def asked(store: Path, arguments: list[str]) -> tuple[float, float, float, int]:
    """Seconds that the command takes as a whole, Python's start included, the best and the median of five, and of CPU
    the best; rows answered.

    CPU seconds are those of all threads together: on a machine that is busy with other work they say more.
    """
    call = [sys.executable, "-m", "dmasync", "history", arguments[0], str(store), *arguments[1:], "--json"]
    waits, spent, rows = [], [], 0
    for _ in range(5):
        began, before = time.perf_counter(), _of_children()
        done = subprocess.run(call, check=True, capture_output=True, text=True)
        waits.append(time.perf_counter() - began)
        spent.append(_of_children() - before)
        rows = len(json.loads(done.stdout)["rows"])
    return min(waits), statistics.median(waits), min(spent), rows


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_a_json_run(rows: int) -> float:
    source = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.json" for number in range(SAMPLE)]
        for path in paths:
            path.write_text(json.dumps(document("board007", "6.13.1", NEWEST, rows, 200, source), indent=4))
        began = time.process_time()
        for path in paths:
            load_run(path)
        return (time.process_time() - began) / SAMPLE


if __name__ == "__main__":
    raise SystemExit(main())
