"""Ask one kernel all that is known to ask: the conformance suite, then the search for half a minute.

    python -m tests.conformance.ask [--on fake] [--library] [--seconds S] [--seed N] [--json FILE] [PYTEST ARGUMENTS…]

Runs on the kernel in question, as root: ``tox run -e conformance-vm`` does it in a virtual machine, ``tox run -e
kernels`` on one kernel after another. A CMA heap is asked where there is one. ``--library`` runs the library's own
suite on that kernel, too: allocator, windows, groups, fences. ``--on fake`` asks the fake instead, without the search.
Exit status: 0 it answered as the cases and the fake say, 1 it did not.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from dmasync.fakes.kernel.profile import nearest_profile
from tests.conformance.conftest import CMA_HEAPS

SUITE = "tests/conformance"
LIBRARY = "tests/vm/real_kernel_suite.py"
RECORDED_RELEASE = "6.12."
"""Whose answers are in ``tests/conformance/recorded``: another release gives others, and the cases know which."""
ROOT = Path(__file__).parents[2]


def suite(arguments: Sequence[str], on: str) -> dict[str, Any]:
    """Run the conformance suite; how many cases were asked, and the names of those that were answered otherwise."""
    options = [f"--dmasync-backend={on}", "-q", "-p", "no:cacheprovider"]
    if on == "real" and any(os.path.exists(path) for path in CMA_HEAPS):
        options.append("--dmasync-cma")
    if on == "real" and not os.uname().release.startswith(RECORDED_RELEASE):
        options.append(f"--ignore={SUITE}/test_recorded.py")
    where = [] if any(Path(argument.partition("::")[0]).exists() for argument in arguments) else [SUITE]
    return run_suite([*options, *arguments, *where])


def run_suite(arguments: Sequence[str]) -> dict[str, Any]:
    """Run pytest; what :func:`read` says of its report."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "cases.xml"
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}", *arguments]
        status = subprocess.run(command, check=False).returncode
        said = read(report) if report.exists() else {"cases": 0, "not_asked": 0, "differences": []}
    if status and not said["differences"]:
        said["differences"] = [f"the suite ended with status {status}"]
    return said


def read(report: Path) -> dict[str, Any]:
    """Of pytest's report: how many cases were asked, how many were skipped, and the names of those that failed."""
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 - pytest's own
    not_asked = sum(case.find("skipped") is not None for case in cases)
    differences = [
        f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return {"cases": len(cases) - not_asked, "not_asked": not_asked, "differences": differences}


def search(seconds: float, seed: int) -> dict[str, Any]:
    """Run the search that long; its steps, and the differences that it found."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log.json"
        command = [sys.executable, "-m", "tests.conformance.search", "--steps", "1000000"]
        command += ["--seconds", str(seconds), "--seed", str(seed), "--log", str(log)]
        status = subprocess.run(command, check=False).returncode
        if not log.exists():
            return {"steps": 0, "divergences": [f"the search ended with status {status}"]}
        said = json.loads(log.read_text(encoding="utf-8"))
    return {"steps": said["steps"], "divergences": said["divergences"], "seed": seed}


def differences_in(told: dict[str, Any]) -> list[str]:
    """All that a kernel answered otherwise than the cases, the library or the search expect."""
    found = [*told["differences"], *told.get("library", {}).get("differences", [])]
    return [*found, *told.get("search", {}).get("divergences", [])]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.ask", description=__doc__)
    parser.add_argument("--on", choices=("real", "fake"), default="real", help="who answers (default: %(default)s)")
    parser.add_argument("--library", action="store_true", help="run the library's own suite on the real kernel")
    parser.add_argument("--seconds", type=float, default=30, help="how long the search runs; 0: not at all")
    parser.add_argument("--seed", type=int, default=1, help="the search's first seed (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write what was asked and answered here")
    options, rest = parser.parse_known_args(arguments)
    os.chdir(ROOT)
    if options.on == "real":
        # It has the fences. A built kernel has it built in; where it is missing altogether the suite fails and says so.
        subprocess.run(["modprobe", "-q", "vgem"], check=False)
    release = os.uname().release
    told: dict[str, Any] = {
        "kernel": release,
        "profile": nearest_profile(release).name,
        "architecture": platform.machine(),
        "page_size": mmap.PAGESIZE,
        "cma": any(os.path.exists(path) for path in CMA_HEAPS),
        **suite(rest, options.on),
    }
    if options.on == "real" and options.library:
        told["library"] = run_suite(["-q", "-p", "no:cacheprovider", LIBRARY])
    if options.on == "real" and options.seconds:
        told["search"] = search(options.seconds, options.seed)
    if options.json is not None:
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    differences = differences_in(told)
    not_asked = f" ({told['not_asked']} not asked)" if told["not_asked"] else ""
    print(
        f"{release}: {told['cases']} cases{not_asked}, {told.get('search', {}).get('steps', 0)} steps of the search, ",
        end="",
    )
    print(f"{len(differences)} differences", *differences, sep="\n  ")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
