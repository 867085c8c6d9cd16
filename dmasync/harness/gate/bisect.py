"""One step of ``git bisect run``: build, boot, measure, compare with a saved baseline, answer by git's rules.

0 is good, 1 is bad, 125 asks git to skip the commit, 128 and above stop the bisection. git takes 1 to 127
except 125 for bad, so that a mistake in the call (argparse's 2), a missing part of this host (4) or a crash
of the gate itself must never reach it as they are: it would go on and blame an innocent commit. The command's
frame (:mod:`dmasync.cli`) sees to those that happen before this module is asked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.gate.outputs.destinations import Outputs
from dmasync.harness.gate.shell import OUTPUT_VARIABLE, NotStartedError, refuse_unusable, run_line
from dmasync.harness.gate.two_kernels import Measure, Subject, arguments, measure_with_bench
from dmasync.harness.judge.compare import judge
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.runs.reading import Run, load_run
from dmasync.harness.scratch import scratch_folder
from dmasync.harness.vm.host_packages import MissingPartError
from dmasync.harness.vm.machine import BootError, GuestDiedError, VirtualMachineError


class SkipCommitError(Exception):
    """The commit cannot be judged; the message tells why."""


class _LostOutputError(Exception):
    """Standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def add_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--bisect",
        action="store_true",
        help="answer by git's rules; BASE is the saved baseline, the candidate is CANDIDATE or a --kernel",
    )
    group.add_argument("--build", metavar="CMD", help="build the candidate first; a failure skips the commit")
    group.add_argument(
        "--measure",
        metavar="CMD",
        help=f"measure with CMD instead of a virtual machine; it writes the run to ${OUTPUT_VARIABLE}",
    )
    group.add_argument("--panic-is-bad", action="store_true", help="a kernel that panics is bad, instead of skipped")


def run(
    options: argparse.Namespace,
    settings_of: Callable[[argparse.Namespace], GateSettings],
    measure: Measure | None = None,
) -> int:
    """One step. Raises nothing but KeyboardInterrupt, which the command answers with 130, and the OSError of a standard
    output that cannot be written, answered with 128: both stop git.
    """
    try:
        return _step(options, settings_of(options), measure)
    except SkipCommitError as reason:
        return _answer(ExitStatus.BISECT_SKIP, f"skipped: {reason}")
    except VirtualMachineError as error:
        if options.panic_is_bad and _panicked(error):
            return _answer(ExitStatus.REGRESSION, f"bad: {error}")
        return _answer(ExitStatus.BISECT_SKIP, f"skipped: {error}")
    except MissingPartError as error:
        return _answer(ExitStatus.BISECT_STOP, str(error))
    except CommandError as error:
        if error.status in (ExitStatus.UNUSABLE, ExitStatus.BISECT_STOP):
            return _answer(ExitStatus.BISECT_STOP, str(error))
        return _answer(ExitStatus.BISECT_SKIP, f"skipped: {error}")
    except _LostOutputError as lost:  # the command's frame tells it, and stops git
        raise lost.error from None
    except Exception as error:  # a crash of ours must not be taken for a bad commit
        return _answer(ExitStatus.BISECT_STOP, f"internal error: {type(error).__name__}: {error}")


def _step(options: argparse.Namespace, settings: GateSettings, measure: Measure | None) -> int:
    if options.base is None or options.more_base:
        raise CommandError("give one saved baseline: dmasync gate --bisect BASE --kernel K")
    if len(options.kernel) > 1 or options.append_base:
        raise CommandError("the base is the saved baseline: give one --kernel and --append-candidate only")
    if options.measure_base or options.measure_candidate or options.blocks is not None:
        raise CommandError("a bisection measures the candidate only: give --measure CMD")
    if options.self_check or options.keep or options.more_candidate:
        raise CommandError("--self-check, --keep and --candidate are not for a step of a bisection: leave them out")
    for line, option in ((options.build, "--build"), (options.measure, "--measure")):
        refuse_unusable(line, option)
    outputs = Outputs.of(options)
    outputs.check([Path(options.base), *([Path(options.candidate)] if options.candidate else [])])
    base = load_run(options.base).only(options.only)
    if not base.rows:
        what = f"no rows named {' or '.join(options.only)}" if options.only else "no rows"
        raise CommandError(f"{options.base}: the baseline holds {what}: measure it again")
    candidate = _candidate(options, measure).only(options.only)
    judgement = judge([base], [candidate], settings)
    try:
        outputs.put(judgement, [base], [candidate], settings)
    except OSError as error:
        raise _LostOutputError(error) from error
    if judgement.status == ExitStatus.CANNOT_JUDGE:
        raise SkipCommitError(judgement.summary)
    return int(judgement.status)


def _candidate(options: argparse.Namespace, measure: Measure | None) -> Run:
    measured_here = options.kernel or options.append_candidate or options.build or options.measure
    if options.candidate is not None:
        if measured_here:
            raise CommandError("a CANDIDATE and a way to measure one were given: give one of them")
        return load_run(options.candidate)
    if not measured_here:
        raise CommandError("the candidate is missing: give --kernel, --append-candidate, --measure or a run")
    if options.measure and options.kernel:
        raise CommandError("--measure and --kernel were given: give one of them")
    if options.build:
        _built(options.build)
    with scratch_folder("bisect") as scratch:
        output = scratch / "candidate.json"
        if options.measure:
            _measured_by(options.measure, output)
        else:
            (measure or measure_with_bench)(_subject(options), output)
        if not output.is_file():
            raise SkipCommitError("nothing was measured")
        try:
            return load_run(output)
        except CommandError as error:
            raise SkipCommitError(str(error)) from None


def _subject(options: argparse.Namespace) -> Subject:
    kernel = options.kernel[0] if options.kernel else None
    return Subject(kernel, arguments(options.append_candidate), options.arch, options.quick, tuple(options.only))


def _built(line: str) -> None:
    if status := _run(line, {}):
        raise SkipCommitError(f"does not build (status {status})")


def _measured_by(line: str, output: Path) -> None:
    if status := _run(line, {OUTPUT_VARIABLE: str(output)}):
        raise SkipCommitError(f"the measuring command ended with status {status}")


def _run(line: str, variables: dict[str, str]) -> int:
    try:
        return run_line(line, variables)
    except NotStartedError as error:
        raise CommandError(str(error)) from None


def _panicked(error: VirtualMachineError) -> bool:
    return "Kernel panic" in error.console and isinstance(error, (BootError, GuestDiedError))


def _answer(status: ExitStatus, message: str) -> int:
    print(f"dmasync gate --bisect: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return int(status)
