"""Requests that ``fs/ioctl.c`` answers for every file before a driver is asked (``do_vfs_ioctl()``).

The numbers are those of asm-generic/ioctls.h and linux/fs.h.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.files.file import Directory, File
from dmasync.fakes.kernel.files.memfd import Memfd
from dmasync.fakes.kernel.parts import Kernel
from dmasync.fakes.kernel.profile import FS_IOC_GETFSUUID
from dmasync.fakes.kernel.usermem import Argument, copy_from, copy_words_to, put_user

FIOCLEX: Final = 0x5451
FIONCLEX: Final = 0x5450
FIONBIO: Final = 0x5421
FIOASYNC: Final = 0x5452
FIOQSIZE: Final = 0x5460
FIONREAD: Final = 0x541B
FIGETBSZ: Final = 2
FIFREEZE: Final = 0xC0045877
FITHAW: Final = 0xC0045878
FICLONE: Final = 0x40049409
FICLONERANGE: Final = 0x4020940D
FIDEDUPERANGE: Final = 0xC0189436
FS_IOC_FIEMAP: Final = 0xC020660B
FS_IOC_GETFLAGS: Final = 0x80086601
FS_IOC_SETFLAGS: Final = 0x40086602
FS_IOC_FSGETXATTR: Final = 0x801C581F
FS_IOC_FSSETXATTR: Final = 0x401C5820
# Of regular files only: FIBMAP, and the pre-allocation requests that came from XFS.
FIBMAP: Final = 1
_PREALLOCATE: Final = frozenset({0x40305828, 0x4030582A, 0x40305829, 0x4030582B, 0x40305839})
_READ_ATTRIBUTES: Final = frozenset({FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR})
_OF_MEMFDS: Final = _READ_ATTRIBUTES | {FIBMAP} | _PREALLOCATE
_UNMODELLED: Final = {"memfd": _OF_MEMFDS, "huge memfd": _OF_MEMFDS, "directory": _READ_ATTRIBUTES}

_INT = struct.Struct("=i")
_UINT = struct.Struct("=I")
_LOFF = struct.Struct("=q")
_DEDUPE_HEAD = struct.Struct("=QQHHI")
_DEDUPE_INFO_SIZE = 32


def do_vfs_ioctl(kernel: Kernel, fd: int, file: File, request: int, arg: Argument) -> int | None:
    """The VFS's own answer, or None where it leaves the request to the driver."""
    handler = _HANDLERS.get(request)
    if handler is not None:
        return handler(kernel, fd, file, arg)
    if request in kernel.profile.vfs_requests:
        return _fs_identity(file, request, arg)
    if request in (FIFREEZE, FITHAW) or request in _UNMODELLED.get(file.kind, ()):
        raise UnmodelledCallError(f"ioctl request {request:#x} on a {file.kind}: Linux knows it, the fake does not")
    return None


def _fs_identity(file: File, request: int, arg: Argument) -> int:
    # Memfds and device nodes live in a tmpfs, which has a UUID, drawn at random; no file system here has more.
    if request != FS_IOC_GETFSUUID or file.kind in ("dmabuf", "sync_file", "huge memfd", "proc directory"):
        raise os_error(errno.ENOTTY)
    raise UnmodelledCallError("FS_IOC_GETFSUUID: the file system's UUID is another one on every boot")


def _attributes(kernel: Kernel, fd: int, file: File, arg: Argument, size: int) -> int | None:
    # The argument is read first; then a file system without attributes leaves the request to the driver.
    copy_from(arg, size)
    if file.regular or (isinstance(file, Directory) and file.kind == Directory.kind):  # /proc has none
        raise UnmodelledCallError(f"setting the attributes of a {file.kind}: Linux knows it, the fake does not")
    return None


def _set_flags(kernel: Kernel, fd: int, file: File, arg: Argument) -> int | None:
    return _attributes(kernel, fd, file, arg, 4)


def _set_xattr(kernel: Kernel, fd: int, file: File, arg: Argument) -> int | None:
    return _attributes(kernel, fd, file, arg, 28)


def _fiemap(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    raise os_error(errno.EOPNOTSUPP)


def _clone(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    # The argument is a descriptor; an address is none that could be open.
    if not isinstance(arg, int) or kernel.descriptors.find(arg & 0xFFFF_FFFF) is None:
        raise os_error(errno.EBADF)
    raise UnmodelledCallError("FICLONE: Linux knows it, the fake does not")


def _clone_range(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    source = _LOFF.unpack_from(copy_from(arg, 32))[0]
    return _clone(kernel, fd, file, source)


def _dedupe(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    count = _DEDUPE_HEAD.unpack(copy_from(arg, 16) + copy_from(arg, 2, 16) + bytes(6))[2]
    size = _DEDUPE_HEAD.size + count * _DEDUPE_INFO_SIZE
    if size > kernel.page_size:
        raise os_error(errno.ENOMEM)
    *_, reserved1, reserved2 = _DEDUPE_HEAD.unpack(copy_from(arg, size)[: _DEDUPE_HEAD.size])
    if not file.readable or reserved1 or reserved2:
        raise os_error(errno.EINVAL)
    if isinstance(file, Directory):
        raise os_error(errno.EISDIR)
    if not file.regular:
        raise os_error(errno.EINVAL)
    raise os_error(errno.EOPNOTSUPP)


def _fioclex(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    kernel.descriptors.close_on_exec.add(fd)
    return 0


def _fionclex(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    kernel.descriptors.close_on_exec.discard(fd)
    return 0


def _fionbio(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    if _INT.unpack(copy_from(arg, 4))[0]:
        file.flags |= os.O_NONBLOCK
    else:
        file.flags &= ~os.O_NONBLOCK
    return 0


def _fioasync(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    # None of these files has a fasync operation: any change is refused, also from the O_ASYNC of an open.
    if bool(_INT.unpack(copy_from(arg, 4))[0]) != bool(file.flags & os.O_ASYNC):
        raise os_error(errno.ENOTTY)
    return 0


def _fioqsize(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    if isinstance(file, Directory):
        _tell_size(kernel, arg, 0)  # a tmpfs keeps no bytes for a folder
        return 0
    if not isinstance(file, Memfd):
        raise os_error(errno.ENOTTY)
    _tell_size(kernel, arg, file.inode.bytes_in_pages())
    return 0


def _tell_size(kernel: Kernel, arg: Argument, size: int) -> None:
    copy_words_to(arg, _LOFF.pack(size), whole=kernel.machine.copies_words)


def _figetbsz(kernel: Kernel, fd: int, file: File, arg: Argument) -> int:
    put_user(arg, _UINT.pack(file.block_size() & 0xFFFF_FFFF))  # an int: of 16 GiB, 0
    return 0


def _fionread(kernel: Kernel, fd: int, file: File, arg: Argument) -> int | None:
    if not isinstance(file, Memfd):
        return None
    put_user(arg, _UINT.pack(file.size - file.position & 0xFFFF_FFFF))
    return 0


_HANDLERS = {
    FIOCLEX: _fioclex,
    FIONCLEX: _fionclex,
    FIONBIO: _fionbio,
    FIOASYNC: _fioasync,
    FIOQSIZE: _fioqsize,
    FIGETBSZ: _figetbsz,
    FIONREAD: _fionread,
    FICLONE: _clone,
    FICLONERANGE: _clone_range,
    FIDEDUPERANGE: _dedupe,
    FS_IOC_FIEMAP: _fiemap,
    FS_IOC_SETFLAGS: _set_flags,
    FS_IOC_FSSETXATTR: _set_xattr,
}
