"""The paths at which the backend is found: device nodes, their folder, and the module's parameters."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable
from typing import Final

from dmasync.harness.run.program import memory
from dmasync.harness.run.program.python_stacks import PREFIX

HEAPS: Final = "/dev/dma_heap"
UDMABUF: Final = "/dev/udmabuf"
PARAMETERS: Final = "/sys/module/udmabuf/parameters"
_AT_FDCWD: Final = -100
_PATH_MAX: Final = 4096
_STACKS: Final = PREFIX.encode()
_RESOLVE_NO_XDEV: Final = 1
_RESOLVE_NO_MAGICLINKS: Final = 2
_RESOLVE_NO_SYMLINKS: Final = 4
RESOLVE_BENEATH: Final = 8
RESOLVE_IN_ROOT: Final = 16
_MAGIC: Final = re.compile(r"^/*proc/[^/]+/(task/\d+/)?(cwd|root|exe|fd/)")
"""Links of /proc that are none: they lead to a file, not to a name."""
_NUMBERED: Final = re.compile(r"/proc/[^/]+/(task/\d+/)?(fd|fdinfo)/\d+|/dev/fd/\d+")
"""Names of descriptors."""
_BELOW_A_NUMBER: Final = re.compile(r"(/proc/(?P<process>[^/]+)/(task/\d+/)?|/dev/)fd/(?P<number>\d+)/(?P<rest>.+)")
"""Names of what lies below one that is a folder's."""


class Places:
    """*nodes* exist, those in *denied* may not be opened; with *fake* the host's own are hidden behind them."""

    def __init__(self, nodes: Iterable[str], denied: Iterable[str] = (), *, fake: bool) -> None:
        self.nodes = [posixpath.normpath(node) for node in nodes]
        self.denied = {posixpath.normpath(node) for node in denied}
        self.fake = fake
        names = {posixpath.basename(node) for node in self.nodes}
        names |= {"udmabuf", "dma_heap", "list_limit", "size_limit_mb"}
        self._names = tuple(name.encode() for name in names)

    shares_root: Callable[[int], bool] = staticmethod(lambda thread: False)
    """Whether absolute paths lead a thread where they lead this process; the supervisor sets it."""
    stands_for_heaps: Callable[[tuple[int, int]], bool] = staticmethod(lambda key: False)
    """Whether a file with that device and inode stands for the heaps' folder; the supervisor sets it."""

    @property
    def heaps(self) -> list[str]:
        """What the folder of the heaps lists."""
        return [posixpath.basename(node) for node in self.nodes if posixpath.dirname(node) == HEAPS]

    def need_node(self, path: str) -> None:
        """ENOENT or ENOTDIR where *path* leads to no node of the fake."""
        if path.startswith(tuple(node + "/" for node in self.nodes)):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if path not in self.nodes:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def is_node(self, path: str) -> bool:
        """Whether *path* is for the backend to open, be it there or not."""
        return path in self.nodes or path == UDMABUF or posixpath.dirname(path) == HEAPS

    def of_call(self, thread: int, folder: int, address: int, *, follow: bool = True) -> str | None:
        """The absolute path that a call names, if it may be one of ours, or a descriptor's name in /proc; with
        *follow* also that of a link to one of ours.
        """
        try:
            raw = memory.string(thread, address, _PATH_MAX)
        except OSError:
            return None  # for the kernel to refuse
        if len(raw) >= _PATH_MAX:
            return None
        if raw.startswith(_STACKS):
            return os.fsdecode(raw)
        # The last name alone tells for nearly every path that it is not ours.
        name = raw.rstrip(b"/").rpartition(b"/")[2]
        likely = name in self._names or b"/udmabuf/" in raw or b"dma_heap/" in raw
        if name.isdigit() and (not raw.startswith(b"/") or b"/fd/" in raw or b"/fdinfo/" in raw):
            path = self._absolute(thread, folder, os.fsdecode(raw))
            if path is not None and _NUMBERED.fullmatch(path):
                return path + "/" * raw.endswith(b"/")
        if not likely and not (follow and self._is_link(thread, folder, raw)):
            return None
        path = self._absolute(thread, folder, os.fsdecode(raw))
        if path is None:
            return None
        path = self._through_folder(thread, path)
        if not self.is_ours(path):
            if not follow and os.path.islink(f"/proc/{thread}/root{path}"):
                return None
            path = _resolved(thread, path)
        # A path that ends so must be a folder.
        return path + "/" * raw.endswith(b"/") if self.is_ours(path) and self._is_there(thread, path) else None

    def _through_folder(self, thread: int, path: str) -> str:
        """*path*, with the heaps' folder for the number of a descriptor that it was opened by."""
        found = _BELOW_A_NUMBER.fullmatch(path)
        if found is None:
            return path
        process = found["process"] or "self"
        where = f"/proc/{thread if process in ('self', 'thread-self') else process}/fd/{found['number']}"
        try:
            state = os.stat(where)
        except OSError:
            return path
        is_folder = self.stands_for_heaps((state.st_dev, state.st_ino))
        return posixpath.join(HEAPS, found["rest"]) if is_folder else path

    def _is_there(self, thread: int, path: str) -> bool:
        """Whether *thread* has this machine's /dev, or /sys: in a root of its own it may have another or none."""
        if self.shares_root(thread):
            return True
        top = "/" + path.split("/")[1]
        try:
            return os.path.samefile(top, f"/proc/{thread}/root{top}")
        except OSError:
            return False

    def is_ours(self, path: str) -> bool:
        return (
            path in (*self.nodes, UDMABUF, HEAPS)
            or path.startswith((HEAPS + "/", *(node + "/" for node in self.nodes)))
            or posixpath.dirname(path) == PARAMETERS
        )

    def _is_link(self, thread: int, folder: int, raw: bytes) -> bool:
        """Asked of nearly every path that a program opens: as it stands, for the kernel to find its way."""
        if raw.startswith(b"/"):
            start = "" if self.shares_root(thread) else "root"
        else:
            number = ctypes.c_int(folder & 0xFFFF_FFFF).value
            start = "cwd" if number == _AT_FDCWD else f"fd/{number}"
        try:
            way = raw.rstrip(b"/")
            mode = os.lstat(b"/proc/%d/%s/%s" % (thread, start.encode(), way) if start else way).st_mode
        except (OSError, ValueError):
            return False
        return stat.S_ISLNK(mode)

    def _absolute(self, thread: int, folder: int, path: str) -> str | None:
        if not path.startswith("/"):
            number = ctypes.c_int(folder & 0xFFFF_FFFF).value
            link = f"/proc/{thread}/cwd" if number == _AT_FDCWD else f"/proc/{thread}/fd/{number}"
            try:
                state = os.stat(link)
                base = HEAPS if self.stands_for_heaps((state.st_dev, state.st_ino)) else os.readlink(link)
            except OSError:
                return None
            path = posixpath.join(base, path)
        return self._normal(thread, path)

    def _normal(self, thread: int, path: str) -> str | None:
        """Without ``.``, ``..`` and double slashes; None where ``..`` follows what is no folder."""
        if "/.." not in path:
            return posixpath.normpath("/" + path.lstrip("/"))
        here = "/"
        for part in path.split("/"):
            if part == "..":
                if not self._is_folder(thread, here):
                    return None
                here = posixpath.dirname(_resolved(thread, here))
            elif part not in ("", "."):
                here = posixpath.join(here, part)
        return here

    def _is_folder(self, thread: int, path: str) -> bool:
        return (self.fake and path == HEAPS and bool(self.heaps)) or os.path.isdir(f"/proc/{thread}/root{path}")

    def beyond(self, thread: int, folder: int, address: int) -> str | None:
        """Where a path leads that goes through the heaps' folder and out of it again, as that of its ``..`` does."""
        try:
            raw = memory.string(thread, address, _PATH_MAX)
        except OSError:
            return None  # for the kernel to refuse
        if not self.fake or b"dma_heap/.." not in raw:
            return None
        path = self._absolute(thread, folder, os.fsdecode(raw))
        return None if path is None or self.is_ours(path) else path

    def of_root(self, thread: int, folder: int, address: int) -> str | None:
        """As :meth:`of_call`, for openat2() with RESOLVE_IN_ROOT: *folder* is the path's root, ``..`` stays in it."""
        raw = os.fsdecode(memory.string(thread, address, _PATH_MAX))
        base = self._absolute(thread, folder, ".")
        here: list[str] = []
        for part in raw.split("/") if base is not None else ():
            if part == "..":
                if not self._is_folder(thread, posixpath.join(base or "", *here)):
                    return None
                del here[-1:]
            elif part not in ("", "."):
                here.append(part)
        path = posixpath.join(base or "", *here)
        return path + "/" * raw.endswith("/") if self.is_ours(path) else None

    def refuse_to_lead(self, thread: int, folder: int, address: int, resolve: int) -> None:
        """What openat2() says of a path to one of ours that leads where *resolve* forbids: EXDEV, ELOOP."""
        raw = os.fsdecode(memory.string(thread, address, _PATH_MAX))
        path = self._absolute(thread, folder, raw)
        target = None if path is None else _resolved(thread, path)
        if path is None or target is None or not (self.is_ours(path) or self.is_ours(target)):
            return
        other_mount = os.stat(f"/proc/{thread}/root/dev").st_dev != _mount_of(thread, folder, raw)
        if (resolve & RESOLVE_BENEATH and _leaves(raw)) or (resolve & _RESOLVE_NO_XDEV and other_mount):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        if (resolve & _RESOLVE_NO_SYMLINKS and path != target) or (
            resolve & (_RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS) and _MAGIC.search(raw)
        ):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _leaves(path: str) -> bool:
    """Whether *path* leads out of the folder that it starts in."""
    depth = 0
    for part in path.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return True
    return path.startswith("/")


def _mount_of(thread: int, folder: int, path: str) -> int:
    number = ctypes.c_int(folder & 0xFFFF_FFFF).value
    start = "cwd" if number == _AT_FDCWD else f"fd/{number}"
    return os.stat(f"/proc/{thread}/{'root' if path.startswith('/') else start}").st_dev


def _resolved(thread: int, path: str) -> str:
    """*path* with the links followed as *thread* sees them; the last name need not exist."""
    for name in ("self", "thread-self"):
        if path.startswith(f"/proc/{name}/"):
            path = f"/proc/{thread}/{path.removeprefix(f'/proc/{name}/')}"
    root = f"/proc/{thread}/root"
    if os.readlink(root) == "/":
        return os.path.realpath(path)
    with contextlib.suppress(OSError):  # a root of its own: its links lead within that
        target = os.readlink(root + path)
        return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return path
