"""Ask one kernel after another: those behind the fake's profiles, and the newest that the archives offer.

    python -m tests.conformance.matrix [--only WORD]… [--also PATH]… [--seconds S] [--output DIR] [--list]

Each boots in a virtual machine and is asked what :mod:`tests.conformance.ask` asks, then by the search for a while
(:mod:`tests.conformance.search_fast`, which needs a C compiler). What is missing is fetched or
built first: minutes for a package, a quarter of an hour for a build. Prints the rows of the table in
``docs/explanation/kernels.md``, and what each kernel answered otherwise; DIR keeps each kernel's answers as JSON.
Exit status: 0 none differed, 1 one did or gave no answer, 4 none could be had.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import datetime
import json
import mmap
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.conformance.ask import differences_in

HERE = Path(__file__).parent
CMA = ("--append", "cma=64M")
NOT_HERE = 4
"""``dmasync vm``'s exit status where a kernel is not offered."""


class Entry(NamedTuple):
    """One kernel of the matrix."""

    name: str
    options: tuple[str, ...]
    """Of ``dmasync vm``: where the kernel comes from, and what it needs."""
    how: str
    """For the table: whose it is, or how it was made."""
    asked: tuple[str, ...] = ("--library",)
    """Of :mod:`tests.conformance.ask`: what this kernel is asked besides, and what it cannot be asked."""


ARM64 = ("--arch", "arm64")
# Debian's arm64 kernels have udmabuf and no dma-heaps.
NO_HEAP = ("--dmasync-no-heap",)
NO_HEAP_WORDS = "Debian's, which has no dma-heaps"
# A built kernel has the heaps, and the pages that it is told to have.
PAGES_16K = ("--config", str(HERE / "pages_16k.config"))
PAGES_64K = ("--config", str(HERE / "pages_64k.config"), "--memory", "2G")
"""The smallest CMA region is a huge page there, 512 MiB."""
BUILT_WORDS = "built from Debian's `linux-source-{}`, with a CMA heap"

KERNELS = (
    Entry("6.1-cma", ("--build", "debian:6.1", *CMA), BUILT_WORDS.format("6.1")),
    Entry("6.12", ("--kernel", "debian:6.12"), "Debian's"),
    Entry("6.12-cma", ("--build", "debian:6.12", *CMA), BUILT_WORDS.format("6.12")),
    Entry("6.16", ("--kernel", "debian:6.16"), "Debian's"),
    Entry("6.17", ("--kernel", "debian:6.17"), "Debian's"),
    Entry("6.18", ("--kernel", "debian:6.18"), "Debian's"),
    Entry("7.2", ("--kernel", "debian:7.2"), "Debian's"),
    Entry("7.3", ("--kernel", "debian:7.3"), "Debian's"),
    Entry("6.12-arm64", (*ARM64, "--kernel", "debian:6.12"), NO_HEAP_WORDS, NO_HEAP),
    Entry("6.12-arm64-16k", (*ARM64, "--kernel", "debian:6.12-16k"), NO_HEAP_WORDS, NO_HEAP),
    Entry("6.12-arm64-cma", (*ARM64, "--build", "debian:6.12", *CMA), BUILT_WORDS.format("6.12")),
    Entry("6.12-arm64-16k-cma", (*ARM64, "--build", "debian:6.12", *PAGES_16K, *CMA), BUILT_WORDS.format("6.12")),
    Entry("6.12-arm64-64k-cma", (*ARM64, "--build", "debian:6.12", *PAGES_64K, *CMA), BUILT_WORDS.format("6.12")),
    Entry("6.18-arm64", (*ARM64, "--kernel", "debian:6.18"), NO_HEAP_WORDS, NO_HEAP),
    Entry("7.3-arm64", (*ARM64, "--kernel", "debian:7.3"), NO_HEAP_WORDS, NO_HEAP),
    Entry("7.3-arm64-16k", (*ARM64, "--kernel", "debian:7.3-16k"), NO_HEAP_WORDS, NO_HEAP),
    Entry("newest", (), "the newest that Debian offers here"),
)
HEAD = (
    "| Profile | Architecture | Pages | Kernel | Cases | Differences | Library | Search steps | Differences | Date |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def ask(entry: Entry, seconds: float, seed: int, folder: Path) -> tuple[int, dict[str, Any] | None]:
    """Boot *entry* and ask it: the exit status of ``dmasync vm``, and what was answered; None where nothing was."""
    answers = folder / f"{entry.name}.json"
    answers.unlink(missing_ok=True)
    command = [sys.executable, "-m", "dmasync", "vm", "--setup", "--timeout", "3600", "--output", str(folder)]
    # An arm64 guest has a Python of its own.
    python = "python" if ARM64[1] in entry.options else sys.executable
    command += [*entry.options, "--", python, "-m", "tests.conformance.ask"]
    command += ["--seconds", "0", "--json", str(answers), *entry.asked]
    status = subprocess.run(command, cwd=HERE.parents[1], check=False).returncode
    if not answers.exists():
        return status, None
    said = json.loads(answers.read_text(encoding="utf-8"))
    if seconds and said["page_size"] % mmap.PAGESIZE == 0:  # the fake's memory in the search is the host's
        said["search"] = search(entry, seconds, seed, folder)
        answers.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return status, said


def search(entry: Entry, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Search on *entry* for so long: the steps, and the differences."""
    log = folder / f"{entry.name}-search.json"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.conformance.search_fast", *entry.options]
    command += ["--steps", "1000000", "--seconds", str(seconds), "--seed", str(seed), "--log", str(log)]
    status = subprocess.run(command, cwd=HERE.parents[1], check=False).returncode
    if not log.exists():
        return {"steps": 0, "divergences": [f"the search ended with status {status}"], "seed": seed}
    told = json.loads(log.read_text(encoding="utf-8"))
    return {"steps": told["steps"], "divergences": told["divergences"], "seed": seed}


def row(entry: Entry, said: dict[str, Any], day: datetime.date) -> str:
    """The kernel's line of the table."""
    architecture = {"x86_64": "x86-64", "aarch64": "arm64"}.get(said["architecture"], said["architecture"])
    searched = said.get("search", {"steps": 0, "divergences": []})
    cells = (
        said["profile"],
        architecture,
        f"{said['page_size'] // 1024} KiB",
        f"{said['kernel']}, {entry.how}",
        f"{said['cases']:,}",
        len(said["differences"]),
        passed(said["library"]) if "library" in said else "",
        f"{searched['steps']:,}",
        len(searched["divergences"]),
        day.isoformat(),
    )
    return f"| {' | '.join(map(str, cells))} |"


def passed(suite: dict[str, Any]) -> str:
    """How many tests of how many."""
    return f"{suite['cases'] - len(suite['differences'])} of {suite['cases']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.matrix", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this kernel of the list alone")
    parser.add_argument("--also", action="append", default=[], metavar="PATH", help="an image or a build tree more")
    parser.add_argument("--seconds", type=float, default=60, help="of the search on each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=int(f"{today:%Y%m%d}"), help="the search's (default: the day)")
    parser.add_argument("--output", type=Path, help="a folder that keeps each kernel's answers")
    parser.add_argument("--list", action="store_true", help="print the names of the kernels, and end")
    options = parser.parse_args(arguments)
    if options.list:
        print(*(f"{entry.name:18} {' '.join(entry.options)}".rstrip() for entry in KERNELS), sep="\n")
        return 0
    if unknown := set(options.only) - {entry.name for entry in KERNELS}:
        parser.error(f"--only {', '.join(sorted(unknown))}: no such kernel here; --list prints their names")
    wanted = [entry for entry in KERNELS if entry.name in options.only]
    if not options.only and not options.also:
        wanted = list(KERNELS)
    wanted += [Entry(Path(path).name, ("--kernel", path), f"`{Path(path).name}`") for path in options.also]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        return _ask_all(wanted, options.seconds, options.seed, folder, today)


def _ask_all(wanted: Sequence[Entry], seconds: float, seed: int, folder: Path, today: datetime.date) -> int:
    rows, notes, bad = [], [], 0
    for entry in wanted:
        status, said = ask(entry, seconds, seed, folder)
        if said is None:
            notes.append(
                f"{entry.name}: not asked, it is not offered here"
                if status == NOT_HERE
                else f"{entry.name}: gave no answer, dmasync vm ended with status {status}"
            )
            bad += status != NOT_HERE
            continue
        rows.append(row(entry, said, today))
        differences = differences_in(said)
        notes += [f"{entry.name} answers otherwise than {said['profile']}: {name}" for name in differences]
        bad += bool(differences)
    print(HEAD, *rows, "", *notes, sep="\n")
    return 1 if bad else 0 if rows else NOT_HERE


if __name__ == "__main__":
    sys.exit(main())
