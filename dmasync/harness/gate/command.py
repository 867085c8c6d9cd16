"""The arguments of ``dmasync gate``, and which of its ways is taken."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.gate import bisect, interleave, two_kernels
from dmasync.harness.gate.finish import finish
from dmasync.harness.gate.outputs.destinations import Outputs
from dmasync.harness.judge.compare import self_check
from dmasync.harness.judge.settings import GateSettings, load_settings, number
from dmasync.harness.judge.verdict import Verdict
from dmasync.harness.option_types import given_path, given_text
from dmasync.harness.runs.given_files import files_of
from dmasync.harness.runs.reading import Run, load_run, narrowed, printable


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync gate``."""
    parser.allow_abbrev = False  # a shortened --bisect would escape its own rules for exit statuses
    files = parser.add_argument_group("two runs")
    files.add_argument("base", metavar="BASE", nargs="?", type=given_text, help="run file or folder of them")
    files.add_argument(
        "candidate", metavar="CANDIDATE", nargs="?", type=given_text, help="run file, or a folder of them"
    )
    files.add_argument(
        "--base",
        dest="more_base",
        metavar="F",
        type=given_text,
        action="append",
        default=[],
        help="a further run of the base",
    )
    files.add_argument(
        "--candidate",
        dest="more_candidate",
        type=given_text,
        metavar="F",
        action="append",
        default=[],
        help="a further run of the candidate",
    )
    parser.add_argument(
        "--max-regression", metavar="PCT", help="growth that passes, in percent, for every row without a rule"
    )
    parser.add_argument(
        "--settings",
        metavar="F",
        type=given_path,
        help="a TOML file with [tool.dmasync.gate] (default: pyproject.toml)",
    )
    parser.add_argument(
        "--only",
        metavar="GLOB",
        type=given_text,
        action="append",
        default=[],
        help="judge rows of such a name; may be repeated",
    )
    parser.add_argument(
        "--same-machine", action="store_true", help="judge wall rows although CPU, governor or the like differ"
    )
    parser.add_argument(
        "--fail-on-warning",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="a candidate whose kernel warned is not good (the default where kernels are measured here)",
    )
    parser.add_argument("--self-check", action="store_true", help="judge nothing unless the base equals itself")
    parser.add_argument("--keep", metavar="DIR", type=given_path, help="keep the runs that are measured here in DIR")
    two_kernels.add_arguments(parser.add_argument_group("two kernels, measured on the exact clock"))
    interleave.add_arguments(parser.add_argument_group("two measuring commands, taken A B B A"))
    bisect.add_arguments(parser.add_argument_group("one step of git bisect run"))
    Outputs.add_arguments(parser.add_argument_group("where the verdicts go, besides standard output"))


def run(options: argparse.Namespace) -> int:
    """Judge, print, write; return the exit status of the design."""
    if options.bisect:
        return bisect.run(options, _settings)
    return int(_run(options))


def _run(options: argparse.Namespace) -> ExitStatus:
    settings = _settings(options)
    outputs = Outputs.of(options)
    files_given = options.base or options.candidate or options.more_base or options.more_candidate
    ways = [files_given, two_kernels.is_asked_for(options), interleave.is_asked_for(options)]
    if sum(map(bool, ways)) > 1:
        raise CommandError("give one of: BASE and CANDIDATE, two kernels, two measuring commands")
    _refuse_idle(options, ("build", "measure", "panic_is_bad"), "for a step of a bisection: add --bisect")
    if not interleave.is_asked_for(options):
        _refuse_idle(options, ("blocks",), "for two measuring commands: add --measure-base and --measure-candidate")
    if two_kernels.is_asked_for(options):
        _refuse_idle(options, ("same_machine",), "for runs by the wall clock: kernels are measured on the exact clock")
        outputs.check([])
        return two_kernels.run(options, settings, outputs)
    _refuse_idle(options, ("arch", "quick"), "for kernels that are measured here: add --kernel or --append-candidate")
    if interleave.is_asked_for(options):
        outputs.check([])
        return interleave.run(options, settings, outputs)
    _refuse_idle(options, ("keep",), "for runs that are measured here: BASE and CANDIDATE are kept already")
    base_files = files_of([options.base, *options.more_base])
    candidate_files = files_of([options.candidate, *options.more_candidate])
    outputs.check([*base_files, *candidate_files])
    if not base_files:
        raise CommandError("nothing to judge: give BASE and CANDIDATE, or two kernels with --kernel")
    runs = narrowed([load_run(path) for path in (*base_files, *candidate_files)], options.only)
    base, candidate = runs[: len(base_files)], runs[len(base_files) :]
    if not candidate:
        return _only_self_check(options, base, settings)
    return finish(base, candidate, None, options.self_check, settings, outputs)


def _refuse_idle(options: argparse.Namespace, names: Sequence[str], meaning: str) -> None:
    """An argument that would change nothing is a misunderstanding: CommandError if one of *names* was given."""
    for name in names:
        given = getattr(options, name)
        if given is not None and given is not False:
            raise CommandError(f"--{name.replace('_', '-')} is {meaning}")


def _only_self_check(options: argparse.Namespace, base: Sequence[Run], settings: GateSettings) -> ExitStatus:
    if not options.self_check:
        raise CommandError("CANDIDATE is missing: give the run that is to be judged")
    checked = self_check(base, None, settings)
    print(f"self-check: {printable(checked)}")  # noqa: T201
    return ExitStatus.GOOD if checked == Verdict.SAME.value else ExitStatus.CANNOT_JUDGE


def _settings(options: argparse.Namespace) -> GateSettings:
    fails = options.fail_on_warning
    if fails is None:
        fails = two_kernels.is_asked_for(options)
    settings = replace(load_settings(options.settings), same_machine=options.same_machine, fail_on_warning=fails)
    if options.max_regression is None:
        return settings
    try:
        percent = number(float(options.max_regression.removesuffix("%")), "--max-regression")
    except ValueError:
        raise CommandError(
            f"--max-regression is {options.max_regression!r}, expected percent, a number of at least 0"
        ) from None
    return settings.with_max_regression(percent)
