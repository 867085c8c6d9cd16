# ruff: noqa: T201 - a command: its results go to standard output
"""Break the fake on purpose, and see that it does not get away with it.

    python -m tests.conformance.mutants [--only WORD] [--json FILE]

Each mutant changes one place in a copy of ``fakes``; the recorded answers of a real kernel are then run against the
copy, and where they do not tell, the conformance suite. Exit status: 0 every mutant was caught, 1 one got away, 2 a
mutant no longer fits the source.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conformance.mutants_list import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
_TIMEOUT_SECONDS = 300
_REPLAY = """
import signal
from tests.conformance.search_record import FOLDER, first_difference
signal.signal(signal.SIGALRM, lambda *_: None)
run = 0
for file in sorted(FOLDER.glob("*.jsonl.xz")):
    steps, difference = first_difference(file)
    run += steps
    if difference is not None:
        print(f"{run}\\t{difference.label}: {difference.said} instead of {difference.recorded}")
        break
else:
    print(f"{run}\\t")
"""


class StaleMutantError(Exception):
    """The source has no such place, or several."""


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant."""

    name: str
    caught_by: str
    """``search``, ``suite``, or nothing."""
    steps: int
    """Operations of the recording until it was caught, or all of them."""
    shown: str
    """What told: the operation and the two answers, or the first test that failed."""


def plant(mutant: Mutant, folder: Path) -> None:
    """Copy the project into *folder*, with the mutant in it; StaleMutantError where it does not fit."""
    for name in ("fakes", "dmasync", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "divergences")
            )
        else:
            shutil.copy(source, folder / name)
    file = folder / "fakes" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise StaleMutantError(f"{mutant.name}: {mutant.file} has {text.count(mutant.old)} places like {mutant.old!r}")
    file.write_text(text.replace(mutant.old, mutant.new))


def judge(mutant: Mutant) -> Verdict:
    """Plant *mutant*, run the recording, then the suite."""
    with tempfile.TemporaryDirectory(prefix="dmasync-mutant-") as scratch:
        folder = Path(scratch)
        plant(mutant, folder)
        replayed = _run([sys.executable, "-c", _REPLAY], folder)
        if replayed.returncode:
            last = (replayed.stderr.strip().splitlines() or [f"ended with {replayed.returncode}"])[-1]
            return Verdict(mutant.name, "search", 0, last)
        steps, _, shown = replayed.stdout.strip("\n").partition("\t")
        if shown:
            return Verdict(mutant.name, "search", int(steps), shown)
        options = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", "--timeout", "60"]
        options += ["--deselect", "tests/conformance/test_recorded.py"]
        suite = _run([sys.executable, "-m", "pytest", *options, "tests/conformance"], folder)
        failed = [line for line in suite.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if suite.returncode == 1 or failed:
            return Verdict(mutant.name, "suite", int(steps), (failed or ["no test was named"])[0][:160])
        return Verdict(mutant.name, "", int(steps), suite.stdout.strip().splitlines()[-1] if suite.stdout else "")


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        # A wake-up that never comes: that is told, too.
        return subprocess.CompletedProcess(command, 1, "FAILED it came to no end\n", "it came to no end\n")


def main() -> int:
    """Judge all mutants; print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="mutants with this word in their name")
    parser.add_argument("--json", type=Path, help="write the verdicts to a file")
    options = parser.parse_args()
    verdicts = []
    for mutant in MUTANTS:
        if options.only in mutant.name:
            try:
                verdicts.append(judge(mutant))
            except StaleMutantError as stale:
                print(stale, file=sys.stderr)
                return 2
            last = verdicts[-1]
            print(f"{last.caught_by or 'GOT AWAY':8} {last.steps:7} steps  {last.name}: {last.shown}", flush=True)
    away = [verdict.name for verdict in verdicts if not verdict.caught_by]
    print(f"{len(verdicts)} mutants, {len(verdicts) - len(away)} caught")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n")
    return 1 if away else 0


if __name__ == "__main__":
    sys.exit(main())
