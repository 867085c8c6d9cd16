"""Random programs of several processes, behind ``dmasync run`` and on a real kernel: is every answer the same?

    python -m tests.run.search --steps 100000 --kernel debian:6.12 [--log out/log.json] [--seed 1] …

One executor runs here behind the door, one in a virtual machine, both the same binary and at the same time. A program
whose answers differ is asked again, alone; what differs again is shrunk, told and kept as a file. The log is complete
at any time. Exit status: 0 no difference, 1 at least one, 4 the kernel could not be started.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.conformance.search_executor import ExecutorError
from tests.run.search.running import Options, Search


def parsed(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.run.search", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000, help="how many commands in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first program (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="leave out so many programs: to continue")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    parser.add_argument("--log", type=Path, help="write what was asked and what came of it to this file")
    parser.add_argument("--keep", type=Path, help="a folder for the programs that differ")
    parser.add_argument("--record", type=Path, help="write programs and the kernel's answers to this file")
    parser.add_argument("--ask", type=Path, nargs="*", help="only these files of programs")
    parser.add_argument("--profile", help="the release that the fake imitates (default: the kernel's)")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="REGEX", help="what is not compared; repeatable"
    )
    parser.add_argument("--kernel", default="debian:6.12", help="as for dmasync vm (default: %(default)s)")
    parser.add_argument("--memory", help="as for dmasync vm")
    return parser.parse_args(arguments, namespace=Options())


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    options = parsed(arguments)
    try:
        search = Search(options)
    except ExecutorError as failure:
        print(failure, file=sys.stderr)
        return 4
    try:
        search.run()
    finally:
        search.close()
    print(search.summary())
    return 1 if search.differences else 0


if __name__ == "__main__":
    sys.exit(main())
