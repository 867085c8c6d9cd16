"""What this kernel offers for dma-bufs: its nodes, judged by opening them, and the command that fixes what does not."""

from __future__ import annotations

import contextlib
import grp
import gzip
import os
import platform
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dmasync.harness.openable import refusal
from dmasync.harness.probe import remedies
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


@dataclass(frozen=True)
class Node:
    """One provider's device node."""

    flag: str
    path: str
    present: bool
    opens: bool
    error: str | None
    """The symbol of what the kernel said to opening it (``ENOENT``, ``EACCES``), None if it opened; ``ENOTTY`` for a
    regular file."""
    mode: str | None
    owner: str | None
    group: str | None
    remedy: str | None
    """The command that fixes it, or what has to be true first; None if it opens."""


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
    error = refusal(real)
    remedy = None
    if error is not None:
        setting = None if configuration is None else configuration.get(remedies.OPTION_OF_FLAG[flag], "n")
        access = None if status is None else remedies.Access(status.st_mode, status.st_gid, str(group))
        remedy = remedies.for_node(flag, path, error, setting, access, _user_name(os.geteuid()))
    return Node(str(flag.name), path, status is not None, error is None, error, mode, owner, group, remedy)


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
