"""Which device nodes there are, and who may open them.

Two sources. A list of paths (``providers``), by default all that the design names: these exist, and everybody
may open them. And the file system, when a fake one is in force: under pyfakefs the ``os`` that this module
sees is not the real one, and what its tree says about a node holds, whether it exists and who may open it.
With both, a listed node that is not in the tree exists all the same; one that is there has the tree's
permissions. The real file system of the host is never asked: the fake's answers do not depend on the machine
that it runs on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from dmasync.fakes.kernel.dma_buf.dma_heap import HeapDevice
from dmasync.fakes.kernel.dma_buf.udmabuf import UdmabufDevice
from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.files.file import O_LARGEFILE, Directory, File, NullDevice, PathFile
from dmasync.fakes.kernel.files.proc_fd import NOT_KEPT, O_PATH, O_TMPFILE, folder_at, open_again, place_in
from dmasync.fakes.kernel.parts import Kernel

UDMABUF = "/dev/udmabuf"
HEAPS = "/dev/dma_heap/"
_DEV = "/dev/"
NULL = "/dev/null"
"""Always there, whatever the list says."""
DEFAULT_NODES = (
    HEAPS + "linux,cma",
    HEAPS + "reserved",
    HEAPS + "default_cma_region",
    HEAPS + "default-pool",
    HEAPS + "system",
    UDMABUF,
)

O_EMPTYPATH = 1 << 26
"""Let an empty path stand for where the path would begin; bits that a release does not know are taken off before."""
_O_PATH_FLAGS = O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | O_EMPTYPATH
_VALID_FLAGS = 0o37777703 | O_EMPTYPATH  # VALID_OPEN_FLAGS
_PATH_MAX = 4096
_NAME_MAX = 255

Opener = Callable[[Kernel, int], File]


def opener_for(node: str, *, udmabuf: bool | None = None) -> Opener:
    """The driver behind *node*: by what it is said to be, else by its name."""
    if udmabuf or (udmabuf is None and "udmabuf" in posixpath.basename(node)):
        return UdmabufDevice
    name = posixpath.basename(node)
    return lambda kernel, flags: HeapDevice(kernel, flags, name)


class Nodes:
    """The nodes of one kernel; *providers* as in ``FakeKernel``."""

    def __init__(self, providers: Iterable[Any] | None) -> None:
        self._listed = providers is not None
        self._openers: dict[str, Opener] = {}
        for provider in DEFAULT_NODES if providers is None else providers:
            self.add(provider)

    def add(self, provider: Any) -> None:
        """A node more: a path, or an object with ``path`` and ``flag`` as ``dmasync.Provider`` is."""
        flag = getattr(provider, "flag", None)
        path = posixpath.normpath(os.fspath(getattr(provider, "path", provider)))
        self._openers[path] = opener_for(path, udmabuf=None if flag is None else flag.name == "UDMABUF")

    def remove(self, path: str) -> None:
        """A node less; KeyError when there is none."""
        del self._openers[path]

    def stat(self, path: str) -> os.stat_result:
        """What a file system that is in force says about a node; FileNotFoundError where there is none."""
        if not _file_system_is_fake():
            raise os_error(errno.ENOENT)
        return os.stat(path)

    def listdir(self, path: str) -> list[str]:
        """The names of the nodes in the folder *path*; FileNotFoundError where there are none."""
        folder = posixpath.normpath(path)
        names = {posixpath.basename(node) for node in self._openers if posixpath.dirname(node) == folder}
        if _file_system_is_fake():
            if not self._listed:
                names.clear()
            with contextlib.suppress(FileNotFoundError):
                names.update(os.listdir(path))
        if not names:
            raise os_error(errno.ENOENT)
        return sorted(names)

    @staticmethod
    def check_flags(path: str, flags: int) -> None:
        """``build_open_flags()``: what is refused before all else."""
        if "\0" in path:
            raise ValueError("embedded null byte in a path")  # as os.open says
        if flags & O_PATH:
            flags &= _O_PATH_FLAGS
        if flags & os.O_CREAT and flags & os.O_DIRECTORY:
            raise os_error(errno.EINVAL)
        if flags & O_TMPFILE and not (flags & os.O_DIRECTORY and flags & os.O_ACCMODE):
            raise os_error(errno.EINVAL)

    @staticmethod
    def check_path(path: str, flags: int) -> None:
        """``getname()``: a path that can be none."""
        if not path and flags & O_EMPTYPATH:
            raise UnmodelledCallError("open('', O_EMPTYPATH): the fake has device nodes only, no working directory")
        if not path:
            raise os_error(errno.ENOENT)
        if len(os.fsencode(path)) >= _PATH_MAX:
            raise os_error(errno.ENAMETOOLONG)

    def open(self, kernel: Kernel, path: str, flags: int) -> File:
        """``do_filp_open()`` of a device node; flags are Linux's, and passed both checks."""
        self._check_names(path)
        if flags & O_PATH:
            flags &= _O_PATH_FLAGS
        place = place_in(kernel, path)
        if place is not None:
            file, rest = place
            if not rest.strip("/"):
                return open_again(kernel, file, rest, flags & _VALID_FLAGS)
            folder = file.of if isinstance(file, PathFile) else file
            if not isinstance(folder, Directory):
                raise os_error(errno.ENOTDIR)
            return self.open(kernel, folder.path + rest, flags)
        folder_of_numbers = folder_at(kernel, path, flags & _VALID_FLAGS)
        if folder_of_numbers is not None:
            return folder_of_numbers
        opener = self._find(path, flags)
        if flags & O_PATH:
            return PathFile(kernel, flags, opener(kernel, 0))
        if flags & os.O_DIRECT:
            raise os_error(errno.EINVAL)
        return opener(kernel, flags & _VALID_FLAGS & ~NOT_KEPT | O_LARGEFILE)

    def _check_names(self, path: str) -> None:
        """``link_path_walk()`` as far as a name that no folder can have: what lies before it is looked for first."""
        parts = os.fsencode(path).split(b"/")
        for at, part in enumerate(parts):
            if len(part) > _NAME_MAX:
                before = posixpath.normpath(os.fsdecode(b"/".join(parts[:at])) or "/")
                if any(f"{before}/".startswith(f"{node}/") for node in (*self._openers, NULL)):
                    raise os_error(errno.ENOTDIR)
                # Of folders elsewhere the fake knows nothing.
                if before.startswith(_DEV) and not self._is_directory(before):
                    raise os_error(errno.ENOENT)
                raise os_error(errno.ENAMETOOLONG)

    def _find(self, path: str, flags: int) -> Opener:
        node = posixpath.normpath(path)
        if flags & os.O_CREAT and path.endswith("/") and self._is_directory(posixpath.dirname(node)):
            raise os_error(errno.EISDIR)
        opener = self._openers.get(node) or (NullDevice if node == NULL else None)
        seen = self._stat(node)
        if seen is None and (opener is None or (not self._listed and _file_system_is_fake())):
            if any(node.startswith(known + "/") for known in (*self._openers, NULL)):
                raise os_error(errno.ENOTDIR)
            if self._is_directory(node):
                return self._directory(node, flags, seen)
            if flags & os.O_CREAT and self._is_directory(posixpath.dirname(node)):
                raise UnmodelledCallError(f"open({path!r}, O_CREAT): the fake has device nodes only")
            raise os_error(errno.ENOENT)
        if seen is not None and stat.S_ISDIR(seen.st_mode):
            return self._directory(node, flags, seen)
        if opener is None:
            if not node.startswith(HEAPS) and "udmabuf" not in posixpath.basename(node):
                raise UnmodelledCallError(f"open({path!r}): the fake has no driver for this file")
            opener = opener_for(node)
        if path.endswith("/") or flags & os.O_DIRECTORY:
            raise os_error(errno.ENOTDIR)
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise os_error(errno.EEXIST)
        if seen is not None and not flags & O_PATH and not os.access(node, _wanted(flags)):
            raise os_error(errno.EACCES)
        return opener

    def _is_directory(self, node: str) -> bool:
        seen = self._stat(node)
        if seen is not None:
            return stat.S_ISDIR(seen.st_mode)
        return any(known.startswith(node.rstrip("/") + "/") for known in self._openers)

    @staticmethod
    def _stat(node: str) -> os.stat_result | None:
        if not _file_system_is_fake():
            return None
        try:
            return os.stat(node)
        except OSError as failure:
            if failure.errno == errno.ENOENT:
                return None
            raise os_error(failure.errno or errno.EIO) from None

    @staticmethod
    def _directory(path: str, flags: int, seen: os.stat_result | None) -> Opener:
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise os_error(errno.EEXIST)
        if flags & O_TMPFILE:
            raise UnmodelledCallError(f"open({path!r}, O_TMPFILE): the fake creates no files")
        if flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC):
            raise os_error(errno.EISDIR)
        if not f"{path}/".startswith(_DEV):
            raise UnmodelledCallError(f"open({path!r}): of the folders the fake has those in {_DEV} only")
        if seen is not None and not flags & O_PATH and not os.access(path, os.R_OK):
            raise os_error(errno.EACCES)
        return lambda kernel, flags: Directory(kernel, flags, path)


def _file_system_is_fake() -> bool:
    return not isinstance(os, ModuleType)


def _wanted(flags: int) -> int:
    mode = flags & os.O_ACCMODE
    return (os.R_OK if mode != os.O_WRONLY else 0) | (os.W_OK if mode != os.O_RDONLY else 0)
