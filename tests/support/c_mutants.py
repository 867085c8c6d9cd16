"""Take one thing out of the compiled core at a time, and see which test notices.

``python -m tests.support.c_mutants [--jobs N] [WORD…]`` builds each mutant of dmasync/_window.c (those with a WORD in
the name) in a copy of the tree and runs the tests there until one fails; a crash, and a run that never ends, count too.
Prints the test that caught each. The checkout is never touched. tools/mutate.py does the same to the library's Python.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.c_mutant import SOURCE, Mutant
from tests.support.c_mutants_list import MUTANTS
from tests.support.points.build import compiler

ROOT = Path(__file__).parents[2]
TESTS = ("compiled", "core", "syncer", "group", "cycles", "buffer", "view", "retry", "real_ioctl", "points")
"""In this order, but a mutant's own first: the quick ones before those that try every place."""
NO_TEST_OF_THE_CODE = "tests/unit/test_compiled.py::test_every_mutant_still_fits_the_text"
"""It fails in every mutant."""
SECONDS = 240
"""Of wall-clock time for one mutant, and of processor time."""
MEMORY = 4 << 30
"""Bytes of address space: a list of failures that never ends would take all there is."""
CRASHED_IN = re.compile(r'File ".*(tests/unit/test_\w+\.py)", line \d+,? in (test_\w+)')
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+(?:\[[^\]]*\])?)", re.MULTILINE)
LIMITED = (
    "import resource, sys, pytest; resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}));"
    "resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}));"
    "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); sys.exit(pytest.main(sys.argv[1:]))"
)


def copied_tree(where: Path) -> Path:
    """What the tests need, without a compiled core."""
    unwanted = shutil.ignore_patterns("__pycache__", "_window*.so")
    for name in ("dmasync", "fakes", "tests"):
        shutil.copytree(ROOT / name, where / name, symlinks=True, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", where)
    return where


def build(tree: Path, text: str) -> None:
    source = tree / "dmasync" / "_window.c"
    source.write_text(text)
    target = source.with_name(f"_window{sysconfig.get_config_var('EXT_SUFFIX')}")
    include = sysconfig.get_path("include")
    flags = ["-O1", "-fPIC", "-shared", "-w", f"-I{include}", "-o", str(target)]
    subprocess.run([*compiler(), *flags, str(source)], check=True, timeout=120)


def caught_by(tree: Path, first: Sequence[str]) -> str | None:
    """The test that failed, or why the run ended; None if all passed."""
    files = [f"tests/unit/test_{name}.py" for name in sorted(TESTS, key=lambda name: name not in first)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    environment.pop("DMASYNC_COMPILED", None)
    line = [sys.executable, "-c", LIMITED.format(memory=MEMORY, seconds=SECONDS), "-q", "-x", "-p", "no:cacheprovider"]
    for plugin in ("pytest_timeout", "pyfakefs.pytest_plugin", "dmasync.fakes.pytest_plugin"):
        line += ["-p", plugin]
    line += ["--timeout=60", "--timeout-method=thread", "--tb=line", f"--deselect={NO_TEST_OF_THE_CODE}"]
    # A group of its own: a test that forks may leave a child that waits for its parent.
    with subprocess.Popen(
        [*line, *(file for file in files if (tree / file).exists())],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as running:
        try:
            output = running.communicate(timeout=SECONDS)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            output = running.communicate()[0].decode(errors="replace")
            return f"never ended{_crashed(output)}"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    if running.returncode == 0:
        return None
    if found := FAILED.search(output):
        return found[1].removeprefix("tests/unit/")
    return f"status {running.returncode}{_crashed(output) or output[-300:]}"


def _crashed(output: str) -> str:
    found = CRASHED_IN.search(output)
    return f" in {found[1].removeprefix('tests/unit/')}::{found[2]}" if found else ""


def main() -> int:
    """Build and try the mutants. Exit status 1 if one survives, 2 if the tests fail without any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*", help="only mutants with one of these in the name")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.words or any(word in m.name for word in options.words)]
    original = SOURCE.read_text()

    def fate(mutant: Mutant | None) -> str | None:
        with tempfile.TemporaryDirectory(prefix="dmasync-c-mutant-") as scratch:
            tree = copied_tree(Path(scratch))
            build(tree, original if mutant is None else mutant.applied(original))
            caught = caught_by(tree, mutant.tests if mutant else ())
        if mutant is not None:
            print(f"{mutant.name:60} {caught or 'SURVIVED'}", flush=True)
        return caught

    if not options.words and (problem := fate(None)):
        print(f"the tests fail without any mutation: {problem}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(options.jobs) as pool:
        fates = list(pool.map(fate, chosen))
    caught = sum(each is not None for each in fates)
    print(f"{caught} of {len(fates)} caught")
    return 0 if caught == len(fates) else 1


if __name__ == "__main__":
    sys.exit(main())
