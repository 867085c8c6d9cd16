"""``dmasync vm``: run a command on a real kernel in a virtual machine; its exit status is the command's."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from dmasync.harness import old_names
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.old_names import OldName
from dmasync.harness.option_types import add_kernel_arguments, given_path, given_text
from dmasync.harness.progress import ConsoleProgress, Progress, SilentProgress
from dmasync.harness.runs.reading import printable
from dmasync.harness.runs.writing import refuse_unwritable, write_atomically
from dmasync.harness.vm import cache, host, host_packages, kernels
from dmasync.harness.vm.kernels import ARCHITECTURES
from dmasync.harness.vm.machine import CompletedRun, VirtualMachine, VirtualMachineError, check_memory, check_numbers

RESULT_SCHEMA = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync vm``."""
    parser.add_argument(
        "--kernel",
        metavar="K",
        type=given_text,
        help="a bzImage, a build tree, or debian:VERSION (default: the newest packaged kernel with udmabuf built in)",
    )
    parser.add_argument(
        "--build",
        metavar="SOURCE",
        type=given_text,
        help="build the kernel instead, once: a kernel tree, or debian:6.1 for Debian's linux-source-6.1",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=given_path,
        help="with --build: lines such as CONFIG_CMA=y on top of a guest's own",
    )
    parser.add_argument("--arch", choices=ARCHITECTURES, metavar="ARCH", help="x86-64 or arm64 (default: the host's)")
    parser.add_argument("--exact", action="store_true", help="the exact clock: one guest nanosecond an instruction")
    add_kernel_arguments(parser)
    parser.add_argument(
        "--output", metavar="DIR", type=given_path, help="a folder that keeps what the guest writes there"
    )
    mount = parser.add_argument(
        "--mount",
        metavar="DIR",
        type=given_path,
        action="append",
        default=[],
        help="a folder that the guest must see too; may be repeated",
    )
    parser.add_argument(f"--{old_names.MOUNT}", action=OldName, now=mount)
    parser.add_argument(
        "--env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a variable for the command; may be repeated",
    )
    parser.add_argument("--memory", default="1G", metavar="SIZE", help="the guest's memory (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=1, help="the guest's CPUs (default: %(default)s)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds for boot and command (default: %(default)g)",
    )
    parser.add_argument(
        "--boot-timeout",
        type=float,
        default=VirtualMachine.boot_timeout,
        metavar="S",
        help="seconds after which a boot that does not get on has failed (default: %(default)g)",
    )
    parser.add_argument("--kvm", action="store_true", help="use KVM if it is there; never used unless asked for")
    parser.add_argument(
        "--setup", action="store_true", help="install what this host lacks, with apt, as root or by sudo"
    )
    parser.add_argument(
        "--clean", action="store_true", help="remove the kernels and root folders in the cache, and end"
    )
    parser.add_argument(
        "--fail-on-warning", action="store_true", help="status 1 where the kernel warned, though the command ended in 0"
    )
    parser.add_argument("--result", metavar="FILE", type=given_path, help="write how it ended to FILE, as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.add_argument("guest_command", metavar="CMD", nargs=argparse.REMAINDER, help="after --: the command")


def run(options: argparse.Namespace) -> int:
    """Boot, run the command, pass its output and exit status on."""
    if options.clean:
        return _clean()
    check_memory(options.memory, "--memory")
    # Before a kernel is fetched or built for it.
    check_numbers(options, lambda name: f"--{name.replace('_', '-')}", "leave it out")
    refuse_unwritable({"--result": options.result})
    command = options.guest_command[1:] if options.guest_command[:1] == ["--"] else options.guest_command
    if not command and not options.setup and options.build is None:
        raise CommandError("no command; write: dmasync vm -- CMD…")
    if command and not any(word.strip() for word in command):
        raise CommandError("CMD is empty: is a variable not set?")
    if options.build is not None and options.kernel is not None:
        raise CommandError("--build and --kernel both name a kernel: give one")
    if options.config is not None and options.build is None:
        raise CommandError("--config goes with --build: a kernel that is there already has its configuration")
    environment = dict(_assignment(text) for text in options.env)
    machine_name = ARCHITECTURES[options.arch] if options.arch else host.host_machine()
    with ConsoleProgress("dmasync vm") as console:
        progress: Progress = SilentProgress() if options.quiet else console
        try:
            if options.setup:
                host_packages.install_missing(progress, machine_name)
            if options.build is not None:
                kernel = kernels.build(options.build, machine_name, progress, fragment=options.config)
            else:
                kernel = kernels.resolve(options.kernel, machine=machine_name, progress=progress)
            if not command:
                progress.done()
                # The image of a built kernel has no name of its own: say where it is, for --kernel.
                print(kernel.image if options.build is not None else f"ready: {kernel.source}")  # noqa: T201
                return ExitStatus.GOOD
            if kernel.option("CONFIG_UDMABUF") == "n":
                progress.note(f"kernel {kernel.release} has no udmabuf (CONFIG_UDMABUF is not set)")
            machine = VirtualMachine(
                kernel=kernel,
                exact=options.exact,
                append=options.append,
                memory=options.memory,
                cpus=options.cpus,
                output=options.output,
                mount=options.mount,
                environment=environment,
                timeout=options.timeout,
                boot_timeout=options.boot_timeout,
                kvm=options.kvm,
                progress=progress,
            )
            completed = machine.run(
                # One word is a shell command line, as ssh and virtme-ng take it; several are a command.
                command[0] if len(command) == 1 else command,
                stdout=sys.stdout.buffer,
                stderr=sys.stderr.buffer,
            )
        except CommandError as error:
            _write_result(options.result, None, error)
            raise
        except BrokenPipeError:
            # Nobody reads on. Python would fail again when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
    _write_result(options.result, completed, None)
    log = completed.kernel_log
    if log.killed:
        print(  # noqa: T201
            f"dmasync vm: the guest ran out of memory ({options.memory}) and its kernel killed "
            f"{printable(', '.join(log.killed))}: give more with --memory",
            file=sys.stderr,
        )
    if log.warning:
        print(f"dmasync vm: the kernel warned while the command ran: {printable(log.warning)}", file=sys.stderr)  # noqa: T201
        if options.fail_on_warning and completed.returncode == 0:
            return ExitStatus.REGRESSION
    return completed.returncode


def _clean() -> int:
    removed = cache.clear()
    for path in removed:
        print(f"removed {path}")  # noqa: T201
    if not removed:
        print(f"nothing in {cache.cache_directory()}")  # noqa: T201
    return ExitStatus.GOOD


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise CommandError(f"--env {text}: expected NAME=VALUE")
    return name, value


def _write_result(path: Path | None, completed: CompletedRun | None, error: CommandError | None) -> None:
    if path is None:
        return
    outcome: dict[str, object] = {"schema": RESULT_SCHEMA}
    if completed is not None:
        outcome |= {
            "outcome": "exited",
            "returncode": completed.returncode,
            "kernel": completed.kernel_release,
            "kernel_source": completed.kernel_source,
            "machine": completed.machine,
            "exact": completed.exact,
            "append": list(completed.append),
            "boot_seconds": round(completed.boot_seconds, 3),
            "command_seconds": round(completed.command_seconds, 3),
            "tainted": completed.kernel_log.tainted,
            "kernel_warnings": list(completed.kernel_log.splats),
            "killed_for_memory": list(completed.kernel_log.killed),
        }
    elif error is not None:
        outcome |= {"outcome": type(error).__name__, "message": str(error), "status": int(error.status)}
        if isinstance(error, VirtualMachineError):
            outcome["console"] = error.console
    write_atomically(path, json.dumps(outcome, indent=1) + "\n")
