"""Run a command on a kernel in a virtual machine, under software emulation unless KVM is asked for.

virtme-ng boots the kernel on the host's own file system, below a layer that is thrown away. The same Python
runs inside.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.progress import Progress, SilentProgress
from dmasync.harness.scratch import scratch_folder
from dmasync.harness.vm import host, host_packages
from dmasync.harness.vm.arm64_root import BUSYBOX, foreign_root
from dmasync.harness.vm.boot_watch import BootWatch
from dmasync.harness.vm.guard import guarded
from dmasync.harness.vm.guest import host_files, scripts
from dmasync.harness.vm.guest.output import Follower, console_of, last_words
from dmasync.harness.vm.kernel_log import KernelLog, kernel_log
from dmasync.harness.vm.kernels import Kernel, index_modules

POLL_SECONDS = 0.05
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_+/.-]*")
"""A folder's name that virtme-ng and a kernel command line take as it is."""
EXACT_KERNEL_ARGUMENTS = ("nokaslr", "norandmaps", "randomize_kstack_offset=off")
"""Where the kernel, a program's memory and a system call's stack lie changes how many instructions they execute.

The last is drawn anew at each system call: on arm64 a sync then costs one of four figures that are 13 apart.
"""
EXACT_CLOCK_ARGUMENTS = {"x86_64": ("tsc_early_khz=1000000", "tsc=reliable", "hpet=disable", "pmtmr=0")}
"""The kernel must not measure the rate of the instruction counter, which it is told: it is off by a millionth in one
boot of six, and then the clock rounds each figure. It measures against the two other timers, if it has them.
"""
EMULATED_KERNEL_ARGUMENTS = {"x86_64": ("no_timer_check",)}
"""At boot the kernel waits for five ticks of its timer, for as long as the timestamp counter needs for ten of them at
4 GHz, and panics where they do not come ("IO-APIC + timer doesn't work!"). The emulator's counter is the host's and
runs on while the emulator waits for a processor: ticks are lost then. Under KVM the kernel leaves the check out by
itself; on the exact clock the timer and the counter both count instructions.
"""
EXACT_QEMU_ARGUMENTS = ("-icount", "shift=0,sleep=off")
"""One instruction is one nanosecond of guest time."""
MEMORY = re.compile(r"(\d{1,6})([MG]?)", re.ASCII | re.IGNORECASE)
UNITS = {"": 20, "M": 20, "G": 30}
LEAST_MEMORY = 64 << 20
PROCESSOR = {"aarch64": "cortex-a57"}
LARGE_PAGES_PROCESSOR = {"aarch64": "cortex-a76"}
"""The first does not know pages of 16 KiB."""
EXACT_PROCESSOR = {"aarch64": "cntfrq=1000000000"}
"""The guest's clock must show every nanosecond: QEMU's arm64 timer ticks every 16 ns unless told otherwise."""
FOREIGN_PROGRAMS = {"python": "python3", "dmasync": "python3 -m dmasync", "pytest": "python3 -m pytest"}
"""Programs of this environment that a guest of another architecture gets under the same name."""


class VirtualMachineError(CommandError):
    """The machine, not the command in it, failed: exit status 3. ``console`` has the kernel's last words."""

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message, ExitStatus.CANNOT_JUDGE)
        self.console = console


class BootError(VirtualMachineError):
    """The guest did not get as far as the command: the emulator refused, the kernel panicked or hung."""


class GuestDiedError(VirtualMachineError):
    """The guest ended, by a panic or a power-off, before the command did."""


class GuestTimeout(VirtualMachineError):  # noqa: N818  # as DmaSyncTimeout
    """The command was still running when its time was up; the machine was killed."""


@dataclass(frozen=True)
class CompletedRun:
    """A command that ran to its end in a guest."""

    returncode: int
    stdout: str
    """Empty where the caller took the output as it came."""
    stderr: str
    kernel_release: str
    """What ``uname -r`` said in the guest."""
    kernel_source: str
    machine: str
    exact: bool
    append: tuple[str, ...]
    boot_seconds: float
    command_seconds: float
    kernel_log: KernelLog = field(default_factory=KernelLog)
    """What the guest's kernel complained of while the command ran."""


@dataclass(frozen=True, kw_only=True)
class VirtualMachine:
    """What to boot, and with what; each :meth:`run` is one boot."""

    kernel: Kernel
    exact: bool = False
    """The exact clock: one CPU, one guest nanosecond an instruction, nothing at a random address."""
    append: Sequence[str] = ()
    """Further arguments on the kernel's command line."""
    memory: str = "1G"
    cpus: int = 1
    output: Path | None = None
    """A host folder that the guest sees under the same path and may write to; made if it is missing."""
    mount: Sequence[Path] = ()
    """Further host folders, under the same path, for reading: those below /run, /dev and a few others are hidden."""
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: Path | None = None
    timeout: float = 600.0
    """Seconds for boot and command together."""
    boot_timeout: float = 240.0
    """Seconds of processor time without a word from the kernel, or of standing still, after which a boot has failed."""
    kvm: bool = False
    progress: Progress = field(default_factory=SilentProgress)

    def run(
        self,
        command: Sequence[str] | str,
        *,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
    ) -> CompletedRun:
        """Boot, run *command* (a list of words, or a shell command line), power off.

        With *stdout* or *stderr* the command's output is written there as it comes, instead of being returned.
        Raises :class:`BootError`, :class:`GuestDiedError` or :class:`GuestTimeout` (exit status 3) where the machine
        failed, :class:`MissingPartError <dmasync.harness.vm.host_packages.MissingPartError>` (4) where the host lacks
        something, :class:`CommandError` (2) for arguments that cannot be. Whatever happens, no process is left.
        """
        self._check()
        if lacking := host_packages.missing_parts(self.kernel.machine):
            raise host_packages.MissingPartError(lacking)
        runner = host_packages.virtme_run()
        root = None if self.is_native else foreign_root(self.kernel.machine, self.progress)
        if self.kernel.modules is not None:
            index_modules(self.kernel.modules)
        mounts = self._mounts()
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(scratch_folder("vm", _scratch_parent()))
            control = scratch / "control"
            control.mkdir()
            self._write_scripts(control, command, mounts)
            with (scratch / "console").open("wb") as console:
                line = self._command_line(runner, scratch, mounts, root)
                environment = {
                    **os.environ,
                    "PATH": host.search_path(),
                    "HOME": str(scratch),  # virtme-ng keeps a cache and reads its settings there: neither is wanted
                    "TMPDIR": str(scratch),
                }
                process = stack.enter_context(guarded(line, stdout=console, stderr=console, env=environment))
                follower = stack.enter_context(Follower(control, stdout, stderr))
                return self._follow(process, scratch, follower)

    @property
    def is_native(self) -> bool:
        """Tell whether the guest has the host's architecture, and so the host's root folder and this very Python."""
        return self.kernel.machine == host.host_machine()

    @property
    def python(self) -> str:
        """The Python interpreter to name in a command: this one, or the foreign root's."""
        return sys.executable if self.is_native else "python3"

    def _check(self) -> None:
        check_numbers(self, lambda name: name, "give cpus=1")
        check_memory(self.memory)
        for argument in self.append:
            if '"' in argument or "\n" in argument or not argument:
                raise CommandError(f"append has {argument!r}: a kernel argument holds no quotes and no line ends")
        if self.output is not None:
            try:
                self.output.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CommandError(f"output folder {self.output}: {error.strerror}") from error
            if not os.access(self.output, os.W_OK | os.X_OK):
                raise CommandError(f"output folder {self.output}: may not be written")

    def _mounts(self) -> list[scripts.Mount]:
        wanted = [self._here, *self.mount]
        wanted += [folder for folder in (self.kernel.modules, self.kernel.build_tree) if folder is not None]
        for folder in self.mount:
            if not folder.is_dir():
                raise CommandError(f"mount {folder}: no such folder")
        if self.is_native:
            return host_files.mounts_on_host_root(wanted, self.output)
        return host_files.mounts_on_foreign_root(wanted, self.output)

    @property
    def _here(self) -> Path:
        if self.working_directory is not None:
            return self.working_directory.absolute()
        try:
            return Path.cwd()
        except FileNotFoundError:  # it was removed while this process was in it
            return Path("/")

    def _write_scripts(self, control: Path, command: Sequence[str] | str, mounts: Sequence[scripts.Mount]) -> None:
        if self.is_native:
            environment = host_files.environment_on_host_root()
        else:
            environment = host_files.environment_on_foreign_root()
        if self.exact:
            environment["PYTHONHASHSEED"] = "0"
        environment |= self.environment
        files = {
            scripts.START: scripts.start_script(mounts, self.kernel.modules),
            scripts.INSIDE: scripts.inside_script(
                working_directory=self._here,
                environment=environment,
                links={} if self.is_native else host_files.pure_python_links(),
                programs={} if self.is_native else FOREIGN_PROGRAMS,
            ),
            scripts.COMMAND: (command if isinstance(command, str) else shlex.join(command)) + "\n",
            scripts.STDOUT: "",
            scripts.STDERR: "",
        }
        for name, text in files.items():
            (control / name).write_text(text, encoding="utf-8", errors="surrogateescape")

    def _command_line(
        self, runner: str, scratch: Path, mounts: Sequence[scripts.Mount], root: Path | None
    ) -> list[str]:
        kernel = self.kernel
        line = [*_virtme_run(runner, scratch), "--mods", "auto"]
        line += ["--kdir", str(kernel.build_tree)] if kernel.build_tree else ["--kimg", str(kernel.image)]
        line += ["--cpus", str(self.cpus), "--memory", self.memory, "--name", "dmasync"]
        if root is None:
            line += ["--cwd", "/"]
        else:
            line += ["--arch", kernel.machine, "--root", str(root), "--busybox", str(root / BUSYBOX)]
        if not self.kvm:
            line += ["--disable-kvm"]
        # virtiofs would be served by a process that the instruction counter knows nothing of.
        # Without the initramfs the kernel would mount the root itself, which one without block devices does not do.
        line += ["--force-9p", "--show-boot-console", "--force-initramfs"]
        # One overlay makes virtme-ng put that module into its initramfs: the start script needs it.
        line += ["--overlay-rwdir", "/etc"]
        line += ["--rwdir", f"{scripts.CONTROL}={scratch / 'control'}"]
        for index, mount in enumerate(mounts):
            # virtme-ng takes plain names only: the real one hides behind a link.
            link = scratch / f"mount{index}"
            link.symlink_to(mount.host)
            option = "--rwdir" if mount.writable else "--rodir"
            line += [option, f"{scripts.mount_point(index)}={link}"]
        own: tuple[str, ...] = ()
        if self.exact:
            own = (*EXACT_KERNEL_ARGUMENTS, *EXACT_CLOCK_ARGUMENTS.get(kernel.machine, ()))
        elif not self.kvm:
            own = EMULATED_KERNEL_ARGUMENTS.get(kernel.machine, ())
        for argument in (*own, *self.append):
            line.append(f"--kopt={argument}")
        line += ["--script-sh", f"sh {scripts.CONTROL}/{scripts.START}"]
        if self.exact:
            line += [f"--qemu-opt={option}" for option in EXACT_QEMU_ARGUMENTS]
        line += [f"--qemu-opt={option}" for option in self._processor()]
        return line

    def _processor(self) -> list[str]:
        """The emulated processor, where virtme-ng's own choice will not do; of two such options the later counts."""
        machine = self.kernel.machine
        large = self.kernel.option("CONFIG_ARM64_16K_PAGES") == "y"
        named = (LARGE_PAGES_PROCESSOR if large else PROCESSOR).get(machine)
        if named is None or self.kvm or not (large or self.exact):
            return []
        return ["-cpu", ",".join([named, EXACT_PROCESSOR[machine]] if self.exact else [named])]

    def _follow(self, process: subprocess.Popen[bytes], scratch: Path, follower: Follower) -> CompletedRun:
        """Pass output on until the machine is off; tell how it ended."""
        began = time.monotonic()
        started: float | None = None
        watch = BootWatch(process.pid, scratch / "console", self.boot_timeout, began)
        self.progress.phase(f"booting {self.kernel.release or self.kernel.source}")
        while True:
            ended = process.poll() is not None
            now = time.monotonic()
            if started is None and follower.has(scripts.STARTED):
                started = now
                self.progress.done()
            follower.pump()
            if follower.has(scripts.STATUS) or ended:
                break
            if now - began > self.timeout or (started is None and watch.is_overdue(now)):
                self.progress.done()
                raise self._overdue(now - began, started is not None, scratch)
            time.sleep(POLL_SECONDS)
        self.progress.done()
        follower.pump()
        status = follower.read(scripts.STATUS)
        if not status:
            raise self._dead(started is not None, scratch)
        return CompletedRun(
            returncode=int(status),
            stdout=follower.text(scripts.STDOUT),
            stderr=follower.text(scripts.STDERR),
            kernel_release=follower.read(scripts.RELEASE),
            kernel_source=self.kernel.source,
            machine=self.kernel.machine,
            exact=self.exact,
            append=tuple(self.append),
            boot_seconds=(started or now) - began,
            command_seconds=now - (started or now),
            kernel_log=kernel_log(
                *map(follower.read, (scripts.KERNEL_LOG, scripts.TAINTED_BEFORE, scripts.TAINTED_AFTER))
            ),
        )

    def _overdue(self, seconds: float, started: bool, scratch: Path) -> VirtualMachineError:
        console = console_of(scratch)
        if started:
            return GuestTimeout(f"the command was still running after {seconds:.0f} s; the machine was killed", console)
        return BootError(
            f"{self._named()} did not boot within {seconds:.0f} s; the machine was killed{last_words(console)}",
            console,
        )

    def _dead(self, started: bool, scratch: Path) -> VirtualMachineError:
        console = console_of(scratch)
        failed = scratch / "control" / scripts.FAILED
        if failed.exists():
            what = failed.read_text(encoding="utf-8", errors="replace").strip()
            return BootError(f"{self._named()} booted, but could not mount {what}{last_words(console)}", console)
        if started:
            return GuestDiedError(f"the guest ended before its command did{last_words(console)}", console)
        lacks = "; its image lies alone: give the folder of its modules if it has any" if self.kernel.lies_alone else ""
        return BootError(f"{self._named()} did not boot{lacks}{last_words(console)}", console)

    def _named(self) -> str:
        return f"kernel {self.kernel.release or self.kernel.source}"


def check_memory(memory: str, argument: str = "memory") -> None:
    """CommandError, which names *argument*, if *memory* is no size that a guest can have."""
    size = MEMORY.fullmatch(memory)
    if size is None:
        raise CommandError(f"{argument} is {memory!r}, expected a number with M or G behind it, as 1G")
    if int(size[1]) << UNITS[size[2].upper()] < LEAST_MEMORY:
        raise CommandError(f"{argument} is {memory}, too little for a kernel: give at least 64M")


def check_numbers(asked: Any, spelled: Callable[[str], str], one_cpu: str) -> None:
    """CommandError for what no machine can be given.

    *asked* has ``cpus``, ``exact``, ``kvm``, ``timeout`` and ``boot_timeout``, as a VirtualMachine has; *spelled* gives
    such a name as the caller writes it; *one_cpu* is how to ask for one CPU.
    """
    if asked.cpus < 1:
        raise CommandError(f"{spelled('cpus')} is {asked.cpus}, expected at least 1")
    if asked.exact and asked.cpus != 1:
        name = spelled("cpus")
        raise CommandError(f"{name} is {asked.cpus}: the exact clock counts one CPU's instructions, {one_cpu}")
    if asked.exact and asked.kvm:
        raise CommandError(f"{spelled('kvm')} is on: the exact clock is the emulator's, it cannot count a real CPU")
    for name in ("timeout", "boot_timeout"):
        seconds = getattr(asked, name)
        if not seconds > 0:
            raise CommandError(f"{spelled(name)} is {seconds:g} s, expected more than 0")


def _scratch_parent() -> str | None:
    """Return a folder for temporary files whose name virtme-ng takes; None where the usual one will do."""
    return None if _is_plain(Path(tempfile.gettempdir())) else "/tmp"  # noqa: S108


def _is_plain(path: Path) -> bool:
    """Tell whether the guest's init can lie below *path*: it mounts over /run, and a blank ends its kernel argument."""
    return bool(PLAIN_PATH.fullmatch(str(path))) and path.parts[1:2] not in (("run",), ("dev",), ("proc",), ("sys",))


def _virtme_run(runner: str, scratch: Path) -> list[str]:
    """Return the words that start virtme-ng.

    It names the guest's init, a file among its own, on the kernel's command line. Where its package lies below a
    folder that cannot stand there, a copy is used.
    """
    packages = host_packages.virtme_packages()
    if _is_plain(packages):
        return [runner]
    copy = scratch / "packages"
    shutil.copytree(packages / "virtme", copy / "virtme")
    program = f"import sys; sys.path.insert(0, {str(copy)!r}); from virtme.commands.run import main; sys.exit(main())"
    return [sys.executable, "-c", program]
