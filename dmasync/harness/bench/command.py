"""``dmasync bench``: run the suites, write pytest-benchmark JSON, print the sync's overhead."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dmasync.harness.bench.runner import GUEST_TIMEOUT_SECONDS, Request, run_suites
from dmasync.harness.bench.table import print_summary
from dmasync.harness.bench.targets import AUTO, FAKE, HARDWARE, VM, Chosen, choose
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.progress import ConsoleProgress, Progress, SilentProgress
from dmasync.harness.runs.reading import load_run
from dmasync.harness.runs.writing import refuse_unwritable
from dmasync.harness.sizes import parse_sizes
from dmasync.harness.vm.command import ARCHITECTURES

DEFAULT_OUTPUT = Path("dmasync-bench.json")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync bench``."""
    parser.add_argument(
        "--rung",
        choices=(AUTO, HARDWARE, VM, FAKE),
        default=AUTO,
        help="where to measure: hardware if a provider's node opens, else a virtual machine, else the fake (default)",
    )
    parser.add_argument("--exact", action="store_true", help="count instructions, in a virtual machine")
    parser.add_argument("--quick", action="store_true", help="the short suite")
    parser.add_argument(
        "--sizes",
        type=parse_sizes,
        default=(),
        metavar="LIST",
        help="instead of the suites: START, END and first START of buffers of these sizes, as 3MiB,24MiB",
    )
    parser.add_argument(
        "--only", metavar="GLOB", action="append", default=[], help="rows of such a name; may be repeated"
    )
    parser.add_argument("--kernel", metavar="K", help="a bzImage, a build tree, or debian:VERSION; see dmasync vm")
    parser.add_argument(
        "--append", metavar="ARG", action="append", default=[], help="an argument for the kernel; may be repeated"
    )
    parser.add_argument("--arch", choices=ARCHITECTURES, metavar="ARCH", help="x86-64 or arm64")
    parser.add_argument("--setup", action="store_true", help="install what a virtual machine lacks here, with apt")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, default=DEFAULT_OUTPUT, help="the run (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=GUEST_TIMEOUT_SECONDS,
        metavar="S",
        help="seconds for a virtual machine's boot and suites (default: %(default)g)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, say where the file is."""
    if not options.timeout > 0:
        raise CommandError(f"--timeout is {options.timeout:g}, expected seconds, more than 0")
    refuse_unwritable([options.output], [])
    signal.signal(signal.SIGTERM, _leave)
    chosen = choose(
        options.rung,
        exact=options.exact,
        names_kernel=bool(options.kernel or options.append or options.arch),
    )
    with ConsoleProgress("dmasync bench") as console:
        progress: Progress = SilentProgress() if options.quiet else console
        request = Request(
            rung=chosen.rung,
            exact=options.exact,
            quick=options.quick,
            sizes=options.sizes,
            only=tuple(options.only),
            kernel=options.kernel,
            append=tuple(options.append),
            machine=ARCHITECTURES[options.arch] if options.arch else None,
            setup=options.setup,
            timeout=options.timeout,
        )
        status = _measure(request, chosen, options.output, progress)
    print_summary(load_run(options.output))
    return status


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind on SIGTERM, so that what was started is ended first."""
    raise SystemExit(128 + number)


def _measure(request: Request, chosen: Chosen, output: Path, progress: Progress) -> ExitStatus:
    progress.note(f"rung {chosen.rung}: {chosen.reason}")
    if chosen.asked_for or chosen.rung != VM:
        return run_suites(request, output, progress)
    # Nobody asked for wall time, and in an emulator it says nothing.
    try:
        return run_suites(replace(request, exact=True), output, progress)
    except CommandError as error:
        if error.status != ExitStatus.SKIPPED:
            raise
        progress.done()
        progress.note(f"rung {FAKE}: no virtual machine here: {error}")
        return run_suites(replace(request, rung=FAKE), output, progress)


def run_suite(
    *,
    kernel: str | None = None,
    append: Sequence[str] = (),
    exact: bool = False,
    quick: bool = False,
    sizes: Sequence[int] = (),
    arch: str | None = None,
    rung: str = AUTO,
    output: Path,
    progress: Progress | None = None,
) -> Path:
    """Measure as the command does and return *output*, a run file.

    *sizes*, in bytes: instead of the suites START, END and first START of such buffers. *arch* is one of
    ``dmasync.harness.vm.ARCHITECTURES``. Raises CommandError; also where rows failed by a defect, which are then the
    ones that *output* lacks.
    """
    if arch is not None and arch not in ARCHITECTURES:
        raise CommandError(f"arch is {arch!r}, expected one of {', '.join(ARCHITECTURES)}")
    refuse_unwritable([output], [])
    chosen = choose(rung, exact=exact, names_kernel=bool(kernel or append or arch))
    request = Request(
        rung=chosen.rung,
        exact=exact,
        quick=quick,
        sizes=tuple(sizes),
        kernel=kernel,
        append=tuple(append),
        machine=ARCHITECTURES[arch] if arch else None,
    )
    status = _measure(request, chosen, output, progress or SilentProgress())
    if status != ExitStatus.GOOD:
        raise CommandError(f"some rows failed and are not in {output}", status)
    return output
