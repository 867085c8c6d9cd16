"""A root folder of another architecture, made from Debian's packages without running anything of it and without root.

The packages are unpacked, not installed: no script of theirs runs. What those scripts would do and a guest needs (the
folders that are links, the users) is done here. The cache entry's name has a digest of this recipe, so that a root made
by another recipe is never taken for this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from dmasync.harness.progress import Progress, SilentProgress
from dmasync.harness.vm import cache, host
from dmasync.harness.vm.apt import Apt, AptError, Lists

RECIPE_VERSION = 2
"""Raised whenever :func:`_build` does something else with the same packages."""
PACKAGES = (
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "busybox-static",
    "findutils",
    "grep",
    "hostname",
    "iproute2",
    "kmod",
    "libc-bin",
    "mawk",
    "mount",
    "python3",
    "sed",
    "strace",
    "tar",
    "usr-is-merged",  # instead of the program that merges, which needs all of Perl
    "util-linux",
)
"""What the guest's init and a command need; their dependencies come with them."""
MERGED = ("bin", "lib", "sbin")
"""Folders of the root that are links into /usr: packages are unpacked over them."""
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp", "root", "var/tmp", "usr/local/bin")
LINKS = {
    # Programs that a guest's init calls and that only an init system's package would bring.
    "usr/sbin/poweroff": "/bin/busybox",
    "usr/sbin/reboot": "/bin/busybox",
    # Debian's alternatives, which the packages' scripts would link.
    "usr/bin/awk": "mawk",
    "usr/bin/which": "which.debianutils",
}
BUSYBOX = "bin/busybox"
STALE_SECONDS = 3600.0
"""No boot takes as long as this."""


def foreign_root(machine: str, progress: Progress | None = None) -> Path:
    """Return the root folder for *machine* (``aarch64``) from the cache, building it first if need be.

    Raises :class:`AptError <dmasync.harness.vm.apt.AptError>` where the packages cannot be fetched.
    """
    progress = progress or SilentProgress()

    def build(folder: Path) -> list[str]:
        return _build(folder, machine, progress)

    path = cache.entry(roots_folder() / f"{machine}-{recipe_digest(machine)}", build)
    _remove_other_recipes(path, machine)
    _remove_stale_scripts(path / "root")
    return path / "root"


def roots_folder() -> Path:
    """Return the cache's folder of root folders."""
    return cache.cache_directory() / "roots"


def recipe_digest(machine: str) -> str:
    """Return a digest of everything that decides what :func:`foreign_root` makes, but the packages' versions."""
    recipe = [RECIPE_VERSION, machine, PACKAGES, MERGED, MOUNT_POINTS, LINKS]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def _build(folder: Path, machine: str, progress: Progress) -> list[str]:
    apt = Apt(machine, progress, lists=Lists.OWN)
    wanted = apt.simulate_install(PACKAGES)
    archives = folder / "archives"
    archives.mkdir()
    progress.phase(f"fetching {len(wanted)} packages for the {machine} root folder")
    files = apt.download(wanted, archives)
    if len(files) != len(wanted):
        raise AptError(f"downloading {len(wanted)} packages gave {len(files)} files")
    root = folder / "root"
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for number, file in enumerate(files, 1):
        # Some ten lines, not scores of them, where the progress is a log.
        if number % max(1, len(files) // 10) == 0:
            progress.phase(f"building the {machine} root folder: package {number} of {len(files)}")
        apt.unpack(file, root)
    (folder / "packages").write_text("\n".join(file.name for file in files) + "\n", encoding="utf-8")
    shutil.rmtree(archives)
    _finish(root)
    version = max(
        (path.name.removeprefix("python") for path in (root / "usr/bin").glob("python3.[0-9]*")),
        key=lambda text: [int(number) for number in re.findall(r"\d+", text)],
    )
    progress.phase(f"building the {machine} root folder: compiling Python's library")
    _compile(root, version)
    # The shell, the interpreter and the first program: a root that lost one of them runs no command.
    return ["packages", "root/usr/bin/bash", f"root/usr/bin/python{version}", f"root/{BUSYBOX}"]


def _finish(root: Path) -> None:
    """Do what the packages' own scripts would have done, as far as a guest needs it."""
    for name in MOUNT_POINTS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("passwd", "group"):
        shutil.copyfile(root / f"usr/share/base-passwd/{name}.master", root / f"etc/{name}")
    for name in ("fstab", "hosts", "shadow"):
        (root / "etc" / name).touch()
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="ascii")
    for name, target in LINKS.items():
        if not (root / name).is_symlink():
            (root / name).symlink_to(target)


def _compile(root: Path, version: str) -> None:
    """Compile the root's standard library, as its packages' scripts would have: a guest would do it at each start.

    The host's Python does it, where one of the same version is found; bytecode is the same for every architecture.
    """
    candidates = [sys.executable, shutil.which(f"python{version}", path=host.search_path())]
    if f"{sys.version_info.major}.{sys.version_info.minor}" != version:
        del candidates[0]
    python = candidates[0] if candidates else None
    if python is not None:
        library = f"usr/lib/python{version}"
        command = [python, "-I", "-m", "compileall", "-q", "-s", str(root), "-p", "/", str(root / library)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _remove_stale_scripts(root: Path) -> None:
    """Remove what virtme-ng writes into a root folder for one boot, and leaves there when the machine is killed."""
    for script in root.glob("virtme-init-*"):
        with contextlib.suppress(FileNotFoundError):  # another process is as tidy
            if time.time() - script.stat().st_mtime > STALE_SECONDS:
                script.unlink()


def _remove_other_recipes(path: Path, machine: str) -> None:
    for other in path.parent.glob(f"{machine}-*"):
        if other != path:
            cache.discard(other)
