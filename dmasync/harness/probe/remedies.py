"""The one table of remedies: what is wrong with a node or with this host, and the command that fixes it.

The commands can be run one after the other, in any order and again: none undoes what another did. The udev rules
stand in one file, so whoever is refused at any node is told to write all of them.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from typing import NamedTuple

from dmasync.advice import BUSY, LEFT_OVER, about_shortage
from dmasync.harness.openable import NO_DEVICE
from dmasync.harness.vm.host_packages import Part, install_line
from dmasync.providers import DmaBufAllocatorFlag

OPTION_OF_FLAG = {
    DmaBufAllocatorFlag.CMA_HEAP: "CONFIG_DMABUF_HEAPS_CMA",
    DmaBufAllocatorFlag.SYSTEM_HEAP: "CONFIG_DMABUF_HEAPS_SYSTEM",
    DmaBufAllocatorFlag.UDMABUF: "CONFIG_UDMABUF",
}
MODULES_OF_FLAG = {
    DmaBufAllocatorFlag.CMA_HEAP: "cma_heap system_heap",
    DmaBufAllocatorFlag.SYSTEM_HEAP: "cma_heap system_heap",
    DmaBufAllocatorFlag.UDMABUF: "udmabuf",
}
UDEV_FILE = "/etc/udev/rules.d/70-dma-buf.rules"
UDEV_RULES = (
    'KERNEL=="udmabuf", GROUP="video", MODE="0660"',
    'SUBSYSTEM=="dma_heap", GROUP="video", MODE="0660"',
)

NOT_A_DEVICE = "sudo rm {path}  # a regular file, made where no driver has a node, which it would hide; then look again"
DEVICE_POLICY = "refused whoever asks: a device policy; in a container, start it with --device {path}"
JOIN_GROUP = "sudo usermod -aG {group} {user}  # then log in again"
WRITE_RULES = "printf '%s\\n' {rules} | sudo tee {file} && sudo udevadm control --reload && sudo udevadm trigger"
LOAD_MODULES = "sudo modprobe {modules}"
LOAD_OR_BUILD = "sudo modprobe {modules}, or a kernel with {option}=y"
RESERVE_CMA = "the kernel has CMA heaps, and no such region: reserve one with the kernel argument cma=64M"
HIDDEN = "the kernel has it, this /dev has not: in a container, start it with --device {path}"
OTHER_KERNEL = "a kernel with {option}=y, or a virtual machine: dmasync vm"
UNKNOWN = "opening {path} failed with {error}"
INSTALL_HARNESS = "{python} -m pip install 'dmabuf-sync[harness]'"
OTHER_CACHE = "export XDG_CACHE_HOME=FOLDER  # one that you can write to: the cache cannot be written"
GIVE_KERNEL = "dmasync vm --kernel PATH  # no packaged kernel can be fetched here"


class Access(NamedTuple):
    """Who may open a node."""

    mode: int
    group: int
    group_name: str


def for_node(
    flag: DmaBufAllocatorFlag, path: str, error: str, setting: str | None, access: Access | None, user: str
) -> str:
    """The remedy for the node *path*, to whose opening the kernel said *error* (an errno's symbol).

    *setting* is its option in the kernel's configuration, None where that is not known; *access* is None where there is
    no node; *user* is who asks.
    """
    words = {
        "path": path,
        "error": error,
        "option": OPTION_OF_FLAG[flag],
        "modules": MODULES_OF_FLAG[flag],
        "user": shlex.quote(user),
        "group": shlex.quote(access.group_name if access else ""),
        "rules": " ".join(map(shlex.quote, UDEV_RULES)),
        "file": UDEV_FILE,
    }
    code = getattr(errno, error, 0)
    if used_up := about_shortage(OSError(code, os.strerror(code)), flag):
        return used_up
    return _template(flag, error, setting, access).format(**words)


def _template(flag: DmaBufAllocatorFlag, error: str, setting: str | None, access: Access | None) -> str:
    if error == "ENOENT":
        return _for_absence(flag, setting)
    if error in ("ENXIO", "ENODEV"):
        return LEFT_OVER
    if error == NO_DEVICE:
        return NOT_A_DEVICE
    if error in ("EACCES", "EPERM") and access is not None:
        if error == "EPERM" or os.geteuid() == 0:  # the node's bits give EACCES, and stop no root
            return DEVICE_POLICY
        return JOIN_GROUP if access.mode & 0o060 == 0o060 and access.group != 0 else WRITE_RULES
    if error == "EBUSY":
        return BUSY
    return UNKNOWN


def _for_absence(flag: DmaBufAllocatorFlag, setting: str | None) -> str:
    if setting == "m":
        return LOAD_MODULES
    if setting == "y":
        return RESERVE_CMA if flag is DmaBufAllocatorFlag.CMA_HEAP else HIDDEN
    return LOAD_OR_BUILD if flag is DmaBufAllocatorFlag.UDMABUF and setting is None else OTHER_KERNEL


def for_virtual_machine(
    *, has_virtme: bool, missing: Sequence[Part], has_kernel: bool, cache_error: str = ""
) -> list[str]:
    """What makes ``dmasync vm`` work here, in order; *has_kernel*: one is in the cache, or can be fetched.

    *cache_error*: why what is fetched cannot be kept.
    """
    told = []
    if not has_virtme:
        told.append(INSTALL_HARNESS.format(python=sys.executable))
    if missing:
        told.append(install_line(missing))
    if not has_kernel:
        told.append(GIVE_KERNEL)
    if cache_error:
        told.append(OTHER_CACHE)
    return told
