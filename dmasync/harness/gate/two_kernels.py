"""Judge two kernels, or one kernel with two command lines: measure both on the exact clock, then compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dmasync.harness.bench.suite import Request, run_suite
from dmasync.harness.bench.table import print_summary
from dmasync.harness.bench.targets import VM
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.gate.finish import finish
from dmasync.harness.gate.outputs.destinations import Outputs
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.option_types import given_text
from dmasync.harness.progress import ConsoleProgress
from dmasync.harness.runs.reading import Run, load_run
from dmasync.harness.runs.writing import made_folder
from dmasync.harness.scratch import scratch_folder
from dmasync.harness.vm.kernels import ARCHITECTURES


@dataclass(frozen=True)
class Subject:
    """What is measured: a kernel (None: the newest packaged one), its further arguments, the architecture."""

    kernel: str | None
    append: tuple[str, ...] = ()
    arch: str | None = None
    quick: bool = False
    only: tuple[str, ...] = ()


class Measure(Protocol):
    """Measure *subject* on the exact clock in a fresh boot and write the run to *output*.

    Raises CommandError: what the virtual machine and the suites raise, with their statuses.
    """

    def __call__(self, subject: Subject, output: Path) -> None: ...


def add_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--kernel",
        metavar="K",
        type=given_text,
        action="append",
        default=[],
        help="the base's kernel, then the candidate's; once: both sides run it",
    )
    for side in ("base", "candidate"):
        group.add_argument(
            f"--append-{side}",
            metavar="ARG",
            action="append",
            default=[],
            help=f"an argument for the {side}'s kernel; may be repeated",
        )
    group.add_argument("--arch", metavar="ARCH", choices=ARCHITECTURES, help="the guest's architecture (x86_64, arm64)")
    group.add_argument("--quick", action="store_true", help="the short suite")


def is_asked_for(options: argparse.Namespace) -> bool:
    return bool(options.kernel or options.append_base or options.append_candidate)


def run(
    options: argparse.Namespace, settings: GateSettings, outputs: Outputs, measure: Measure | None = None
) -> ExitStatus:
    """Measure base, base again for the self-check, and candidate; judge."""
    base, candidate = subjects(options)
    measure = measure or measure_with_bench
    with scratch_folder("gate") as scratch:
        folder = made_folder(options.keep) if options.keep else scratch
        base_run = _measured(measure, base, folder / "base.json")
        again = _measured(measure, base, folder / "base-again.json") if options.self_check else None
        candidate_run = _measured(measure, candidate, folder / "candidate.json")
        repeated = None if again is None else [again]
        return finish([base_run], [candidate_run], repeated, options.self_check, settings, outputs)


def subjects(options: argparse.Namespace) -> tuple[Subject, Subject]:
    """The two sides that the arguments name; CommandError if they are not two."""
    names: Sequence[str | None] = options.kernel or [None]
    if len(names) > 2:
        raise CommandError(f"--kernel was given {len(names)} times: give the base's and the candidate's")
    rest = (options.arch, options.quick, tuple(options.only))
    base = Subject(names[0], arguments(options.append_base), *rest)
    candidate = Subject(names[-1], arguments(options.append_candidate), *rest)
    if base == candidate and not options.self_check:
        raise CommandError(
            "both sides are the same kernel with the same arguments: give a second --kernel, "
            "--append-candidate, or --self-check"
        )
    return base, candidate


def arguments(given: Sequence[str]) -> tuple[str, ...]:
    """Kernel arguments one by one. An empty text is none: ``--append-candidate "$(cat cmdline)"``."""
    return tuple(argument for text in given for argument in text.split())


def measure_with_bench(subject: Subject, output: Path) -> None:
    """Measure with the suites in a virtual machine, as ``dmasync bench --on vm --exact`` does."""
    request = Request(
        on=VM,
        exact=True,
        quick=subject.quick,
        only=subject.only,
        kernel=subject.kernel,
        append=subject.append,
        arch=subject.arch,
    )
    with ConsoleProgress("dmasync bench") as progress:
        run_suite(request, output, progress)
    # The suites' summary is no verdict: it must not stand on the gate's standard output.
    print_summary(load_run(output), sys.stderr)


def _measured(measure: Measure, subject: Subject, output: Path) -> Run:
    measure(subject, output)
    return load_run(output)
