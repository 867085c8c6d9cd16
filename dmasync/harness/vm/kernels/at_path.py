"""Kernels at a path: an image file, a build tree, a folder into which packages were unpacked."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import zlib
from pathlib import Path

from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.vm import host
from dmasync.harness.vm.kernels.kernel import Kernel, KernelError

IMAGE_IN_BUILD_TREE = {"x86_64": "arch/x86/boot/bzImage", "aarch64": "arch/arm64/boot/Image"}
PACKAGE_MODULES_FOLDERS = ("lib/modules", "usr/lib/modules")
NEEDED_OPTIONS = ("CONFIG_9P_FS", "CONFIG_NET_9P_VIRTIO", "CONFIG_OVERLAY_FS", "CONFIG_VIRTIO_PCI")
"""What the guest's root folder is mounted with."""


def from_path(path: Path, machine: str) -> Kernel:
    """Return the kernel at *path*: an image file, a build tree, or a folder into which its packages were unpacked."""
    path = path.absolute()
    if path.is_dir():
        if (path / ".config").exists() or (path / IMAGE_IN_BUILD_TREE[machine]).exists():
            return from_build_tree(path, machine)
        images = images_in(path)
        if not images:
            raise KernelError(
                f"--kernel {path}: no kernel in this folder; expected {IMAGE_IN_BUILD_TREE[machine]} (a build tree), "
                "boot/vmlinuz-RELEASE or usr/lib/modules/RELEASE/vmlinuz (unpacked packages)"
            )
        path = images[-1]
    elif not path.exists():
        raise KernelError(f"--kernel {path}: no such file; give a bzImage, a build tree, or debian:VERSION")
    for tree_image in IMAGE_IN_BUILD_TREE.values():
        if str(path).endswith(f"/{tree_image}"):
            tree = Path(str(path).removesuffix(f"/{tree_image}"))
            if (tree / ".config").exists():
                return from_build_tree(tree, machine)
    kernel = from_image(path, machine, str(path))
    check_modules(kernel)
    return kernel


def images_in(folder: Path) -> list[Path]:
    """Return the images in a folder of unpacked packages, that of the oldest release first.

    They lie in ``boot/``, since 6.19 with the modules: ``usr/lib/modules/RELEASE/vmlinuz``. The folder may also be
    that last one itself.
    """
    found = [(image.name.partition("-")[2], image) for image in (folder / "boot").glob("vmlinu[xz]-*")]
    for modules in PACKAGE_MODULES_FOLDERS:
        found += [(image.parent.name, image) for image in (folder / modules).glob("*/vmlinu[xz]")]
    found += [(folder.name, image) for image in folder.glob("vmlinu[xz]")]
    return [image for _, image in sorted(found, key=lambda each: version_key(each[0]))]


def from_image(image: Path, machine: str, source: str, release: str | None = None) -> Kernel:
    """Return the kernel with this image, with the modules and the configuration that lie beside it.

    *release*: where it is known; it is read from the image otherwise.
    """
    release = _image_release(image, machine) if release is None else release
    return Kernel(
        image=image,
        release=release,
        machine=machine,
        source=source,
        modules=_modules_beside(image, release),
        config=_config_beside(image, release),
    )


def check_modules(kernel: Kernel) -> None:
    """Raise KernelError where the kernel has what a guest is started with as modules, and the modules are not there."""
    wanted = [name for name in NEEDED_OPTIONS if kernel.option(name) == "m"]
    if wanted and (kernel.modules is None or not (kernel.modules / "kernel").is_dir()):
        raise KernelError(
            f"kernel {kernel.release or kernel.source} has {', '.join(wanted)} as modules, and they are not beside it; "
            f"unpack linux-modules-{kernel.release} into the same folder",
            ExitStatus.SKIPPED,
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


def from_build_tree(tree: Path, machine: str) -> Kernel:
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
        return path.parent.name if path.parent.parent.name == "modules" else ""
    other = {True: "an x86-64 kernel", False: "an arm64 kernel" if is_arm64 else "no kernel image"}[is_x86]
    expected = {"x86_64": "a bzImage", "aarch64": "an arm64 Image"}.get(machine, f"a kernel for {machine}")
    raise KernelError(f"--kernel {path}: {other}, expected {expected}")


def version_key(text: str) -> tuple[int, ...]:
    version = re.sub(r"-(amd64|arm64)(-16k)?$", "", text)
    return tuple(int(number) for number in re.findall(r"\d+", version))
