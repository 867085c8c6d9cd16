"""Open files opened once more by ``/proc/self/fd/N`` or ``/dev/fd/N``, and that folder itself (``fs/proc/fd.c``)."""

from __future__ import annotations

import errno
import os
import re

from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.files.file import O_LARGEFILE, Directory, File, PathFile
from dmasync.fakes.kernel.parts import Kernel

_PLACE = re.compile(
    r"/+(?:proc/+(?:self|thread-self|(?P<pid>[0-9]+))|dev)/+fd/+(?:\.\./+fd/+)?(?P<fd>0|[1-9][0-9]*)(?P<rest>/.*)?"
)
_FOLDER = re.compile(r"/+(?:proc/+(?:self|thread-self|(?P<pid>[0-9]+))/+fd(?:info)?|(?P<link>dev/+fd))(?P<slash>/*)")
_LAST = (1 << 31) - 1  # MAX_NON_LFS
_BLOCK = 1024  # fs/proc/root.c
O_PATH = 0o10000000
O_TMPFILE = 0o20000000
"""Without the O_DIRECTORY that os.O_TMPFILE has in it."""
NOT_KEPT = os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_TRUNC | os.O_CLOEXEC
"""Flags that are for opening alone."""


def place_in(kernel: Kernel, path: str) -> tuple[File, str] | None:
    """The open file of *kernel* that *path* goes by, and what follows its number; None for any other path."""
    found = _PLACE.fullmatch(path)
    if found is None or (found["pid"] is not None and int(found["pid"]) != os.getpid()):
        return None
    file = kernel.descriptors.files.get(int(found["fd"]))
    return None if file is None else (file, found["rest"] or "")


def open_again(kernel: Kernel, file: File, rest: str, flags: int) -> File:
    """``do_filp_open()`` of *file*'s place; *rest* is empty or slashes, *flags* passed what asks no file."""
    if flags & os.O_CREAT and flags & os.O_EXCL:
        raise os_error(errno.EEXIST)
    of = file.of if isinstance(file, PathFile) else file
    stays = bool(flags & os.O_NOFOLLOW) and not rest
    if of is None or stays:
        return _open_link(kernel, flags)
    if (rest or flags & os.O_DIRECTORY) and not isinstance(of, Directory):
        raise os_error(errno.ENOTDIR)
    if flags & O_PATH:
        return PathFile(kernel, flags, of)
    if isinstance(of, Directory) and flags & O_TMPFILE:
        raise UnmodelledCallError("open() of a folder with O_TMPFILE: the fake creates no files")
    if isinstance(of, Directory) and flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC):
        raise os_error(errno.EISDIR)
    if not of.can_open_again:
        raise os_error(errno.ENXIO)
    if flags & os.O_DIRECT and not of.direct:
        raise os_error(errno.EINVAL)
    if flags & os.O_TRUNC:
        of.cut_on_open()
    return of.opened_again(flags & ~NOT_KEPT | O_LARGEFILE)


def _open_link(kernel: Kernel, flags: int) -> File:
    """The entry in ``/proc/self/fd`` itself: a link, so a place at most."""
    if flags & os.O_DIRECTORY:
        raise os_error(errno.ENOTDIR)
    if not flags & O_PATH:
        raise os_error(errno.ELOOP)
    return PathFile(kernel, flags, None)


class ProcFolder(Directory):
    """An open ``/proc/self/fd``: as long as 0 bytes, and sought as files are (``generic_file_llseek()``)."""

    kind = "proc directory"

    def opened_again(self, flags: int) -> File:
        return ProcFolder(self.kernel, flags, self.path)

    def block_size(self) -> int:
        return _BLOCK

    def seek(self, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise os_error(errno.ENXIO)
        position = offset + self.position if whence == os.SEEK_CUR else offset
        if not 0 <= position <= _LAST:
            raise os_error(errno.EINVAL)
        self.position = position
        return position


def folder_at(kernel: Kernel, path: str, flags: int) -> File | None:
    """The folder of descriptors at *path*; None for any other path. *flags* passed what asks no file."""
    found = _FOLDER.fullmatch(path)
    if found is None or (found["pid"] is not None and int(found["pid"]) != os.getpid()):
        return None
    if flags & os.O_CREAT and found["slash"]:
        raise os_error(errno.EISDIR)
    if flags & os.O_CREAT and flags & os.O_EXCL:
        raise os_error(errno.EEXIST)
    if found["link"] and flags & os.O_NOFOLLOW and not found["slash"]:
        return _open_link(kernel, flags)  # to /proc/self/fd
    folder = ProcFolder(kernel, flags & ~NOT_KEPT | O_LARGEFILE, "/proc/self/fd")
    if flags & O_PATH:
        return PathFile(kernel, flags, folder)
    if flags & O_TMPFILE:
        raise os_error(errno.EOPNOTSUPP)
    if flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC):
        raise os_error(errno.EISDIR)
    if flags & os.O_DIRECT:
        raise os_error(errno.EINVAL)
    return folder
