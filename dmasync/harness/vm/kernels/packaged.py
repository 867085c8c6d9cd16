"""Debian's packaged kernels: what is offered, and one release out of the cache, fetched there first if need be."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.progress import Progress
from dmasync.harness.vm import cache
from dmasync.harness.vm.apt import DEBIAN_ARCHITECTURE, Apt, AptError, Lists
from dmasync.harness.vm.kernels.at_path import check_modules, from_image, images_in, index_modules, version_key
from dmasync.harness.vm.kernels.kernel import Kernel, KernelError

DEBIAN_PREFIX = "debian:"
OFFERED_IN_MESSAGE = 8
LARGE_PAGES = "16k"
"""The flavour of Debian's arm64 kernels with pages of 16 KiB."""
CLOUD = "cloud"
FLAVOURS = (LARGE_PAGES, "rt", CLOUD)
PARTS = ("binary", "modules", "base")
"""Since 6.19 the image, the modules and the configuration of a release are packages of their own."""


class ModulesGoneError(AptError):
    """The image of a release is still in the archive, its modules are not."""


def offered(
    machine: str, progress: Progress | None = None, *, lists: Lists = Lists.HOST, flavour: str = ""
) -> list[str]:
    """Return the releases that the package manager offers for *machine*, oldest first; *flavour*: one of FLAVOURS."""
    ending = _ending(machine, flavour)
    names = Apt(machine, progress, lists=lists).names(rf"^linux-image-[0-9].*[0-9]{ending}$")
    # Other flavours have other names; what remains is "linux-image-6.12.117+deb12-amd64".
    releases = [name.removeprefix("linux-image-") for name in names]
    # "6.12-amd64" is a package that only points at one of them.
    whole = re.compile(rf"\d+\.\d+(\.\d+|\+)[^-]*(-\d+)?{ending}")
    return sorted((release for release in releases if whole.fullmatch(release)), key=version_key)


def _ending(machine: str, flavour: str) -> str:
    architecture = DEBIAN_ARCHITECTURE.get(machine, machine)
    if not flavour:
        return f"-{architecture}"
    return f"-{architecture}-{flavour}" if flavour == LARGE_PAGES else f"-{flavour}-{architecture}"


def cached(machine: str) -> list[str]:
    """Return the releases of the packaged kernels that are in the cache and whole, oldest first."""
    folder = _cache_folder(machine)
    if not folder.is_dir():
        return []
    found = [path.name for path in folder.iterdir() if not path.name.startswith(".") and cache.is_whole(path)]
    return sorted(found, key=version_key)


def newest(machine: str, progress: Progress) -> Kernel:
    """Return the newest packaged kernel with udmabuf built in that the host's lists have.

    Tries those lists as they are, then fresh ones of our own (the host's may be old), then the cache.
    """
    failure: AptError | cache.CacheError | None = None
    for lists in (Lists.HOST, Lists.OWN):
        try:
            if kernel := _newest_offered(machine, progress, lists):
                return kernel
            break
        except (AptError, cache.CacheError) as error:
            failure = failure or error
    for release in reversed([release for release in cached(machine) if not _flavour(release)]):
        kernel = _fetch(release, machine, progress)
        if kernel.option("CONFIG_UDMABUF") == "y":
            if failure is not None:
                progress.note(f"{failure}; using {release} from the cache")
            return kernel
    raise failure or KernelError(
        f"no packaged {machine} kernel with udmabuf built in is offered here; give --kernel PATH",
        ExitStatus.SKIPPED,
    )


def _newest_offered(machine: str, progress: Progress, lists: Lists) -> Kernel | None:
    in_cache = cached(machine)
    for release in reversed(offered(machine, progress, lists=lists)):
        if release not in in_cache and not _may_have_udmabuf(release):
            continue
        try:
            kernel = _fetch(release, machine, progress, lists=lists)
        except ModulesGoneError:
            continue
        if kernel.option("CONFIG_UDMABUF") == "y":
            return kernel
    return None


def _may_have_udmabuf(release: str) -> bool:
    """Tell from its number whether a Debian kernel is worth fetching: none before 6.10 has udmabuf."""
    return version_key(release) >= version_key("6.10")


def named(wanted: str, machine: str, progress: Progress) -> Kernel:
    """Return the packaged kernel whose release is *wanted* or, the newest of them, begins with it.

    It is looked for in the host's package lists, in the cache, and in the newest Debian's backports. A flavour
    stands behind the number: ``6.12-16k``, ``7.3-rt``, ``7.3.4+deb13-rt-amd64``.
    """
    if not re.fullmatch(r"\d[\w.+~-]*", wanted):
        raise KernelError(f"--kernel {DEBIAN_PREFIX}{wanted}: not a version; write one as debian:6.12.117")
    flavour = _flavour(wanted)
    if flavour == CLOUD:
        raise KernelError(
            f"--kernel {DEBIAN_PREFIX}{wanted}: Debian's cloud kernels have no 9p file system, by which the guest "
            "sees this host; give the release without -cloud"
        )
    # A full release that is in the cache needs no question to the package manager.
    if wanted in (in_cache := cached(machine)):
        return _fetch(wanted, machine, progress)
    fits = _fitting(wanted, flavour, machine)
    on_offer: list[str] = []
    failure: AptError | cache.FullDiskError | None = None
    for lists in (Lists.HOST, Lists.NEWER):
        try:
            here = offered(machine, progress, lists=lists, flavour=flavour)
        except (AptError, cache.FullDiskError) as error:
            failure = failure or error
            here = []
        if matching := [release for release in here if fits(release)]:
            return _fetch(matching[-1], machine, progress, lists=lists)
        if matching := [release for release in in_cache if fits(release)]:
            return _fetch(matching[-1], machine, progress)
        on_offer += here
    plain: list[str] = []
    if flavour and not on_offer:
        with contextlib.suppress(AptError):
            plain = offered(machine, progress)
    kept = f"; in the cache: {', '.join(in_cache)}" if in_cache else ""
    if failure is not None and not on_offer and not plain:
        raise failure if isinstance(failure, cache.FullDiskError) else AptError(f"{failure}{kept}")
    hint = ""
    if plain:
        elsewhere = "; arm64 has such: --arch arm64" if flavour == LARGE_PAGES and machine != "aarch64" else ""
        hint = f" (no kernel for {machine} ends in -{flavour}{elsewhere})"
        on_offer = plain
    there = ", ".join(sorted(set(on_offer), key=version_key)[-OFFERED_IN_MESSAGE:]) or "nothing"
    raise KernelError(f"--kernel {DEBIAN_PREFIX}{wanted}: not offered for {machine}{hint}; there is: {there}{kept}")


def _flavour(release: str) -> str:
    return next((flavour for flavour in FLAVOURS if re.search(rf"-{flavour}(-|$)", release)), "")


def _fitting(wanted: str, flavour: str, machine: str) -> Callable[[str], bool]:
    """Return what tells whether a release is *wanted* or one that it is the beginning of."""
    ending = _ending(machine, flavour)
    number = re.sub(rf"(-({'|'.join(FLAVOURS)}))+$", "", wanted.removesuffix(ending))
    beginning = re.compile(re.escape(number) + r"(?![0-9])")

    def fits(release: str) -> bool:
        same_kind = release.endswith(ending) and _flavour(release) == flavour
        return release == wanted or (same_kind and beginning.match(release) is not None)

    return fits


def _cache_folder(machine: str) -> Path:
    return cache.cache_directory() / "kernels" / machine


def _fetch(release: str, machine: str, progress: Progress, *, lists: Lists = Lists.HOST) -> Kernel:
    """Return the packaged kernel *release* from the cache, downloading and unpacking it first if need be."""

    def build(folder: Path) -> list[str]:
        apt = Apt(machine, progress, lists=lists)
        progress.phase(f"fetching the packaged kernel {release} into the cache")
        _unpack(apt, [f"linux-image-{release}"], folder)
        if not images_in(folder):
            _unpack(apt, [f"linux-{part}-{release}" for part in PARTS], folder)
        progress.phase(f"unpacking the packaged kernel {release}")
        kernel = _in_folder(folder, release, machine)
        names = [kernel.image, kernel.config]
        if kernel.modules is not None and index_modules(kernel.modules):
            names.append(kernel.modules / "modules.dep")
        check_modules(kernel)
        return [str(name.relative_to(folder)) for name in names if name is not None]

    return _in_folder(cache.entry(_cache_folder(machine) / release, build), release, machine)


def _unpack(apt: Apt, packages: Sequence[str], folder: Path) -> None:
    # Where the lists hold nothing at all, names() turns to lists of its own.
    for package in packages:
        if package not in apt.names(f"^{re.escape(package)}$"):
            if package.startswith("linux-modules-"):
                raise ModulesGoneError(
                    f"{package} is no longer in the archive, which keeps the modules of the newest releases only; "
                    "take a newer release, or build this one (dmasync vm --build)"
                )
            raise AptError(f"{package} is not offered by the package manager")
    files = apt.download(packages, folder)
    if len(files) != len(packages):
        raise AptError(f"downloading {', '.join(packages)} gave {len(files)} files, expected {len(packages)}")
    for file in files:
        apt.unpack(file, folder)
        file.unlink()


def _in_folder(folder: Path, release: str, machine: str) -> Kernel:
    images = images_in(folder)
    if not images:
        raise AptError(f"the packages of {release} hold no kernel image")
    kernel = from_image(images[-1], machine, f"{DEBIAN_PREFIX}{release}", release)
    if kernel.config is None:
        raise AptError(f"the packages of {release} hold no configuration")
    return kernel
