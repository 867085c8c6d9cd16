"""The command: what it takes, what it sets up, and what its exit status says."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dmasync.harness import signals
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.run import checking, device
from dmasync.harness.run.calls import HANDLERS
from dmasync.harness.run.device_paths import HEAPS, UDMABUF, Places
from dmasync.harness.run.epoll_sockets import Twins
from dmasync.harness.run.outputs import Outputs
from dmasync.harness.run.parameters import Parameters
from dmasync.harness.run.program import processes
from dmasync.harness.run.program.keyboard import KeyboardSignals
from dmasync.harness.run.program.python_stacks import environment
from dmasync.harness.run.seccomp import filter as seccomp_filter
from dmasync.harness.run.seccomp import numbers
from dmasync.harness.run.seccomp.launch import Launched, launch
from dmasync.harness.run.supervisor import Supervisor

if TYPE_CHECKING:
    from dmasync.fakes import Fault, Finding
    from dmasync.fakes.foreign.systems import System

_TIMED_OUT: Final = 124  # as timeout(1) has it
_KILLED: Final = 128
_BASE: Final = 768
"""Of 1024 numbers, which select() can handle, the upper quarter is for what the backend gives."""
_USUAL_LIMIT: Final = 1024
_PROFILE: Final = "6.12"
_TEXTS: Final = ["faults", "allow", "trace", "perfetto", "svg", "node", "no_node", "deny", "profile", "sarif", "device"]
"""Options that a variable which is not set would leave empty."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync run``."""
    add = parser.add_argument
    add("--on", choices=("fake", "kernel"), default="fake", help="what answers: the fake kernel, or this machine's own")
    add("--fault", metavar="PLAN", action="append", default=[], help="a plan, such as 'storm(EINTR, 3)'; repeatable")
    add("--faults", metavar="FILE", action="append", default=[], help="a file of plans, one a line")
    add("--check", action="store_true", help="say what is wrong with its dma-buf access; exit status 1 if anything is")
    add("--leaks", action="store_true", help="with --check: descriptors that are open at the end are findings, too")
    add("--allow", metavar="KIND", action="append", default=[], help="with --check: leave out findings of this kind")
    add("--trace", metavar="FILE", help="write what it did, for dmasync replay")
    add("--timeline", metavar="LINES", type=int, default=0, help="print the last so many lines of what it did")
    add("--perfetto", metavar="FILE", help="write a trace for Perfetto or chrome://tracing")
    add("--svg", metavar="FILE", help="write a chart of buffers, windows, attempts and devices")
    add("--node", metavar="PATH", action="append", help="a device node that exists (default: all); repeatable")
    add("--no-node", metavar="PATH", action="append", default=[], help="a device node that does not; repeatable")
    add("--deny", metavar="PATH", action="append", default=[], help="a device node that may not be opened: EACCES")
    add(
        "--profile",
        metavar="KERNEL",
        help=f"the release that the fake imitates, or host (default: {_PROFILE})",
    )
    add("--noncoherent", metavar="SEED", type=int, help="devices do not see the CPU's caches, which SEED moves")
    add("--sarif", metavar="FILE", help="with --check: write the findings as SARIF, for a code review page")
    add("--device", metavar="MODULE", help="a Python file with setup(backend), for a device that works beside it")
    add("--timeout", metavar="SECONDS", type=float, help="kill it and all that it started then; exit status 124")
    add("program", metavar="PROGRAM", nargs=argparse.REMAINDER, help="the program and its arguments, behind --")
    parser.epilog = (
        "The exit status is the program's (128 + N if signal N ended it) where that is not 0; else 3 if it made a call "
        "that is not modelled, 1 if --check found anything, and 0. It is 2 for unusable arguments, 4 where programs "
        "cannot be run like this, 124 after --timeout."
    )


@dataclass
class Outcome:
    """What a run came to."""

    status: int
    """The program's own exit status, 128 + N if signal N ended it."""
    system: System
    unmodelled: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    timed_out: bool = False
    ended_by: signal.Signals | None = None
    """The signal that told dmasync to end: the program was killed, what was seen of it is kept."""

    @property
    def exit_status(self) -> int:
        """Of the command."""
        if self.timed_out:
            return _TIMED_OUT
        if self.ended_by is not None:
            return _KILLED + self.ended_by
        if self.status:
            return self.status
        if self.unmodelled:
            return ExitStatus.CANNOT_JUDGE
        return ExitStatus.REGRESSION if self.findings else ExitStatus.GOOD


def run(options: argparse.Namespace) -> int:
    """Run the program; the exit status as the epilog says."""
    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        raise CommandError("PROGRAM is missing: dmasync run -- PROGRAM ARGUMENTS")
    _refuse(options)
    named = [*options.faults, *filter(None, [options.device, shutil.which(program[0])]), *program[1:]]
    asked = {f"--{name}": getattr(options, name) for name in ("trace", "perfetto", "svg", "sarif")}
    files = Outputs(asked, filter(os.path.isfile, named))
    outcome = supervise(options, program, stacks=options.check)
    _report(options, outcome)
    files.write(outcome.system.journal, outcome.findings)
    return outcome.exit_status


def supervise(options: argparse.Namespace, program: Sequence[str], *, stacks: bool) -> Outcome:
    """Run *program* to its end; with *stacks* the journal tells where it was at each call."""
    machine = numbers.machine()
    if machine is None:
        raise CommandError(f"{platform.machine()} is not supported: 64-bit x86-64 and arm64 are", ExitStatus.SKIPPED)
    system = _system(options, stacks=stacks)
    places = Places(_nodes(options), options.deny, fake=system.is_fake)
    base = _first_number()
    handlers = {**HANDLERS, **checking.HANDLERS} if options.check else HANDLERS
    supervisor = Supervisor(system, handlers, places, base)
    if stacks:
        checking.take_stacks(supervisor)
    supervisor.answers_at_once = system.is_fake and not (options.fault or options.faults)  # a plan may delay calls
    check = _checking(options, system, supervisor) if options.check else None
    system.journal.facts |= {
        "kernel": system.kernel.profile.name if system.is_fake else platform.release(),  # type: ignore[attr-defined]
        "machine": platform.machine(),
        "program": list(program),
        "leaks": options.leaks,  # whether what is open at the end is a finding, for who replays it
    }
    if system.is_fake:
        supervisor.parameters = Parameters(system.kernel)  # type: ignore[attr-defined]
        supervisor.twins = Twins(system)  # type: ignore[arg-type]  # is_fake says so
        supervisor.files.on_gone.append(supervisor.twins.gone)
    if options.device is not None:
        device.install(options.device, system, supervisor)
    instructions = seccomp_filter.build(
        machine, base, fake=system.is_fake, waiting=options.device is not None, ends=options.check
    )
    numbers.prctl(numbers.PR_SET_CHILD_SUBREAPER, 1)  # what the program leaves behind is waited for here
    outcome = Outcome(0, system)
    with KeyboardSignals() as keyboard:
        launched = launch(program, instructions, environment(os.environ) if stacks else os.environ, keyboard.restore)
        supervisor.processes.top = launched.guard.pid
        supervisor.serve(launched.listener)

        def end(number: int, frame: object) -> None:
            # CI ends a job like this: trace and findings are written all the same.
            outcome.ended_by = signal.Signals(number)
            processes.kill_descendants(launched.guard.pid)

        timer = _timer(options.timeout, outcome, launched.guard.pid)
        try:
            with signals.answering(end), keyboard.passed_on(launched.pass_on):
                launched.go()
                outcome.status = _wait(launched)
        finally:
            if timer is not None:
                timer.cancel()
            launched.close()
    supervisor.finish()
    outcome.unmodelled = supervisor.problems
    if check is not None:
        outcome.findings = check.findings()
    return outcome


def _checking(options: argparse.Namespace, system: System, supervisor: Supervisor) -> checking.Checking:
    try:
        return checking.Checking(system, supervisor, allow=options.allow, leaks=options.leaks)
    except ValueError as problem:
        raise CommandError(f"--{problem}") from None


def _refuse(options: argparse.Namespace) -> None:
    """CommandError for what cannot be meant, before anything happens."""
    for name in _TEXTS:
        given = getattr(options, name)
        if given is not None and not all(map(str.strip, given if isinstance(given, list) else [given])):
            raise CommandError(f"--{name.replace('_', '-')} is empty: is a variable not set?")
    if options.on == "kernel":
        for name in ("profile", "node", "no_node", "noncoherent", "device"):
            if getattr(options, name) not in (None, []):
                raise CommandError(f"--{name.replace('_', '-')} is the fake's: it cannot go with --on kernel")
    if options.timeout is not None and not 0 < options.timeout < threading.TIMEOUT_MAX:
        raise CommandError(f"--timeout takes seconds, more than 0, not {options.timeout:g}")
    if options.timeline < 0:
        raise CommandError(f"--timeline takes a number of lines, not {options.timeline}")
    if options.sarif is not None and not options.check:
        raise CommandError("--sarif writes what --check finds: add --check")
    if not options.check and (options.leaks or options.allow):
        raise CommandError(f"{'--leaks' if options.leaks else '--allow'} says what --check shall do: add --check")
    for option, paths in (("--node", options.node or ()), ("--no-node", options.no_node), ("--deny", options.deny)):
        for path in paths:
            folder, _, name = path.rpartition("/")
            if path != UDMABUF and (folder != HEAPS or name in ("", ".", "..")):
                raise CommandError(f"{option} takes {UDMABUF} or {HEAPS}/NAME, not {path!r}")
    if options.on == "fake":
        for option, paths, nodes in (
            ("--no-node", options.no_node, _nodes(options, all_of_them=True)),
            ("--deny", options.deny, _nodes(options)),
        ):
            for path in paths:
                if path not in nodes:
                    listed = ", ".join(nodes) or "none"
                    raise CommandError(f"{option} {path!r} is no node of this run, which are: {listed}")


def _system(options: argparse.Namespace, *, stacks: bool) -> System:
    from dmasync.fakes.foreign.systems import FakeSystem, RealSystem

    faults = _plans(options)
    if options.on == "kernel":
        return RealSystem(faults, stacks=stacks)
    try:
        return FakeSystem(
            providers=_nodes(options),
            faults=faults,
            profile=_PROFILE if options.profile is None else options.profile,
            coherent=options.noncoherent is None,
            seed=options.noncoherent,
            watch=options.check,
            stacks=stacks,
        )
    except ValueError as problem:
        raise CommandError(str(problem)) from None


def _nodes(options: argparse.Namespace, *, all_of_them: bool = False) -> list[str]:
    from dmasync.fakes.kernel.nodes import DEFAULT_NODES

    nodes = list(DEFAULT_NODES if options.node is None else options.node)
    return [node for node in nodes if all_of_them or node not in options.no_node]


def _plans(options: argparse.Namespace) -> list[Fault]:
    from dmasync.fakes import faults

    texts = [("--fault", text) for text in options.fault]
    for path in options.faults:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError as problem:
            raise CommandError(f"--faults {path!r} cannot be read: {problem.strerror}") from None
        except UnicodeDecodeError:
            raise CommandError(f"--faults {path!r} cannot be read: it is no UTF-8 text") from None
        for number, line in enumerate(map(str.strip, lines), 1):
            if line and not line.startswith("#"):
                texts.append((f"{path}:{number}", line))
    plans = []
    for where, text in texts:
        if not text.strip():
            raise CommandError(f"{where} is empty: it takes a plan, such as 'storm(EINTR, 3)'")
        try:
            plans.append(faults.parse(text))
        except ValueError as problem:
            raise CommandError(f"{where}: {problem}") from None
    return plans


def _first_number() -> int:
    limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _USUAL_LIMIT)
    return limit * _BASE // _USUAL_LIMIT


def _timer(seconds: float | None, outcome: Outcome, guard: int) -> threading.Timer | None:
    if seconds is None:
        return None

    def expired() -> None:
        outcome.timed_out = True
        processes.kill_descendants(guard)

    timer = threading.Timer(seconds, expired)
    timer.daemon = True
    timer.start()
    return timer


def _wait(launched: Launched) -> int:
    """The program's exit status, when it and all that it started have ended."""
    problem = launched.refusal()
    state = launched.status()
    if problem:
        raise CommandError(f"PROGRAM cannot be started: {os.strerror(problem)}")
    if state is None:
        processes.kill_descendants()
        return _KILLED + signal.SIGKILL
    code = os.waitstatus_to_exitcode(state)
    return _KILLED - code if code < 0 else code


def _report(options: argparse.Namespace, outcome: Outcome) -> None:
    journal = outcome.system.journal
    if options.timeline:
        sys.stderr.write(journal.timeline(options.timeline) + "\n")
    if options.check:
        for finding in outcome.findings:
            sys.stderr.write(f"{finding}\n\n")
        sys.stderr.write(f"dmasync run: findings: {len(outcome.findings)}\n")
    if outcome.ended_by is not None:
        sys.stderr.write(f"dmasync run: ended by {outcome.ended_by.name}, and the program with it\n")
    if outcome.timed_out:
        sys.stderr.write(f"dmasync run: killed after {options.timeout:g} seconds\n")
