"""Which kernel a virtual machine boots: a path, a build tree, or a packaged one fetched into the cache."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.progress import Progress, SilentProgress
from dmasync.harness.vm import cache, host
from dmasync.harness.vm.apt import DEBIAN_ARCHITECTURE, Apt, AptError

ARCHITECTURES = {
    "x86-64": "x86_64",
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "arm64": "aarch64",
    "aarch64": "aarch64",
}
"""What ``--arch`` takes, and the kernel's own name for each."""
DEBIAN_PREFIX = "debian:"
IMAGE_IN_BUILD_TREE = {"x86_64": "arch/x86/boot/bzImage", "aarch64": "arch/arm64/boot/Image"}
OFFERED_IN_MESSAGE = 8
LARGE_PAGES = "-16k"
"""How the names of Debian's arm64 kernels with pages of 16 KiB end."""
PACKAGE_MODULES_FOLDERS = ("lib/modules", "usr/lib/modules")


class KernelError(CommandError):
    """What was given leads to no kernel: exit status 2, or 4 where this host lacks the means."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted."""

    image: Path
    """The bzImage (x86-64) or Image (arm64, plain or gzipped)."""
    release: str
    """What ``uname -r`` will say, as read from the image; empty if it could not be found there."""
    machine: str
    """The kernel's own name for its architecture: ``x86_64`` or ``aarch64``."""
    source: str
    """Where it came from, in words a result can carry: ``debian:6.12.117+deb12-amd64`` or the path."""
    modules: Path | None = None
    """The folder of its modules (the one that holds ``modules.order``), or None: everything is built in."""
    config: Path | None = None
    """Its configuration, where it is known."""
    build_tree: Path | None = None

    def option(self, name: str) -> str | None:
        """Return the value of configuration option *name* (``CONFIG_…``): ``y``, ``m``, other text, ``n`` for not
        set, or None if the configuration is not known.
        """
        if self.config is None:
            return None
        setting = f"{name}="
        with contextlib.suppress(OSError):
            for line in self.config.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith(setting):
                    return line.removeprefix(setting).strip().strip('"')
        return "n"

    @property
    def config_digest(self) -> str | None:
        """The SHA-256 of the configuration, without comments and blank lines, or None if it is not known."""
        if self.config is None:
            return None
        lines = self.config.read_text(encoding="utf-8", errors="replace").splitlines()
        settings = "\n".join(line for line in lines if line.startswith("CONFIG_"))
        return hashlib.sha256(settings.encode()).hexdigest()

    def require(self, *names: str) -> None:
        """Raise :class:`KernelError` (exit status 4) if an option is known to be neither ``y`` nor ``m``."""
        lacking = [name for name in names if self.option(name) not in ("y", "m", None)]
        if lacking:
            raise KernelError(
                f"kernel {self.release or self.source} is built without {', '.join(lacking)}; "
                "give --kernel one that has it, or none for a packaged one",
                ExitStatus.SKIPPED,
            )


def resolve(
    specification: str | None = None, *, machine: str | None = None, progress: Progress | None = None
) -> Kernel:
    """Return the kernel that *specification* means, fetching it if it is a packaged one.

    *specification* is a path to an image, a build tree or an unpacked kernel package; ``debian:VERSION``, whose
    version may be a beginning (``debian:6.12`` is the newest of that line, ``debian:6.12-16k`` the newest with pages
    of 16 KiB); or None for the newest packaged kernel
    with udmabuf built in. *machine* is the guest's architecture (default: the host's). Raises :class:`KernelError`.
    """
    machine = machine or host.host_machine()
    progress = progress or SilentProgress()
    if specification is None:
        return _newest_packaged(machine, progress)
    if specification.startswith(DEBIAN_PREFIX):
        return _packaged(specification.removeprefix(DEBIAN_PREFIX), machine, progress)
    return from_path(Path(specification), machine)


def from_path(path: Path, machine: str) -> Kernel:
    """Return the kernel at *path*: an image file, a build tree, or a folder into which a package was unpacked."""
    path = path.absolute()
    if path.is_dir():
        if (path / ".config").exists() or (path / IMAGE_IN_BUILD_TREE[machine]).exists():
            return _from_build_tree(path, machine)
        images = sorted((path / "boot").glob("vmlinu[xz]-*"), key=lambda image: _version_key(image.name))
        if not images:
            raise KernelError(
                f"--kernel {path}: no kernel in this folder; expected {IMAGE_IN_BUILD_TREE[machine]} (a build tree) "
                "or boot/vmlinuz-RELEASE (an unpacked package)"
            )
        path = images[-1]
    elif not path.exists():
        raise KernelError(f"--kernel {path}: no such file; give a bzImage, a build tree, or debian:VERSION")
    for tree_image in IMAGE_IN_BUILD_TREE.values():
        if str(path).endswith(f"/{tree_image}"):
            tree = Path(str(path).removesuffix(f"/{tree_image}"))
            if (tree / ".config").exists():
                return _from_build_tree(tree, machine)
    release = _image_release(path, machine)
    return Kernel(
        image=path,
        release=release,
        machine=machine,
        source=str(path),
        modules=_modules_beside(path, release),
        config=_config_beside(path, release),
    )


def offered(machine: str, progress: Progress | None = None, *, own_lists: bool = False, flavour: str = "") -> list[str]:
    """Return the releases that the package manager offers for *machine*, oldest first; *flavour*: how they end."""
    architecture = DEBIAN_ARCHITECTURE.get(machine, machine) + flavour
    names = Apt(machine, progress, own_lists=own_lists).names(rf"^linux-image-[0-9].*[0-9]-{architecture}$")
    # Cloud and real-time flavours are other names; what remains is "linux-image-6.12.117+deb12-amd64".
    releases = [name.removeprefix("linux-image-") for name in names]
    # "6.12-amd64" is a package that only points at one of them.
    plain = re.compile(rf"\d+\.\d+(\.\d+|\+)[^-]*(-\d+)?-{architecture}")
    return sorted((release for release in releases if plain.fullmatch(release)), key=_version_key)


def cached(machine: str) -> list[str]:
    """Return the releases of the packaged kernels that are in the cache and whole, oldest first."""
    folder = _cache_folder(machine)
    if not folder.is_dir():
        return []
    found = [path.name for path in folder.iterdir() if not path.name.startswith(".") and cache.is_whole(path)]
    return sorted(found, key=_version_key)


def _newest_packaged(machine: str, progress: Progress) -> Kernel:
    """Try the host's package lists, then fresh ones of our own (the host's may be old), then the cache."""
    failure: AptError | None = None
    for own_lists in (False, True):
        try:
            if kernel := _newest_offered(machine, progress, own_lists):
                return kernel
            break
        except AptError as error:
            failure = failure or error
    for release in reversed([release for release in cached(machine) if not release.endswith(LARGE_PAGES)]):
        kernel = _fetch(release, machine, progress)
        if kernel.option("CONFIG_UDMABUF") == "y":
            if failure is not None:
                progress.note(f"{failure}; using {release} from the cache")
            return kernel
    raise failure or KernelError(
        f"no packaged {machine} kernel with udmabuf built in is offered here; give --kernel PATH",
        ExitStatus.SKIPPED,
    )


def _newest_offered(machine: str, progress: Progress, own_lists: bool) -> Kernel | None:
    in_cache = cached(machine)
    for release in reversed(offered(machine, progress, own_lists=own_lists)):
        if release not in in_cache and not _may_have_udmabuf(release):
            continue
        kernel = _fetch(release, machine, progress, own_lists=own_lists)
        if kernel.option("CONFIG_UDMABUF") == "y":
            return kernel
    return None


def _may_have_udmabuf(release: str) -> bool:
    """Tell from its number whether a Debian kernel is worth fetching: none before 6.10 has udmabuf."""
    return _version_key(release) >= _version_key("6.10")


def _packaged(wanted: str, machine: str, progress: Progress) -> Kernel:
    if not re.fullmatch(r"\d[\w.+~-]*", wanted):
        raise KernelError(f"--kernel {DEBIAN_PREFIX}{wanted}: not a version; write one as debian:6.12.117")

    flavour = LARGE_PAGES if wanted.endswith(LARGE_PAGES) else ""
    beginning = re.compile(re.escape(wanted.removesuffix(flavour)) + r"(?![0-9])")

    def fits(release: str) -> bool:
        return release == wanted or (beginning.match(release) is not None and release.endswith(f"64{flavour}"))

    # A full release that is in the cache needs no question to the package manager.
    if wanted in (in_cache := cached(machine)):
        return _fetch(wanted, machine, progress)
    try:
        matching = [release for release in offered(machine, progress, flavour=flavour) if fits(release)]
    except AptError:
        matching = []
        if not any(fits(release) for release in in_cache):
            raise
    matching = matching or [release for release in in_cache if fits(release)]
    if not matching:
        on_offer = ", ".join(offered(machine, progress, flavour=flavour)[-OFFERED_IN_MESSAGE:]) or "nothing"
        raise KernelError(f"--kernel {DEBIAN_PREFIX}{wanted}: not offered for {machine}; there is: {on_offer}")
    return _fetch(matching[-1], machine, progress)


def _cache_folder(machine: str) -> Path:
    return cache.cache_directory() / "kernels" / machine


def _fetch(release: str, machine: str, progress: Progress, *, own_lists: bool = False) -> Kernel:
    """Return the packaged kernel *release* from the cache, downloading and unpacking it first if need be."""

    def build(folder: Path) -> list[str]:
        apt = Apt(machine, progress, own_lists=own_lists)
        progress.phase(f"fetching the packaged kernel {release} into the cache")
        # Where the lists hold nothing at all, names() turns to lists of its own.
        package = f"linux-image-{release}"
        if package not in apt.names(f"^{re.escape(package)}$"):
            raise AptError(f"{package} is not offered by the package manager")
        files = apt.download([package], folder)
        if len(files) != 1:
            raise AptError(f"downloading {package} gave {len(files)} files, expected one")
        progress.phase(f"unpacking the packaged kernel {release}")
        apt.unpack(files[0], folder)
        files[0].unlink()
        names = [f"boot/vmlinuz-{release}", f"boot/config-{release}"]
        for name in names:
            if not (folder / name).is_file():
                raise AptError(f"{package} holds no {name}")
        if index_modules(folder / "lib" / "modules" / release):
            names.append(f"lib/modules/{release}/modules.dep")
        return names

    folder = cache.entry(_cache_folder(machine) / release, build)
    return Kernel(
        image=folder / "boot" / f"vmlinuz-{release}",
        release=release,
        machine=machine,
        source=f"{DEBIAN_PREFIX}{release}",
        modules=_modules_beside(folder / "boot" / f"vmlinuz-{release}", release),
        config=folder / "boot" / f"config-{release}",
    )


def index_modules(modules: Path) -> bool:
    """Let depmod write ``modules.dep`` for an unpacked modules folder, if it is not there; tell whether it is now.

    A package leaves that to its installation script, and virtme-ng would do it at the first boot, one machine in the
    way of another.
    """
    index = modules / "modules.dep"
    depmod = shutil.which("depmod", path=host.search_path())
    if not index.exists() and depmod is not None and modules.parent.parent.name == "lib":
        subprocess.run(
            [depmod, "-b", str(modules.parents[2]), modules.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    return index.exists()


def _from_build_tree(tree: Path, machine: str) -> Kernel:
    image = tree / IMAGE_IN_BUILD_TREE[machine]
    if not image.exists():
        raise KernelError(f"--kernel {tree}: {IMAGE_IN_BUILD_TREE[machine]} is not built; run make there first")
    release = ""
    with contextlib.suppress(OSError):
        release = (tree / "include/config/kernel.release").read_text(encoding="utf-8").strip()
    config = tree / ".config"
    return Kernel(
        image=image,
        release=release or _image_release(image, machine),
        machine=machine,
        source=str(tree),
        config=config if config.exists() else None,
        build_tree=tree if config.exists() else None,
    )


def _modules_beside(image: Path, release: str) -> Path | None:
    """Find the modules of a packaged kernel: in the root that the image lies below, as virtme-ng looks for them."""
    if not release:
        return None
    for root in image.parents:
        for folder in PACKAGE_MODULES_FOLDERS:
            if (root / folder / release).is_dir():
                return root / folder / release
    return None


def _config_beside(image: Path, release: str) -> Path | None:
    candidates = [image.parent / f"config-{release}", image.parent / "config", image.parent / ".config"]
    return next((path for path in candidates if path.is_file()), None)


def _image_release(path: Path, machine: str) -> str:
    """Read the release out of a kernel image; KernelError if the file is none for *machine*.

    x86: the boot protocol's header (Documentation/arch/x86/boot.rst) points at the version text. arm64: the image has
    a magic number (Documentation/arch/arm64/booting.rst) and no version in its header, so the banner is looked for.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KernelError(f"--kernel {path}: cannot be read ({error.strerror})") from error
    is_x86 = data[0x202:0x206] == b"HdrS"
    if is_x86 and machine == "x86_64":
        offset = 0x200 + int.from_bytes(data[0x20E:0x210], "little")
        text = data[offset : offset + 256].split(b"\0", 1)[0].decode("ascii", "replace")
        return text.split(" ", 1)[0]
    if data[:2] == b"\x1f\x8b":
        with contextlib.suppress(zlib.error):
            data = zlib.decompressobj(wbits=31).decompress(data)
    is_arm64 = data[0x38:0x3C] == b"ARM\x64"
    is_zboot = data[4:8] == b"zimg"
    if machine == "aarch64" and (is_arm64 or is_zboot):
        if banner := re.search(rb"Linux version (\S+) ", data):
            return banner.group(1).decode("ascii", "replace")
        if name := re.fullmatch(r"(?:vmlinu[xz]|Image)-(\d.*)", path.name):
            return name.group(1)
        return ""
    other = {True: "an x86-64 kernel", False: "an arm64 kernel" if is_arm64 else "no kernel image"}[is_x86]
    expected = {"x86_64": "a bzImage", "aarch64": "an arm64 Image"}.get(machine, f"a kernel for {machine}")
    raise KernelError(f"--kernel {path}: {other}, expected {expected}")


def _version_key(text: str) -> tuple[int, ...]:
    version = re.sub(r"-(amd64|arm64)(-16k)?$", "", text)
    return tuple(int(number) for number in re.findall(r"\d+", version))
