"""The table of the operations with each WORD: ``python -m tests.support.points [--pairs SPAN] [--direct] [WORD …]``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import dmasync
from tests.support.points import buffers, fakes, windows
from tests.support.points.build import build_module, build_preload
from tests.support.points.explore import explorer

_PRELOADED = "DMASYNC_POINTS_PRELOADED"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.points", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--pairs", type=int, default=0, metavar="SPAN", help="a second exception up to SPAN places on")
    parser.add_argument("--direct", action="store_true", help="no backend: the library's own ioctl(2) is interposed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.direct and _PRELOADED not in os.environ:
            _again_with(build_preload(Path(tempfile.mkdtemp())))
        points = build_module(Path(folder))
        compiled = getattr(dmasync, "compiled", False)
        _say(f"CPython {platform.python_version()}, compiled: {compiled}, direct: {options.direct}")
        bad = False
        begun = time.monotonic()
        with explorer(points, direct=options.direct) as explore:
            for operation in [*windows.operations(), *buffers.operations(), *fakes.operations()]:
                if all(word in operation.name for word in options.words):
                    report = explore.explore(operation, span=options.pairs)
                    bad = bad or bool(report.problems)
                    _say(report)
        _say(f"{time.monotonic() - begun:.1f} s")
    return int(bad)


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _again_with(library: Path) -> None:
    environment = os.environ | {"LD_PRELOAD": str(library), _PRELOADED: "1"}
    os.execve(sys.executable, [sys.executable, "-m", "tests.support.points", *sys.argv[1:]], environment)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
