"""What a person can do about a refusal: sentences for the errors that nodes and allocations raise."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import posixpath
import pwd
import resource
import stat
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from dmasync.backend import LINUX, Backend, kernel_beneath
from dmasync.providers import DEFAULT_PROVIDERS, DmaBufAllocatorFlag, Provider

_HEAPS = "/dev/dma_heap"
_POLICY = "a device policy of the container, the cgroup or a security module; allow it there"
_MISSING = {
    DmaBufAllocatorFlag.CMA_HEAP: (
        "needs a kernel with CONFIG_DMABUF_HEAPS_CMA and a CMA region: a device tree's, or the kernel argument cma=64M"
    ),
    DmaBufAllocatorFlag.SYSTEM_HEAP: "needs a kernel with CONFIG_DMABUF_HEAPS_SYSTEM",
    DmaBufAllocatorFlag.UDMABUF: "modprobe udmabuf, or a kernel with CONFIG_UDMABUF",
}
LEFT_OVER = "no driver answers behind {path}: the node is left over, remove it"
BUSY = "somebody has {path} to themselves: fuser {path} says who"
_WAY_OUT = "dmasync probe says what this machine has, dmasync vm -- COMMAND runs a command on a kernel that has it"


def about_nodes(backend: Backend, tried: Sequence[tuple[Provider, OSError]]) -> str:
    """What to do where none of the nodes that were *tried* could be opened."""
    files = _files(backend)
    # What takes no other kernel stands first.
    told = [_about_other_heaps(files, tried), *(_about_node(files, row, error) for row, error in tried)]
    return "; ".join(dict.fromkeys([*filter(None, told), _WAY_OUT]))


def about_shortage(error: OSError, flag: DmaBufAllocatorFlag | None = None) -> str:
    """What is used up, and how much of it there is; "" where the error is about something else.

    *flag*: which memory was asked for, if any was.
    """
    code = error.errno
    if code not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return ""
    if error.strerror and error.strerror != os.strerror(code):
        # A backend that is not this machine has its own limits, and says so.
        return error.strerror.removeprefix(f"{os.strerror(code)} (").removesuffix(")")
    if code == errno.EMFILE:
        return _descriptors_of_this_process()
    return _files_of_the_system() if code == errno.ENFILE else _memory(flag)


def raise_explained(error: OSError, doing: str) -> NoReturn:
    """Raise *error*, or where something is used up one with the same errno that says what."""
    more = about_shortage(error)
    if not more or error.errno is None:
        raise error
    raise OSError(error.errno, f"{doing} failed: {os.strerror(error.errno)}: {more}") from error


def _files(backend: Backend) -> Any:
    """Whose ``stat`` and ``listdir`` tell about the nodes; a kernel that is not this machine's need not have them."""
    kernel = kernel_beneath(backend)
    return os if kernel is LINUX else kernel


def _about_node(files: Any, row: Provider, error: OSError) -> str:
    code = error.errno
    if code in (errno.EACCES, errno.EPERM):
        if os.geteuid() == 0:
            return f"refused although this is root: {_POLICY}"
        return f"refused to whoever asks: {_POLICY}" if code == errno.EPERM else _about_permissions(files, row.path)
    if code == errno.ENOENT:
        return _MISSING[row.flag]
    if code in (errno.ENXIO, errno.ENODEV):
        return f"{LEFT_OVER.format(path=row.path)}; {_MISSING[row.flag]}"
    if code == errno.EBUSY:
        return BUSY.format(path=row.path)
    return about_shortage(error)


def _about_permissions(files: Any, path: str) -> str:
    node = None
    with contextlib.suppress(OSError, AttributeError, ValueError):
        node = files.stat(path)
    if node is None or not isinstance(getattr(node, "st_mode", None), int):
        return "join the group that owns the node, or let a udev rule give it one: dmasync probe prints the command"
    seen = f"{path} is {stat.filemode(node.st_mode)} {_name('pwd', node.st_uid)} {_name('grp', node.st_gid)}"
    if node.st_gid == 0 or node.st_mode & 0o060 != 0o060:
        return f"{seen}: no group may use it, let a udev rule give it one: dmasync probe prints the command"
    if node.st_gid in (os.getegid(), *os.getgroups()):
        return f"{seen}, and you are in that group: {_POLICY}"
    return (
        f"{seen}: join that group and log in again, or let a udev rule give it another: "
        "dmasync probe prints the command"
    )


def _name(kind: str, number: int) -> str:
    """Of a user (pwd) or a group (grp), which a small system may not have names for."""
    try:
        return pwd.getpwuid(number).pw_name if kind == "pwd" else grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _about_other_heaps(files: Any, tried: Iterable[tuple[Provider, OSError]]) -> str:
    """The heaps that are there under names that nobody asked for, and how to take one."""
    asked = {row.path: row.flag for row, _ in tried}
    flags = [flag for flag in asked.values() if flag is not DmaBufAllocatorFlag.UDMABUF]
    names: list[str] = []
    with contextlib.suppress(OSError, AttributeError, TypeError, ValueError):
        names = sorted(name for name in files.listdir(_HEAPS) if posixpath.join(_HEAPS, name) not in asked)
    if not names or not flags:
        return ""
    known = {row.path: row.flag for row in DEFAULT_PROVIDERS}
    new = [name for name in names if posixpath.join(_HEAPS, name) not in known]
    path = posixpath.join(_HEAPS, (new or names)[0])
    way = f"flags=DmaBufAllocatorFlag.{known[path].name}" if path in known else ""
    way = way or f'providers=[Provider(DmaBufAllocatorFlag.{flags[0].name}, "{path}")]'
    return f"{_HEAPS} holds {', '.join(names)}: {way} takes {posixpath.basename(path)}"


def _descriptors_of_this_process() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        has = str(len(os.listdir("/proc/self/fd")) - 1)  # without the one that lists them
    except OSError:
        has = "that many"  # there is none left to list them with
    more = f", ulimit -n {hard} allows more" if hard > soft or hard < 0 else ""
    return (
        f"ulimit -n allows this process {soft} descriptors and it has {has}{more}; "
        f"if it should have few, it leaks them: ls -l /proc/{os.getpid()}/fd shows what they are"
    )


def _files_of_the_system() -> str:
    told = "the whole system has as many files open as it may, this process need not be the one that leaks them"
    used, *_, most = (_read("/proc/sys/fs/file-nr") or "? ?").split()
    return f"{told}: {used} of {most} (/proc/sys/fs/file-nr, raised in /proc/sys/fs/file-max)"


def _memory(flag: DmaBufAllocatorFlag | None) -> str:
    found = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    free = {name: value.strip() for name, value in found.items() if name in ("MemAvailable", "CmaFree", "CmaTotal")}
    told = [f"{free['MemAvailable']} of memory are available" if "MemAvailable" in free else ""]
    if flag is DmaBufAllocatorFlag.CMA_HEAP and free.get("CmaTotal", "0 kB") != "0 kB":
        told = [f"{free.get('CmaFree')} of {free['CmaTotal']} of CMA are free, in pieces that may be smaller"]
    group = _read("/proc/self/cgroup").partition("0::/")[2].partition("\n")[0]
    limit, used = (_read(f"/sys/fs/cgroup/{group}/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        told.append(f"the cgroup may have {limit} bytes and has {used}")
    return ", ".join(filter(None, told))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
