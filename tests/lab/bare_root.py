"""The root folder of a board with busybox and python3 and nothing else: Debian's packages, unpacked, none installed."""

from __future__ import annotations

from pathlib import Path

from dmasync.harness.vm.apt import Apt, Lists
from dmasync.harness.vm.host import host_machine


def unpacked(root: Path, *more: str) -> None:
    """Make the root folder of the two packages, of *more*, and of what they depend on."""
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/local/bin", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    apt = Apt(host_machine(), lists=Lists.OWN)
    packages = root.parent / "packages"
    packages.mkdir()
    for file in apt.download(apt.simulate_install(("busybox-static", "python3", *more)), packages):
        apt.unpack(file, root)
    # Debian's own shell and tools came as dependencies: a board with busybox has busybox's.
    for folder in (root / "usr/bin", root / "usr/sbin"):
        for program in folder.iterdir():
            if not program.name.startswith(("busybox", "python3", "dropbear")):
                program.unlink()
    (root / "bin/sh").symlink_to("/bin/busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
