"""A host in a folder: programs that stand in for apt, dpkg, virtme-ng and QEMU, and kernels that only have headers."""

from __future__ import annotations

import io
import sys
import tarfile
import textwrap
from pathlib import Path

FAKE_VIRTME_RUN = """
import os, pathlib, subprocess, sys, time
words = sys.argv[1:]
control = pathlib.Path(next(w for w in words if w.startswith("/run/dmasync/control=")).partition("=")[2])
mode = os.environ.get("FAKE_GUEST", "works")
if log := os.environ.get("FAKE_ARGUMENTS"):
    pathlib.Path(log).write_text("\\0".join(words))
if mode == "panics":
    print("[    0.8] Kernel panic - not syncing: no init", flush=True)
    print("[    0.9] ---[ end Kernel panic", flush=True)
    sys.exit(255)
if mode in ("hangs-at-boot", "hangs"):
    emulator = subprocess.Popen(["sleep", "1000"])
    pathlib.Path(os.environ["FAKE_PIDS"]).write_text(f"{os.getpid()} {emulator.pid} ")
    if mode == "hangs":
        (control / "started").touch()
    time.sleep(1000)
(control / "release").write_text("6.12.0-fake\\n")
if mode == "cannot-mount":
    (control / "failed").write_text("/somewhere\\n")
    sys.exit(0)
(control / "started").touch()
with (control / "stdout").open("ab") as out, (control / "stderr").open("ab") as err:
    status = subprocess.run(["/bin/sh", str(control / "command.sh")], stdout=out, stderr=err, check=False).returncode
if mode == "dies":
    print("[    9.9] reboot: Power down", flush=True)
    sys.exit(0)
if log := os.environ.get("FAKE_KERNEL_LOG"):
    (control / "kernel-log").write_text(log)
    (control / "tainted-before").write_text("0\\n")
    (control / "tainted-after").write_text("512\\n")
(control / "status").write_text(f"{status}\\n")
"""

FAKE_APT_CACHE = """
import os, re, sys
newer = any("SourceList=" in word for word in sys.argv)
packages = os.environ.get("FAKE_NEWER_PACKAGES" if newer else "FAKE_PACKAGES", "").split()
words = [w for w in sys.argv[1:] if w != "-o" and "::" not in w and "Dir" not in w]
if words[0] == "search":
    for package in packages:
        if re.search(words[-1], package):
            print(f"{package} - a kernel")
"""

FAKE_APT_GET = """
import os, pathlib, shutil, sys
words = sys.argv[1:]
with open(os.environ["FAKE_APT_LOG"], "a") as log:
    log.write(" ".join(words) + "\\n")
if failure := os.environ.get("FAKE_APT_FAILURE"):
    print(f"E: {failure}", file=sys.stderr)
    sys.exit(100)
if "indextargets" in words:
    print(os.environ.get("FAKE_SOURCES", ""))
    sys.exit(0)
if "-s" in words:
    for name in os.environ["FAKE_CLOSURE"].split():
        print(f"Inst {name} (1 Debian [all])")
    sys.exit(0)
if "download" in words and os.environ.get("FAKE_STALE_LISTS") and not any("Dir::State=" in w for w in words):
    print("E: Failed to fetch it  404  Not Found", file=sys.stderr)
    sys.exit(100)
if "download" in words:
    for package in words[words.index("download") + 1:]:
        name = package.partition(":")[0]
        shutil.copy(pathlib.Path(os.environ["FAKE_ARCHIVE"]) / f"{name}.deb", f"{name}_1_all.deb")
if "install" in words:
    for name in os.environ.get("FAKE_INSTALLS", "").split():
        path = pathlib.Path(os.environ["FAKE_BIN"]) / name
        path.write_text("#!/bin/sh\\n")
        path.chmod(0o755)
"""

FAKE_DPKG_DEB = """
import sys
sys.stdout.buffer.write(open(sys.argv[-1], "rb").read())
"""


def install_program(folder: Path, name: str, source: str = "") -> Path:
    """Write a program; *source* is Python, and nothing at all where only its presence counts."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(source)}", encoding="utf-8")
    path.chmod(0o755)
    return path


def install_virtual_machine(folder: Path) -> None:
    """Write every program that a virtual machine needs."""
    install_program(folder, "virtme-run", FAKE_VIRTME_RUN)
    for name in ("qemu-system-x86_64", "qemu-system-aarch64", "depmod", "busybox", "file"):
        install_program(folder, name)


def install_apt(folder: Path) -> None:
    """Write the package manager's programs."""
    install_program(folder, "apt-cache", FAKE_APT_CACHE)
    install_program(folder, "apt-get", FAKE_APT_GET)
    install_program(folder, "dpkg-deb", FAKE_DPKG_DEB)


def x86_image(release: str) -> bytes:
    """Return the beginning of a bzImage, with its magic number and its version text."""
    data = bytearray(0x400)
    data[0x202:0x206] = b"HdrS"
    data[0x20E:0x210] = (0x100).to_bytes(2, "little")
    text = f"{release} (builder@host) #1 SMP\0".encode()
    data[0x300 : 0x300 + len(text)] = text
    return bytes(data)


def arm64_image(banner: str = "") -> bytes:
    """Return the beginning of an arm64 Image, with its magic number and perhaps a banner."""
    data = bytearray(0x400)
    data[0x38:0x3C] = b"ARM\x64"
    return bytes(data) + banner.encode()


def write_package(archive: Path, name: str, files: dict[str, bytes]) -> None:
    """Write a package (here: the tar file that a real one holds)."""
    with tarfile.open(archive / f"{name}.deb", "w") as package:
        for path, data in files.items():
            for parent in reversed(Path(path).parents):
                folder = tarfile.TarInfo(f"./{parent}")
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                package.addfile(folder)
            member = tarfile.TarInfo(f"./{path}")
            member.size, member.mode = len(data), 0o755
            package.addfile(member, io.BytesIO(data))


def write_split_kernel_packages(archive: Path, release: str, config: str, *, modules: bool = True) -> list[str]:
    """Write the packages of a kernel as they are since 6.19; return their names."""
    folder = f"usr/lib/modules/{release}"
    packages = {
        f"linux-image-{release}": {f"usr/share/doc/linux-image-{release}/copyright": b""},
        f"linux-binary-{release}": {f"{folder}/vmlinuz": x86_image(release)},
        f"linux-base-{release}": {f"{folder}/config": config.encode(), f"{folder}/modules.order": b""},
        f"linux-modules-{release}": {f"{folder}/kernel/fs/9p/9p.ko.xz": b"module"},
    }
    if not modules:
        del packages[f"linux-modules-{release}"]
    for name, files in packages.items():
        write_package(archive, name, files)
    return list(packages)


def write_kernel_package(archive: Path, release: str, config: str) -> None:
    """Write a package with a kernel in it."""
    files = {
        f"boot/vmlinuz-{release}": x86_image(release),
        f"boot/config-{release}": config.encode(),
        f"lib/modules/{release}/modules.order": b"",
    }
    write_package(archive, f"linux-image-{release}", files)
