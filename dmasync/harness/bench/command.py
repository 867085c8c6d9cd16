"""``dmasync bench``: run the suites, write pytest-benchmark JSON, print the sync's overhead."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dmasync.harness import old_names
from dmasync.harness.bench.suite import LostRunError, Request, run_suite
from dmasync.harness.bench.table import print_summary
from dmasync.harness.bench.targets import AUTO, GUEST_TIMEOUT_SECONDS, TARGETS, target_name
from dmasync.harness.lab.address import LABGRID, SSH, is_board
from dmasync.harness.option_types import add_kernel_arguments, given_path, given_text
from dmasync.harness.progress import ConsoleProgress, Progress, SilentProgress
from dmasync.harness.runs.reading import load_run, parse_run
from dmasync.harness.sizes import parse_sizes
from dmasync.harness.vm.kernels import ARCHITECTURES

DEFAULT_OUTPUT = Path("dmasync-bench.json")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync bench``."""
    on = parser.add_argument(
        "--on",
        type=_target,
        metavar="{auto,hardware,vm,fake,ssh://[USER@]BOARD[:PORT],labgrid:PLACE}",
        default=AUTO,
        help="where to measure: hardware if a provider's node opens, else a virtual machine, else the fake (default)",
    )
    parser.add_argument(f"--{old_names.TARGET}", action=old_names.OldName, now=on)
    parser.add_argument(
        "--exact", action="store_true", help="count instructions: in a virtual machine, also as a board"
    )
    parser.add_argument("--quick", action="store_true", help="the short suite")
    parser.add_argument(
        "--sizes",
        type=parse_sizes,
        default=(),
        metavar="LIST",
        help="instead of the suites: START, END and first START of buffers of these sizes, as 3MiB,24MiB (K, M and G "
        "are powers of 1024; KB, MB and GB are refused)",
    )
    parser.add_argument(
        "--only",
        metavar="GLOB",
        type=given_text,
        action="append",
        default=[],
        help="rows of such a name; may be repeated",
    )
    parser.add_argument(
        "--kernel", metavar="K", type=given_text, help="a bzImage, a build tree, or debian:VERSION; see dmasync vm"
    )
    add_kernel_arguments(parser)
    parser.add_argument("--arch", choices=ARCHITECTURES, metavar="ARCH", help="x86-64 or arm64")
    parser.add_argument("--setup", action="store_true", help="install what a virtual machine lacks here, with apt")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=given_path, default=DEFAULT_OUTPUT, help="the run (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=GUEST_TIMEOUT_SECONDS,
        metavar="S",
        help="seconds for a virtual machine's boot and suites, or for a board (default: %(default)g)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="list each row that is not exact")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def _target(given: str) -> str:
    if given not in TARGETS and not is_board(given):
        choices = ", ".join((*TARGETS, f"{SSH}BOARD", f"{LABGRID}PLACE"))
        raise argparse.ArgumentTypeError(f"invalid choice: {given!r} (choose from {choices})")
    try:
        return target_name(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, say where the file is."""
    with ConsoleProgress("dmasync bench") as console:
        progress: Progress = SilentProgress() if options.quiet else console
        try:
            status = run_suite(request_of(options), options.output, progress)
        except LostRunError as error:
            console.done()
            # What took minutes to measure must not go with a disk that filled up meanwhile.
            print_summary(parse_run(options.output, error.text), verbose=options.verbose, kept=False)
            raise
    print_summary(load_run(options.output), verbose=options.verbose)
    return status


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of ``dmasync bench`` as another command's users gave them."""
    parser = argparse.ArgumentParser(prog="dmasync bench")
    configure(parser)
    return parser.parse_args(arguments)


def request_of(options: argparse.Namespace) -> Request:
    """What the options of ``dmasync bench`` ask for."""
    return Request(
        on=options.on,
        exact=options.exact,
        quick=options.quick,
        sizes=options.sizes,
        only=tuple(options.only),
        kernel=options.kernel,
        append=tuple(options.append),
        arch=options.arch,
        setup=options.setup,
        timeout=options.timeout,
    )
