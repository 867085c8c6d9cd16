"""Programs of the next Debian, which has newer ones than the host: their packages, unpacked into a folder of the cache.

Nothing is installed and no script of a package runs. The programs run with that folder as their root, under a
``dmasync run`` that stays outside. They find no /proc there; their /dev is this machine's, as a root without one has no
nodes, with the fake kernel as on Linux.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dmasync.harness.vm import cache
from dmasync.harness.vm.apt import Apt, AptError, Lists
from dmasync.harness.vm.host import host_machine

LINKS = ("bin", "sbin", "lib", "lib64")
"""Folders of the root that are links into /usr."""


def unpacked(packages: Sequence[str]) -> Path:
    """The root folder with *packages* and all that they need. Skips the test where no package index can be reached."""
    apt = Apt(host_machine(), lists=Lists.TESTING)
    try:
        offered = apt.version(packages[0])
    except AptError as problem:
        pytest.skip(f"the package index of the next Debian cannot be reached: {problem}")
    assert offered, f"the next Debian has no package {packages[0]}"
    names = apt.simulate_install(packages)
    key = hashlib.sha256("\n".join([offered, *names]).encode()).hexdigest()[:16]

    def build(into: Path) -> list[str]:
        for name in LINKS:
            (into / "usr" / name).mkdir(parents=True, exist_ok=True)
            (into / name).symlink_to(f"usr/{name}")
        (into / "tmp").mkdir()
        archives = into / "archives"
        archives.mkdir()
        for file in apt.download(names, archives):
            apt.unpack(file, into)
        shutil.rmtree(archives)
        return []

    return cache.entry(cache.cache_directory() / "roots" / f"next-{packages[0]}-{key}", build)


@contextlib.contextmanager
def folder_of(root: Path) -> Iterator[Path]:
    """A new folder below *root*, gone afterwards; the programs find it by :func:`inside`."""
    with tempfile.TemporaryDirectory(dir=root / "tmp") as folder:
        yield Path(folder)


def inside(root: Path, path: Path) -> str:
    """The path of a file of *root* as its programs know it."""
    return f"/{path.relative_to(root)}"


def run(
    root: Path,
    *program: object,
    options: Sequence[object] = (),
    environment: Mapping[str, str] | None = None,
    timeout: int = 120,
) -> subprocess.CompletedProcess[str]:
    """Run *program*, a path of *root* and its arguments, under ``dmasync run`` with *options*."""
    (root / "dev").mkdir(exist_ok=True)
    # As root of a user namespace where this is not root: that may mount, and change its root, too.
    elevation = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mounted = ["sh", "-c", 'mount --bind /dev "$0/dev" && exec "$@"', root]
    words = [*elevation, *mounted, sys.executable, "-m", "dmasync", "run", f"--timeout={timeout}", *options]
    return subprocess.run(
        [*map(str, words), "--", "chroot", root, *map(str, program)],
        capture_output=True, text=True, check=False, timeout=timeout + 60, env={**os.environ, **(environment or {})},
    )  # fmt: skip


def compiled(root: Path, source: Path, into: Path, *arguments: str) -> Path:
    """*source*, compiled on the host with the headers and libraries of *root*."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "there is no C compiler"
    # Its libraries want a newer C library than the host has: they find it where the program runs.
    libraries = [f"-L{root}/usr/lib/{host_machine()}-linux-gnu", "-Wl,--allow-shlib-undefined"]
    program = into / source.stem
    subprocess.run(
        [compiler, "-O1", "-g", "-Wall", "-Werror", "-o", program, source, *libraries, *arguments], check=True
    )
    return program
