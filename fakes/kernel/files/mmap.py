"""``mmap(2)`` up to the driver (``mm/mmap.c``), and what Python's ``mmap`` module asks before it."""

from __future__ import annotations

import errno
import mmap

from dmasync import uapi
from dmasync.fakes.kernel.errors import UnmodelledCallError, os_error
from dmasync.fakes.kernel.files.file import File, is_shared
from dmasync.fakes.kernel.files.memfd import Memfd
from dmasync.fakes.kernel.hugetlb.hugetlbfs import MAP_NORESERVE, HugeMemfd

MAP_TYPE = 0x0F
MAP_POPULATE, MAP_NONBLOCK = 0x8000, 0x10000
_POPULATION = MAP_POPULATE | MAP_NONBLOCK  # of which the second undoes the first
_MAP_SHARED_VALIDATE = 0x03
_MAP_FIXED = 0x10 | 0x100000
_MAP_GROWSDOWN = 0x100
_MAP_LOCKED = 0x2000
_MAP_HUGETLB = 0x40000
# What MAP_SHARED_VALIDATE takes (LEGACY_MAP_MASK in include/linux/mman.h); MAP_SHARED ignores all else.
_LEGACY_FLAGS = 0x03 | 0x10 | 0x20 | 0x100 | 0x800 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000
_LEGACY_FLAGS |= 0x20000 | 0x40000 | 21 << 26 | 30 << 26


def check_mmap(file: File, length: int, prot: int, flags: int) -> None:
    """``do_mmap()`` up to the driver, in its order."""
    if flags & (mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_LOCKED):
        raise UnmodelledCallError(f"mmap() with flags {flags:#x}: the fake maps files, where the host likes")
    if flags & _MAP_HUGETLB and not isinstance(file, HugeMemfd):
        raise os_error(errno.EINVAL)
    if not length:
        raise os_error(errno.EINVAL)
    machine = file.kernel.machine
    if length > machine.longest_mapping:
        raise os_error(errno.ENOMEM)
    kind = flags & MAP_TYPE
    known = _LEGACY_FLAGS | machine.map_flags
    if file.kernel.profile.maps_above_4g:
        known |= machine.map_above_4g
    if kind == _MAP_SHARED_VALIDATE and flags & ~known:
        raise os_error(errno.EOPNOTSUPP)
    if kind not in (mmap.MAP_SHARED, mmap.MAP_PRIVATE, _MAP_SHARED_VALIDATE):
        raise os_error(errno.EINVAL)
    if is_shared(flags) and prot & mmap.PROT_WRITE and not file.writable:
        raise os_error(errno.EACCES)
    if not file.readable:
        raise os_error(errno.EACCES)
    if prot & mmap.PROT_EXEC and not file.may_execute():
        raise os_error(errno.EPERM)
    if not file.can_map:
        raise os_error(errno.ENODEV)
    if flags & _MAP_GROWSDOWN:
        raise os_error(errno.EINVAL)
    file.check_map(prot, is_shared(flags))


def for_the_file(prot: int, flags: int) -> int:
    """What of *flags* matters to the file: shared or private, promised or not, whether all pages are wanted at once.

    Those are never brought for a mapping that can only be executed: where the processor has protection keys, Linux
    cannot read such a mapping itself.
    """
    return flags & (MAP_TYPE | MAP_NORESERVE | (0 if prot == mmap.PROT_EXEC else _POPULATION))


def check_length_in_file(file: Memfd, length: int, offset: int) -> None:
    """What ``mmap.mmap`` asks of a regular file before it asks the kernel, whose answer to no length is EINVAL."""
    if length and (offset > file.size or file.size - offset < length):
        raise ValueError("mmap length is greater than file size")


def may_write(file: File, flags: int) -> bool:
    """Whether a mapping counts against F_SEAL_WRITE: shared, of a file opened for writing, not yet
    write-sealed where the release looks at that.
    """
    if not isinstance(file, Memfd) or not is_shared(flags) or not file.writable:
        return False
    return not file.kernel.profile.sealed_maps_read or not file.seals & (uapi.F_SEAL_WRITE | uapi.F_SEAL_FUTURE_WRITE)
