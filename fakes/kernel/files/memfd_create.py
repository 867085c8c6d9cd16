"""``memfd_create(2)`` (``mm/memfd.c``)."""

from __future__ import annotations

import errno
import os

from dmasync import uapi
from dmasync.fakes.kernel.errors import os_error
from dmasync.fakes.kernel.files.memfd import Memfd, MemfdInode
from dmasync.fakes.kernel.hugetlb.hugetlbfs import HugeMemfd, HugeMemfdInode
from dmasync.fakes.kernel.parts import Kernel

_ALL_FLAGS = uapi.MFD_CLOEXEC | uapi.MFD_ALLOW_SEALING | uapi.MFD_HUGETLB | uapi.MFD_NOEXEC_SEAL | uapi.MFD_EXEC
_HUGE_SIZE_BITS = 0x3F << 26


def memfd_create(kernel: Kernel, name: str | bytes | os.PathLike[str], flags: int) -> int:
    """``memfd_create(2)``; the checks are those of the system call, in its order."""
    flags &= 0xFFFF_FFFF
    allowed = _ALL_FLAGS & kernel.profile.memfd_flags
    if flags & ~(allowed | (_HUGE_SIZE_BITS if flags & uapi.MFD_HUGETLB else 0)):
        raise os_error(errno.EINVAL)
    if flags & uapi.MFD_EXEC and flags & uapi.MFD_NOEXEC_SEAL:
        raise os_error(errno.EINVAL)
    encoded = os.fsencode(name)
    if b"\0" in encoded:
        raise ValueError("embedded null byte in the name of a memfd")  # as os.memfd_create says
    if len(encoded) > uapi.MFD_NAME_MAX_LEN:
        raise os_error(errno.EINVAL)
    fd = kernel.descriptors.reserve()
    if flags & uapi.MFD_HUGETLB:
        file: Memfd = HugeMemfd(kernel, HugeMemfdInode(kernel, flags))
    else:
        file = Memfd(kernel, MemfdInode(kernel, flags))
    return kernel.descriptors.install(fd, file, close_on_exec=bool(flags & uapi.MFD_CLOEXEC))
