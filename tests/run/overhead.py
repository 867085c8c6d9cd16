"""What ``dmasync run`` costs: ``python -m tests.run.overhead``.

Beside it stand no filter, the smallest that there can be, and strace. Prints a table of medians in microseconds. Say so
when the machine is not idle: its load is in the first line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("programs") / "overhead.c"
RUN = [sys.executable, "-m", "dmasync", "run", "--"]
STRACE = ["strace", "-f", "--seccomp-bpf", "-o", os.devnull, "-e", "trace=ioctl,openat"]
LAUNCHES = 15
ROUNDS = 5
HUNDREDS = ("untrapped", "other-read")
"""Rows that tell a hundred calls at once."""
TENS = "usual-"
"""How the names of those begin that tell ten."""


def medians(commands: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Microseconds by name, of each of *commands*: the best of some rounds, taken in turn."""
    found: dict[str, dict[str, float]] = {name: {} for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            for row, value in map(str.split, done.stdout.splitlines()):
                scale = 1e5 if row in HUNDREDS else 1e4 if row.startswith(TENS) else 1e3
                found[name][row] = min(float(value) / scale, found[name].get(row, float("inf")))
    return found


def launches(commands: list[list[str]]) -> list[float]:
    """Milliseconds from start to end, of each of *commands*: the least of some, taken in turn."""
    least = [float("inf")] * len(commands)
    for _ in range(LAUNCHES):
        for place, command in enumerate(commands):
            begin = time.perf_counter()
            subprocess.run(command, check=True)
            least[place] = min(least[place], (time.perf_counter() - begin) * 1e3)
    return least


def _shown(cell: float | None, bare: float | None) -> str:
    if cell is None:
        return f"{'-':>18}"
    more = "" if bare is None or cell is bare else f" {cell / bare - 1:+.0%}"
    return f"{f'{cell:.3f}{more}':>18}"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/overhead"
        subprocess.run([shutil.which("cc") or "gcc", "-O2", "-w", "-o", program, SOURCE], check=True)
        commands = {
            "no filter": [program, "native"],
            "any filter": [program, "filtered"],
            "dmasync run": [*RUN, program],
        }
        if shutil.which("strace"):
            commands["strace"] = [*STRACE, program, "native"]
        columns = medians(commands)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")  # noqa: T201
    print(f"{'median us':24}" + "".join(f"{name:>18}" for name in columns))  # noqa: T201
    for row in columns["dmasync run"]:
        bare = columns["no filter"].get(row)
        shown = "".join(_shown(column.get(row), bare) for column in columns.values())
        print(f"{row:24}{shown}")  # noqa: T201
    imports, run = launches(
        [[sys.executable, "-c", "import dmasync.harness.run, dmasync.fakes.foreign.systems"], [*RUN, "true"]]
    )
    print(f"launch: {run - imports:.0f} ms beside Python's imports ({imports:.0f} ms)")  # noqa: T201


if __name__ == "__main__":
    main()
