"""Debian's package manager, as far as fetching needs it: what is offered, and one package's files. No root rights.

The host's own package lists are used where they have what is asked for. Where they are empty (a fresh container image)
or of another architecture, lists of our own are kept in the cache folder: the system's stay as they are.
"""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.progress import Progress, SilentProgress
from dmasync.harness.vm import cache, host

DEBIAN_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
NEWER_SUITES = ("trixie-backports", "stable-backports")
"""Where Debian packages kernels that are newer than those of its releases. The second name follows Debian's newest
release; the first is what it means in 2026, and mirrors have new packages under it sooner.
"""
TESTING_SUITES = ("testing",)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LISTS_MAX_AGE_SECONDS = 24 * 3600


class Lists(enum.Enum):
    """Which package lists are used; no package counts as installed but with the host's."""

    HOST = "the host's, or, where they hold nothing at all, our own"
    OWN = "of the host's sources, kept in the cache"
    NEWER = "of the newest Debian's backports, kept in the cache"
    TESTING = "of the next Debian, kept in the cache"


_LEAST_ROOM = 64 << 10
"""Bytes; what is left of a disk that a program has just filled up may be less than a block of what it wrote."""
_NO_ROOM = ("No space left on device", "enough free space", "Disk quota exceeded")
_SUITES = {Lists.NEWER: NEWER_SUITES, Lists.TESTING: TESTING_SUITES}
_SUFFIXES = {Lists.NEWER: "-newer", Lists.TESTING: "-testing"}


class AptError(CommandError):
    """apt or dpkg is missing, or could not do what was asked; the message has its own last words."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitStatus.SKIPPED)


def run_apt(
    command: Sequence[str],
    *,
    elevation: Sequence[str] = (),
    cwd: Path | None = None,
    check: bool = True,
    stdin: IO[bytes] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one of the package manager's programs; *elevation* goes before it to make it root's.

    AptError where it is not on this host, and, with *check*, where it fails.
    """
    if shutil.which(command[0], path=host.search_path()) is None:
        raise AptError(
            f"{command[0]} is not on this host: packaged kernels need Debian's package manager; give --kernel PATH"
        )
    settings = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    line = list(command)
    if elevation:  # sudo keeps nothing of the environment: say it on the command's own line
        line = [*elevation, "env", *(f"{name}={value}" for name, value in settings.items()), *command]
    result = subprocess.run(
        line,
        cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": host.search_path(), **settings},
    )
    if check and result.returncode != 0:
        if (full := _full_disk(result.stderr, " ".join([*command, str(cwd)]))) is not None:
            raise cache.FullDiskError(full)
        lines = [line for line in result.stderr.splitlines() if line.startswith("E:")] or result.stderr.splitlines()
        words = lines[-1].removeprefix("E:").strip() if lines else f"exit status {result.returncode}"
        raise AptError(f"{command[0]} failed: {words}")
    return result


def _full_disk(said: str, asked: str) -> str | None:
    """The folder that had no room for a program of the package manager, which need not have *said* so; *asked* is its
    command line and where it ran.
    """
    cached = cache.cache_directory()
    for place in (os.environ.get("TMPDIR", "/tmp"), str(cached), str(cached.parent)):  # noqa: S108 - apt's own
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            if found.f_blocks and found.f_bavail * found.f_frsize < _LEAST_ROOM:
                return place
    # What it wrote before may be gone again.
    return str(cached) if str(cached) in asked and any(words in said for words in _NO_ROOM) else None


class Apt:
    """The packages of one architecture (the kernel's name for it: ``x86_64``, ``aarch64``)."""

    def __init__(self, machine: str, progress: Progress | None = None, *, lists: Lists = Lists.HOST) -> None:
        if machine not in DEBIAN_ARCHITECTURE:
            raise CommandError(f"no packaged kernels are known for {machine}; give --kernel PATH", ExitStatus.SKIPPED)
        self.machine = machine
        self.architecture = DEBIAN_ARCHITECTURE[machine]
        self._progress = progress or SilentProgress()
        self._lists = lists
        self._private = lists is not Lists.HOST or machine != host.host_machine()

    @property
    def _state(self) -> Path:
        return cache.cache_directory() / "apt" / (self.architecture + _SUFFIXES.get(self._lists, ""))

    @property
    def _suites(self) -> tuple[str, ...]:
        """Those whose lists are used; none where it is the host's sources that say which."""
        return _SUITES.get(self._lists, ())

    @property
    def _options(self) -> list[str]:
        if not self._private:
            return []
        state = self._state
        sources = [f"Dir::Etc::SourceList={state}/sources.list", "Dir::Etc::SourceParts=/dev/null"]
        return [
            *(word for source in sources if self._suites for word in ("-o", source)),
            "-o", f"APT::Architecture={self.architecture}",
            "-o", f"APT::Architectures={self.architecture}",
            "-o", f"Dir::State={state}/state",
            "-o", f"Dir::State::status={state}/status",
            "-o", f"Dir::Cache={state}/cache",
            # What is fetched goes to folders of this user's, which apt's own user may not enter.
            "-o", "APT::Sandbox::User=",
        ]  # fmt: skip

    def names(self, pattern: str) -> list[str]:
        """Return the names of the packages on offer that match the regular expression *pattern*."""
        found = self._search(pattern)
        if not found and not self._private:
            # Empty lists, as in a fresh container image, are not ours to fill: keep some beside them.
            self._private = True
            found = self._search(pattern)
        return found

    def version(self, package: str) -> str:
        """Return the version of *package* that :meth:`download` would fetch, or ``""`` if it is not offered."""
        self._refresh()
        shown = run_apt(["apt-cache", *self._options, "show", "--no-all-versions", package], check=False)
        for line in shown.stdout.splitlines():
            if line.startswith("Version: "):
                return line.removeprefix("Version: ").strip()
        return ""

    def download(self, packages: Sequence[str], into: Path) -> list[Path]:
        """Fetch *packages* into the folder *into* (apt checks each against the signed lists); return the files."""
        self._refresh()
        wanted = [f"{package}:{self.architecture}" if self._private else package for package in packages]
        run_apt(["apt-get", *self._options, "-q", "download", *wanted], cwd=into)
        return sorted(into.glob("*.deb"))

    def unpack(self, package_file: Path, into: Path) -> None:
        """Unpack the files of a package; none of its scripts runs. A folder in *into* that is a link stays one."""
        # `dpkg -x` would replace a link from /bin to /usr/bin by a folder.
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(package_file)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as archive:
            run_apt(["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(into)], stdin=archive.stdout)
        if archive.returncode != 0:
            raise AptError(f"dpkg-deb could not read {package_file.name}")

    def simulate_install(self, packages: Sequence[str], *, extra_options: Sequence[str] = ()) -> list[str]:
        """Return the names of *packages* and of everything that they need, as installing them on nothing would."""
        self._refresh()
        output = run_apt(
            [
                "apt-get",
                *self._options,
                *extra_options,
                "-s",
                "-q",
                "--no-install-recommends",
                "install",
                *packages,
            ]
        ).stdout
        return sorted({line.split()[1] for line in output.splitlines() if line.startswith("Inst ")})

    def _search(self, pattern: str) -> list[str]:
        self._refresh()
        output = run_apt(["apt-cache", *self._options, "search", "--names-only", pattern]).stdout
        return [line.split(" - ", 1)[0].strip() for line in output.splitlines() if line.strip()]

    def _refresh(self) -> None:
        """Fetch private lists if they are missing or a day old; the system's are never touched here."""
        if not self._private:
            return
        state = self._state
        stamp = state / "stamp"
        with cache.locked(state):
            if stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_MAX_AGE_SECONDS:
                return
            for folder in ("state/lists/partial", "cache/archives/partial"):
                (state / folder).mkdir(parents=True, exist_ok=True)
            (state / "status").touch()
            if self._suites:
                (state / "sources.list").write_text(_sources(self._suites), encoding="utf-8")
            self._progress.phase(f"fetching Debian's package lists for {self.architecture} into the cache")
            try:
                run_apt(["apt-get", *self._options, "-q", "update"])
            except (AptError, cache.FullDiskError):
                if stamp.exists():  # old lists are better than none: the archive may be out of reach
                    return
                raise
            stamp.touch()


def _sources(suites: Sequence[str]) -> str:
    """Return the lines for *suites* in the archive that this host's own packages come from."""
    shown = run_apt(["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)"], check=False)
    uris = [line.split()[-1] for line in shown.stdout.splitlines() if line.startswith("Debian Debian ")]
    if not uris:
        raise AptError("this host's package sources name no Debian archive; give --kernel PATH")
    signed = f"[signed-by={KEYRING}] " if os.path.exists(KEYRING) else ""
    return "".join(f"deb {signed}{uris[0]} {suite} main\n" for suite in suites)
