# ruff: noqa: T201 - a command: its results go to standard output
"""Break the fake on purpose, and see that it does not get away with it.

    python -m tests.conformance.mutants [--only WORD] [--json FILE]

Each mutant changes one place in a copy of ``fakes``; the recorded answers of a real kernel are then run against the
copy, and where they do not tell, the conformance suite. In those called "profile …" one answer of a profile is its
neighbour's: the suite is asked at once, with that profile, as nothing was recorded of the others.

Exit status: 0 every mutant was caught, 1 one got away, 2 a mutant no longer fits the source.
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
from tests.conformance.mutants_profiles import SWAPS

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


def copy_project(folder: Path) -> None:
    """Copy what the suite needs into *folder*, once for all mutants: what Python compiled there is used again."""
    for name in ("fakes", "dmasync", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "divergences")
            )
        else:
            shutil.copy(source, folder / name)


def plant(mutant: Mutant, folder: Path) -> None:
    """Change the copy in *folder*; StaleMutantError where the mutant does not fit."""
    file = folder / "fakes" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise StaleMutantError(f"{mutant.name}: {mutant.file} has {text.count(mutant.old)} places like {mutant.old!r}")
    file.write_text(text.replace(mutant.old, mutant.new))


def judge(mutant: Mutant, folder: Path) -> Verdict:
    """Plant *mutant* in the copy in *folder*, run the recording, then the suite; the copy is whole again afterwards."""
    plant(mutant, folder)
    try:
        if mutant.profile is not None:
            return _asked(mutant, folder, 0)
        replayed = _run([sys.executable, "-c", _REPLAY], folder)
        if replayed.returncode:
            last = (replayed.stderr.strip().splitlines() or [f"ended with {replayed.returncode}"])[-1]
            return Verdict(mutant.name, "search", 0, last)
        steps, _, shown = replayed.stdout.strip("\n").partition("\t")
        if shown:
            return Verdict(mutant.name, "search", int(steps), shown)
        return _asked(mutant, folder, int(steps))
    finally:
        shutil.copy2(ROOT / "fakes" / mutant.file, folder / "fakes" / mutant.file)


def _asked(mutant: Mutant, folder: Path, steps: int) -> Verdict:
    options = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", "--timeout", "60"]
    options += ["--deselect", "tests/conformance/test_recorded.py"]
    options += ["--dmasync-profile", mutant.profile] if mutant.profile is not None else []
    suite = _run([sys.executable, "-m", "pytest", *options, "tests/conformance"], folder)
    failed = [line for line in suite.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if suite.returncode == 1 or failed:
        return Verdict(mutant.name, "suite", steps, (failed or ["no test was named"])[0][:160])
    return Verdict(mutant.name, "", steps, suite.stdout.strip().splitlines()[-1] if suite.stdout else "")


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
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
    with tempfile.TemporaryDirectory(prefix="dmasync-mutant-") as scratch:
        copy_project(Path(scratch))
        for mutant in (*MUTANTS, *SWAPS):
            if options.only in mutant.name:
                try:
                    verdicts.append(judge(mutant, Path(scratch)))
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
