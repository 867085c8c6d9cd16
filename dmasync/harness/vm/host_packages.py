"""What the host must have for a virtual machine, what is missing, and installing it where that is allowed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.progress import Progress
from dmasync.harness.vm import host
from dmasync.harness.vm.apt import AptError, run_apt


@dataclass(frozen=True)
class Part:
    """A program that the host must have."""

    program: str
    package: str
    """Its Debian package."""
    purpose: str
    machine: str | None = None
    """The guest architecture that needs it; None: all of them."""


PARTS = (
    Part("qemu-system-x86_64", "qemu-system-x86", "emulates the machine", "x86_64"),
    Part("qemu-system-aarch64", "qemu-system-arm", "emulates the machine", "aarch64"),
    Part("depmod", "kmod", "indexes the kernel's modules"),
    Part("busybox", "busybox-static", "starts the guest before its root is mounted"),
    Part("file", "file", "lets virtme-ng read the kernel's version"),
)


PT_INTERP = 3


class MissingPartError(CommandError):
    """The host lacks a program: exit status 4; ``parts`` has which."""

    def __init__(self, parts: Sequence[Part], detail: str = "") -> None:
        names = ", ".join(part.program for part in parts)
        super().__init__(
            f"missing on this host: {names}; install with: {install_line(parts)}"
            + (f" ({detail})" if detail else " (or run: dmasync vm --setup)"),
            ExitStatus.SKIPPED,
        )
        self.parts = tuple(parts)


def missing_parts(machine: str | None = None) -> list[Part]:
    """Return the parts that the host lacks for a guest of architecture *machine* (default: the host's own)."""
    machine = machine or host.host_machine()
    return [part for part in needed_parts(machine) if not _is_there(part)]


def needed_parts(machine: str) -> list[Part]:
    """Return the parts for a guest of architecture *machine*; a foreign root has a busybox of its own."""
    native = machine == host.host_machine()
    return [part for part in PARTS if part.machine in (None, machine) and (native or part.program != "busybox")]


def _is_there(part: Part) -> bool:
    found = shutil.which(part.program, path=host.search_path())
    # The initramfs has no libraries: Debian's other busybox package would not run there.
    return found is not None and (part.program != "busybox" or not _needs_libraries(Path(found)))


def _needs_libraries(program: Path) -> bool:
    """Tell whether an ELF program asks for a dynamic loader (a PT_INTERP header; include/uapi/linux/elf.h)."""
    with program.open("rb") as stream:
        header = stream.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        offset = int.from_bytes(header[32:40], sys.byteorder)
        size = int.from_bytes(header[54:56], sys.byteorder)
        count = int.from_bytes(header[56:58], sys.byteorder)
        stream.seek(offset)
        table = stream.read(size * count)
    return any(int.from_bytes(table[at : at + 4], sys.byteorder) == PT_INTERP for at in range(0, len(table), size))


def virtme_run() -> str:
    """Return the path of virtme-ng's runner beside this interpreter; CommandError (4) if it is not installed."""
    found = shutil.which("virtme-run", path=host.search_path())
    if found is None or importlib.util.find_spec("virtme") is None:
        raise CommandError(
            "virtme-ng is not installed for this Python; "
            f"install with: {sys.executable} -m pip install 'dmabuf-sync[harness]'",
            ExitStatus.SKIPPED,
        )
    return found


def virtme_packages() -> Path:
    """Return the folder that virtme-ng's package lies in (site-packages, as a rule)."""
    specification = importlib.util.find_spec("virtme")
    if specification is None or specification.origin is None:
        raise CommandError("virtme-ng is not installed for this Python", ExitStatus.SKIPPED)
    return Path(specification.origin).parents[1]


def install_line(parts: Sequence[Part]) -> str:
    """Return the shell command line that installs *parts*, for the one who types it: with sudo unless root."""
    packages = " ".join(dict.fromkeys(part.package for part in parts))
    command = f"apt-get update && apt-get install -y --no-install-recommends {packages}"
    return command if os.geteuid() == 0 else f"sudo sh -c '{command}'"


def install_missing(progress: Progress, machine: str | None = None) -> list[str]:
    """Install what is missing with apt-get, saying what; return the packages that were installed.

    Needs root or a sudo that asks for no password. Raises :class:`MissingPartError` where neither is given or apt
    cannot do it.
    """
    virtme_run()
    parts = missing_parts(machine)
    if not parts:
        return []
    if shutil.which("apt-get", path=host.search_path()) is None:
        raise MissingPartError(parts, "there is no apt-get here: use this system's own packages of those names")
    elevate = _elevation()
    if elevate is None:
        raise MissingPartError(parts, "--setup needs root, or sudo without a password")
    packages = list(dict.fromkeys(part.package for part in parts))
    try:
        progress.phase("fetching the system's package lists (apt-get update)")
        run_apt(["apt-get", "-q", "update"], elevation=elevate)
        progress.note(f"installing with apt-get: {' '.join(packages)}")
        progress.phase(f"installing {' '.join(packages)}")
        run_apt(["apt-get", "-q", "-y", "--no-install-recommends", "install", *packages], elevation=elevate)
    except AptError as error:
        raise MissingPartError(parts, str(error)) from None
    if still_missing := missing_parts(machine):
        raise MissingPartError(still_missing, "apt-get installed the packages, yet the programs are not there")
    return packages


def _elevation() -> list[str] | None:
    """Return what to put before a command to run it as root: nothing, sudo, or None if it cannot be done."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo", path=host.search_path())
    if sudo is None:
        return None
    allowed = subprocess.run([sudo, "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return [sudo, "-n"] if allowed.returncode == 0 else None


def udev_daemon() -> str | None:
    """Return the path of the device manager that virtme-ng's init would start in the guest, or None.

    Nothing here depends on it: output and status travel through a shared folder, not through the ports that it names.
    """
    for path in ("/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd"):
        if os.access(path, os.X_OK):
            return path
    return shutil.which("udevd", path=host.search_path())
