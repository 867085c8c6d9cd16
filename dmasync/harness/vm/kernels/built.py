"""Builds a small kernel for the guest out of a source tree: everything that is measured, built in, no modules.

The result is kept in the cache under a digest of the sources, the configuration and the compiler. The object files stay
too, one set for each tree and configuration: another commit of the same tree compiles only what it changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.progress import Progress
from dmasync.harness.vm import cache, host
from dmasync.harness.vm.apt import Apt, AptError, Lists
from dmasync.harness.vm.guard import guarded
from dmasync.harness.vm.kernels.at_path import IMAGE_IN_BUILD_TREE, NEEDED_OPTIONS
from dmasync.harness.vm.kernels.kernel import Kernel, KernelError

DEBIAN_PREFIX = "debian:"
MAKE_ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64"}
COMPILER_PREFIX = {"x86_64": "x86_64-linux-gnu-", "aarch64": "aarch64-linux-gnu-"}
HOW_LONG = "8 to 15 minutes of one processor for a new tree, less for another commit of it"
FIXED = {"KBUILD_BUILD_TIMESTAMP": "1970-01-01", "KBUILD_BUILD_USER": "dmasync", "KBUILD_BUILD_HOST": "dmasync"}
"""What a kernel would tell of the moment and the place of its build, and compare unequal for."""
PACKAGES = {
    "make": "make", "flex": "flex", "bison": "bison", "bc": "bc", "x86_64-linux-gnu-gcc": "gcc libelf-dev libssl-dev",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libssl-dev",
}  # fmt: skip
"""Programs that a build starts, and the Debian packages that bring them and the headers that it needs."""


def build(source: str, machine: str, progress: Progress, *, fragment: Path | None = None) -> Kernel:
    """Return the kernel for *machine* built from *source*, building it first if the cache has it not.

    *source* is a kernel tree, or ``debian:6.1`` for the package ``linux-source-6.1``. *fragment* is a file of
    ``CONFIG_…`` lines that come last. Raises :class:`KernelError`: exit status 4 where a program is missing, 2 for a
    source or fragment that cannot be, 1 where it does not compile.
    """
    check_programs(machine)
    wanted = resources.files(__package__).joinpath("guest.config").read_text(encoding="utf-8")
    own = _read(fragment) if fragment is not None else ""
    tree = _debian_tree(source, machine, progress) if source.startswith(DEBIAN_PREFIX) else _tree(Path(source))
    compiler = _output([f"{COMPILER_PREFIX[machine]}gcc", "--version"]).splitlines()[0]
    settings = "\n".join((wanted, own, compiler))
    key = _digest(f"{_contents_digest(tree)}\n{settings}")
    objects = cache.cache_directory() / "objects" / machine / f"{tree.name}-{_digest(f'{tree}{settings}')}"

    def make_it(folder: Path) -> list[str]:
        began = time.monotonic()
        with cache.locked(objects):
            objects.mkdir(parents=True, exist_ok=True)
            progress.note(f"building {source} for {machine}: {HOW_LONG}")
            progress.phase(f"configuring {source}")
            _configure(tree, objects, machine, wanted, own)
            progress.phase(f"compiling {source}")
            _make(
                tree, objects, machine, [f"-j{len(os.sched_getaffinity(0))}", Path(IMAGE_IN_BUILD_TREE[machine]).name]
            )
            shutil.copy(objects / IMAGE_IN_BUILD_TREE[machine], folder / "image")
            shutil.copy(objects / ".config", folder / "config")
            release = (objects / "include/config/kernel.release").read_text(encoding="utf-8")
        (folder / "release").write_text(release, encoding="utf-8")
        progress.note(f"built {release.strip()} in {time.monotonic() - began:.0f} s")
        return ["image", "config", "release"]

    folder = cache.entry(cache.cache_directory() / "built" / machine / key, make_it)
    return Kernel(
        image=folder / "image",
        release=(folder / "release").read_text(encoding="utf-8").strip(),
        machine=machine,
        source=f"built from {source}",
        config=folder / "config",
    )


def check_programs(machine: str) -> None:
    """Raise KernelError (exit status 4) where this host lacks what a build starts, with the line that installs it."""
    programs = ["make", "flex", "bison", "bc", f"{COMPILER_PREFIX[machine]}gcc"]
    missing = [name for name in programs if shutil.which(name, path=host.search_path()) is None]
    if missing:
        packages = " ".join(dict.fromkeys(word for name in missing for word in PACKAGES[name].split()))
        raise KernelError(
            f"--build needs {', '.join(missing)}; install with: apt-get install {packages}", ExitStatus.SKIPPED
        )


def _tree(path: Path) -> Path:
    tree = path.absolute()
    if not (tree / "Kconfig").is_file() or not (tree / "scripts" / "kconfig").is_dir():
        raise KernelError(
            f"--build {path}: no kernel source tree; give one, or debian:6.1 for Debian's linux-source-6.1"
        )
    if any(character.isspace() or character == ":" for character in str(tree)):
        raise KernelError(f"--build {path}: a kernel builds in no folder whose name has a blank or a colon")
    return tree


def _debian_tree(source: str, machine: str, progress: Progress) -> Path:
    package = f"linux-source-{source.removeprefix(DEBIAN_PREFIX)}"
    if not re.fullmatch(r"linux-source-\d+\.\d+", package):
        raise KernelError(f"--build {source}: Debian packages one source for each line; write debian:6.1")
    for lists in (Lists.HOST, Lists.NEWER):
        apt = Apt(host.host_machine(), progress, lists=lists)
        if version := apt.version(package):
            break
    else:
        raise KernelError(f"--build {source}: {package} is not offered by the package manager", ExitStatus.SKIPPED)

    def unpack(folder: Path) -> list[str]:
        progress.phase(f"fetching {package} {version} into the cache")
        for file in apt.download([package], folder):
            apt.unpack(file, folder)
            file.unlink()
        archives = list(folder.glob(f"usr/src/{package}.tar.*"))
        if len(archives) != 1:
            raise AptError(f"{package} holds no archive of its sources")
        progress.phase(f"unpacking {package}")
        subprocess.run(["tar", "-xf", str(archives[0]), "-C", str(folder)], stdin=subprocess.DEVNULL, check=True)
        shutil.rmtree(folder / "usr")
        return [f"{package}/Makefile"]

    safe = re.sub(r"[^\w.+-]", "-", version)
    return cache.entry(cache.cache_directory() / "trees" / f"{package}-{safe}", unpack) / package


def _configure(tree: Path, objects: Path, machine: str, wanted: str, own: str) -> None:
    _make(tree, objects, machine, ["tinyconfig"])
    with (objects / ".config").open("a", encoding="utf-8") as stream:
        stream.write(f"{wanted}\n{own}\n")
    _make(tree, objects, machine, ["olddefconfig"])
    taken = (objects / ".config").read_text(encoding="utf-8").splitlines()
    lacking = [name for name in NEEDED_OPTIONS if f"{name}=y" not in taken]
    if lacking:
        raise KernelError(f"{tree}: this tree does not take {', '.join(lacking)}=y, without which no guest starts")
    # Of two lines for one option the later counts: the fragment's own.
    settings = dict(line.split("=", 1) for line in own.splitlines() if re.match(r"CONFIG_\w+=", line))
    refused = [f"{name}={value}" for name, value in settings.items() if value != "n" and f"{name}={value}" not in taken]
    if refused:
        raise KernelError(f"--config: this tree does not take {', '.join(refused)}; what they depend on is not set")


def _make(tree: Path, objects: Path, machine: str, targets: Sequence[str]) -> None:
    command = ["make", "-s", "-C", str(tree), f"O={objects}", f"ARCH={MAKE_ARCHITECTURE[machine]}"]
    command += [f"CROSS_COMPILE={COMPILER_PREFIX[machine]}", *(f"{name}={value}" for name, value in FIXED.items())]
    with guarded(
        [*command, *targets],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PATH": host.search_path(), "LC_ALL": "C"},
    ) as building:
        assert building.stderr is not None  # noqa: S101 - asked for above
        said = building.stderr.read()
        building.stderr.close()
        if building.wait() == 0:
            return
    lines = [line for line in said.splitlines() if line.strip()]
    told = next((line for line in lines if "error:" in line or "*** " in line or "Error" in line), "".join(lines[-1:]))
    raise KernelError(f"{tree} does not build: {told.strip()}", ExitStatus.REGRESSION)


def _contents_digest(tree: Path) -> str:
    """Return a digest of what the tree holds: names, sizes and times of its files. Reading them all takes longer."""
    digest = hashlib.sha256(str(tree).encode())
    for folder, folders, files in os.walk(tree):
        folders[:] = sorted(name for name in folders if name not in (".git", "Documentation"))
        for name in sorted(files):
            state = os.lstat(os.path.join(folder, name))
            digest.update(f"{folder}/{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read(fragment: Path) -> str:
    try:
        return fragment.read_text(encoding="utf-8")
    except OSError as error:
        raise KernelError(f"--config {fragment}: cannot be read ({error.strerror})") from error


def _output(command: Sequence[str]) -> str:
    environment = {**os.environ, "PATH": host.search_path(), "LC_ALL": "C"}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, env=environment
    ).stdout


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
