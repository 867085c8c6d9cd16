"""System call numbers and the structures of seccomp's user notifications, as the kernel's headers have them."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Architecture:
    """One machine's numbers: the AUDIT_ARCH value that a filter sees, and its system calls by name."""

    audit: int
    calls: dict[str, int]
    audit_of_32_bits: int
    """As *audit*, for the 32-bit programs that the machine also runs."""
    opens_of_32_bits: tuple[int, ...]
    """Their numbers of open, openat and openat2."""


_X86_64: Final = Architecture(
    0xC000003E,
    {
        "seccomp": 317, "kcmp": 312, "pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440,
        "open": 2, "creat": 85, "openat": 257, "openat2": 437, "stat": 4, "lstat": 6, "newfstatat": 262, "statx": 332,
        "access": 21, "faccessat": 269, "faccessat2": 439, "readlink": 89, "readlinkat": 267,
        "ioctl": 16, "mmap": 9, "munmap": 11, "madvise": 28,
        "msync": 26, "mremap": 25, "mincore": 27, "close": 3, "close_range": 436, "dup": 32, "dup2": 33, "dup3": 292,
        "fcntl": 72, "lseek": 8, "fstat": 5, "ftruncate": 77, "getdents64": 217,
        "chroot": 161, "pivot_root": 155, "unshare": 272, "setns": 308,
        "poll": 7, "ppoll": 271, "select": 23, "pselect6": 270, "epoll_ctl": 233, "exit_group": 231,
        "read": 0, "write": 1, "readv": 19, "writev": 20, "pread64": 17, "pwrite64": 18, "preadv": 295, "pwritev": 296,
        "preadv2": 327, "pwritev2": 328, "fsync": 74, "fdatasync": 75, "readahead": 187, "sync_file_range": 277,
        "fstatfs": 138, "truncate": 76, "fallocate": 285, "sendfile": 40, "splice": 275, "copy_file_range": 326,
        "tee": 276, "vmsplice": 278, "fadvise64": 221,
        "getxattr": 191, "lgetxattr": 192, "listxattr": 194, "llistxattr": 195,
        "fsetxattr": 190, "fgetxattr": 193, "flistxattr": 196, "fremovexattr": 199,
        "fchmod": 91, "fchown": 93, "utimensat": 280, "flock": 73,
        "setxattr": 188, "removexattr": 197, "statfs": 137,
        "execve": 59, "execveat": 322, "name_to_handle_at": 303, "mlock": 149, "mlock2": 325,
        "io_submit": 209, "io_uring_setup": 425,
    },
    0x40000003,
    (5, 295, 437),
)  # fmt: skip
_AARCH64: Final = Architecture(
    0xC00000B7,
    {
        "seccomp": 277, "kcmp": 272, "pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440,
        "openat": 56, "openat2": 437, "newfstatat": 79, "statx": 291,
        "faccessat": 48, "faccessat2": 439, "readlinkat": 78,
        "ioctl": 29, "mmap": 222, "munmap": 215, "madvise": 233,
        "msync": 227, "mremap": 216, "mincore": 232, "close": 57, "close_range": 436, "dup": 23, "dup3": 24,
        "fcntl": 25, "lseek": 62, "fstat": 80, "ftruncate": 46, "getdents64": 61,
        "chroot": 51, "pivot_root": 41, "unshare": 97, "setns": 268,
        "ppoll": 73, "pselect6": 72, "epoll_ctl": 21, "exit_group": 94,
        "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pwrite64": 68, "preadv": 69, "pwritev": 70,
        "preadv2": 286, "pwritev2": 287, "fsync": 82, "fdatasync": 83, "readahead": 213, "sync_file_range": 84,
        "fstatfs": 44, "truncate": 45, "fallocate": 47, "sendfile": 71, "splice": 76, "copy_file_range": 285,
        "tee": 77, "vmsplice": 75, "fadvise64": 223,
        "getxattr": 8, "lgetxattr": 9, "listxattr": 11, "llistxattr": 12,
        "fsetxattr": 7, "fgetxattr": 10, "flistxattr": 13, "fremovexattr": 16,
        "fchmod": 52, "fchown": 55, "utimensat": 88, "flock": 32,
        "setxattr": 5, "removexattr": 14, "statfs": 43,
        "execve": 221, "execveat": 281, "name_to_handle_at": 264, "mlock": 228, "mlock2": 284,
        "io_submit": 2, "io_uring_setup": 425,
    },
    0x40000028,
    (5, 322, 437),
)  # fmt: skip
ARCHITECTURES: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}

# linux/seccomp.h
SET_MODE_FILTER: Final = 1
FLAG_NEW_LISTENER: Final = 1 << 3
FLAG_WAIT_KILLABLE_RECV: Final = 1 << 5
RET_ALLOW: Final = 0x7FFF0000
RET_USER_NOTIF: Final = 0x7FC00000
NOTIF_RECV: Final = 0xC0502100
NOTIF_SEND: Final = 0xC0182101
NOTIF_ID_VALID: Final = 0x40082102
NOTIF_ADDFD: Final = 0x40182103
NOTIF_SET_FLAGS: Final = 0x40082104
FD_SYNC_WAKE_UP: Final = 1
"""The supervisor goes on where the caller has just stopped, on the same processor, and back again."""
USER_NOTIF_FLAG_CONTINUE: Final = 1
ADDFD_FLAG_SETFD: Final = 1
ADDFD_FLAG_SEND: Final = 2

NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif: id, pid, flags, then the call: nr, arch, instruction pointer, six arguments."""
RESPONSE: Final = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, val, error, flags."""
ADDFD: Final = struct.Struct("=QIIII")
"""struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags."""

# linux/prctl.h
PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38

ERESTARTSYS: Final = 512
"""The kernel's own answer of an interrupted sleep: it becomes EINTR, or the call again, as the handler's flags say."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def machine() -> Architecture | None:
    """The numbers of this machine; None where nobody has written them down."""
    return ARCHITECTURES.get(platform.machine()) if struct.calcsize("P") == 8 else None


def call(name: str, *arguments: int) -> int:
    """The system call *name* of this process; OSError with its errno."""
    here = machine()
    assert here is not None  # noqa: S101 - the command has asked
    result = _libc.syscall(ctypes.c_long(here.calls[name]), *map(ctypes.c_long, arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def prctl(option: int, value: int) -> None:
    """``prctl(2)`` with one argument; OSError with its errno."""
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
