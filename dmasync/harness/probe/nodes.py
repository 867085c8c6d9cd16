"""What this kernel offers for dma-bufs: its nodes, judged by opening them, and what mends those that do not open."""

from __future__ import annotations

import contextlib
import errno
import grp
import gzip
import os
import platform
import pwd
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dmasync.providers import DEFAULT_PROVIDERS, DmaBufAllocatorFlag

OPTIONS = (
    "CONFIG_UDMABUF",
    "CONFIG_DMABUF_HEAPS",
    "CONFIG_DMABUF_HEAPS_SYSTEM",
    "CONFIG_DMABUF_HEAPS_CMA",
    "CONFIG_SYNC_FILE",
    "CONFIG_DRM_VGEM",
)
UDMABUF_PARAMETERS = ("list_limit", "size_limit_mb")
OPTION_OF_FLAG = {
    DmaBufAllocatorFlag.CMA_HEAP: "CONFIG_DMABUF_HEAPS_CMA",
    DmaBufAllocatorFlag.SYSTEM_HEAP: "CONFIG_DMABUF_HEAPS_SYSTEM",
    DmaBufAllocatorFlag.UDMABUF: "CONFIG_UDMABUF",
}

MODULE_OF_FLAG = {
    DmaBufAllocatorFlag.CMA_HEAP: "cma_heap",
    DmaBufAllocatorFlag.SYSTEM_HEAP: "system_heap",
    DmaBufAllocatorFlag.UDMABUF: "udmabuf",
}


@dataclass(frozen=True)
class Node:
    """One provider's device node."""

    flag: str
    path: str
    present: bool
    opens: bool
    error: str | None
    """The symbol of what the kernel said to opening it (``ENOENT``, ``EACCES``), None if it opened."""
    mode: str | None
    owner: str | None
    group: str | None
    remedy: str | None
    """The line that mends it, or what has to be true first; None if it opens."""


def survey(configuration: Mapping[str, str] | None, root: Path = Path("/")) -> list[Node]:
    """Try each node below *root*; *configuration* is the running kernel's (:func:`running_configuration`) or None."""
    return [_node(flag, path, configuration, root) for flag, path in DEFAULT_PROVIDERS]


def limits(root: Path = Path("/")) -> dict[str, int | None]:
    """Return udmabuf's limits: the most items in a list, the most MiB in a buffer; None where it does not say."""
    found: dict[str, int | None] = {}
    for name in UDMABUF_PARAMETERS:
        found[name] = None
        with contextlib.suppress(OSError, ValueError):
            found[name] = int((root / "sys/module/udmabuf/parameters" / name).read_text(encoding="ascii"))
    return found


def running_configuration(root: Path = Path("/")) -> tuple[str | None, dict[str, str] | None]:
    """Return where the running kernel's configuration was found, and its options; (None, None) if it is not there."""
    release = platform.release()
    for place in (
        "proc/config.gz",
        f"boot/config-{release}",
        f"lib/modules/{release}/config",
        f"lib/modules/{release}/build/.config",
    ):
        path = root / place
        with contextlib.suppress(OSError, EOFError):
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            settings = [line for line in data.decode("utf-8", "replace").splitlines() if line[:7] == "CONFIG_"]
            return str(path), dict(line.split("=", 1) for line in settings if "=" in line)
    return None, None


def _node(flag: DmaBufAllocatorFlag, path: str, configuration: Mapping[str, str] | None, root: Path) -> Node:
    real = root / path.lstrip("/")
    mode = owner = group = None
    status = None
    with contextlib.suppress(OSError):
        status = real.stat()
        mode = stat.filemode(status.st_mode)
        owner, group = _user_name(status.st_uid), _group_name(status.st_gid)
    error = None
    try:
        os.close(os.open(real, os.O_RDWR | os.O_CLOEXEC))
    except OSError as refusal:
        error = errno.errorcode.get(refusal.errno or 0, str(refusal.errno))
    remedy = None if error is None else _remedy(flag, path, error, status, configuration)
    return Node(str(flag.name), path, status is not None, error is None, error, mode, owner, group, remedy)


def _remedy(
    flag: DmaBufAllocatorFlag,
    path: str,
    error: str,
    status: os.stat_result | None,
    configuration: Mapping[str, str] | None,
) -> str:
    if error == "ENOENT":
        return _remedy_for_absence(flag, path, configuration)
    if error in ("ENXIO", "ENODEV"):
        return f"no driver answers behind {path}: the node is left over, remove it"
    if error in ("EACCES", "EPERM") and status is not None:
        if os.geteuid() == 0:
            return f"root, yet refused: a device policy; in a container, start it with --device {path}"
        if status.st_mode & 0o060 == 0o060 and status.st_gid != 0:
            group, user = _group_name(status.st_gid), _user_name(os.geteuid())
            return f"sudo usermod -aG {shlex.quote(group)} {shlex.quote(user)}  # then log in again"
        match = 'KERNEL=="udmabuf"' if flag is DmaBufAllocatorFlag.UDMABUF else 'SUBSYSTEM=="dma_heap"'
        rule = f'{match}, GROUP="video", MODE="0660"'
        return (
            f"echo {shlex.quote(rule)} | sudo tee /etc/udev/rules.d/70-dma-buf.rules"
            " && sudo udevadm control --reload && sudo udevadm trigger"
        )
    return f"opening {path} failed with {error}"


def _remedy_for_absence(flag: DmaBufAllocatorFlag, path: str, configuration: Mapping[str, str] | None) -> str:
    option = OPTION_OF_FLAG[flag]
    setting = None if configuration is None else configuration.get(option, "n")
    if setting == "m":
        return f"sudo modprobe {'udmabuf' if flag is DmaBufAllocatorFlag.UDMABUF else 'cma_heap system_heap'}"
    if setting == "y" and flag is DmaBufAllocatorFlag.CMA_HEAP:
        return "the kernel has CMA heaps, and no such region: reserve one with the kernel argument cma=64M"
    if setting == "y":
        return f"the kernel has it, this /dev has not: in a container, start it with --device {path}"
    if flag is DmaBufAllocatorFlag.UDMABUF and setting is None:
        return f"sudo modprobe udmabuf, or a kernel with {option}=y"
    return f"a kernel with {option}=y, or a virtual machine: dmasync vm"


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
