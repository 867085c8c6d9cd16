"""Which system calls of the program stop and wait for an answer; all others cost next to nothing."""

from __future__ import annotations

import ctypes
import fcntl
from typing import Final

from dmasync.harness.run.seccomp import bpf, numbers

IOCTL_TYPES: Final = b"bHu>"
"""The type bytes of dma-buf, dma-heap, udmabuf and sync-file requests."""
_OF_FILES: Final = 0x94
"""The type byte of FICLONE, whose argument may be a buffer's descriptor."""
_X32: Final = 0x40000000
_MAP_SHARED: Final = 0x01
_MAP_ANONYMOUS: Final = 0x20
_AT_EMPTY_PATH: Final = 0x1000
_NEGATIVE: Final = 0x80000000
_DUPLICATE: Final = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC)
_OF_A_FILE: Final = (fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_SETLEASE, fcntl.F_SETPIPE_SZ, fcntl.F_GETPIPE_SZ)
"""Commands of fcntl to which the host's file would say something else."""
_LOCKS: Final = (5, 6, 7, 36, 37, 38)
"""F_GETLK, F_SETLK, F_SETLKW and the same of open files, as 64-bit programs number them (asm-generic/fcntl.h)."""
_OF_NO_PLACE: Final = (fcntl.F_SETOWN, fcntl.F_GETOWN, fcntl.F_SETSIG, fcntl.F_GETSIG, 15, 16, fcntl.F_GETLEASE)
"""Of each open file, but of none that was opened with O_PATH; 15 and 16 are F_SETOWN_EX and F_GETOWN_EX."""
_BY_PATH: Final = (
    "open", "creat", "openat", "openat2", "stat", "lstat", "access", "faccessat", "faccessat2", "readlink",
    "readlinkat",
)  # fmt: skip
_OF_THE_ROOT: Final = ("chroot", "pivot_root", "unshare", "setns")
_BY_DESCRIPTOR: Final = ("close", "dup", "lseek", "fstat", "getdents64")
_OF_BYTES: Final = (
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "readahead",
    "tee", "vmsplice", "fadvise64", "fsetxattr", "fgetxattr", "flistxattr", "fremovexattr",
    "fchmod", "fchown", "utimensat", "flock",
)  # fmt: skip
"""Calls that the host's file would answer, and a dma-buf refuses."""
_OF_ANY: Final = ("dup", "fstat", "fstatfs", "fallocate", "fsync", "fdatasync", "sync_file_range")
"""Calls that are rare enough to stop for the low numbers, too, that descriptors have after dup2() or from a socket."""
_OF_SEVERAL: Final = ("epoll_ctl", "sendfile", "splice", "copy_file_range", "io_submit")
_ATTRIBUTES: Final = (
    "getxattr", "lgetxattr", "listxattr", "llistxattr", "setxattr", "removexattr",
)  # fmt: skip
_RARE: Final = ("truncate", "statfs", "execve", "execveat", "name_to_handle_at", "mlock", "mlock2", "process_madvise")
_ADVICE: Final = (0, 1, 2, 4, 9, 10, 11, 14, 15, 16, 17, 20, 21, 22, 23, 24, 25, 102, 103)
"""MADV_DONTNEED, REMOVE, DOFORK, DODUMP, COLD, PAGEOUT, POPULATE_READ and WRITE, DONTNEED_LOCKED, COLLAPSE,
GUARD_INSTALL and REMOVE: a mapping of a dma-buf refuses them, one of a memfd does not. NORMAL, RANDOM, SEQUENTIAL,
DONTFORK, HUGEPAGE, NOHUGEPAGE and DONTDUMP split it otherwise.
"""
_MS_SYNC: Final = 4
_SEEK_SET: Final = 0
_WAITING: Final = ("poll", "ppoll", "select", "pselect6")


def build(
    machine: numbers.Architecture, base: int, *, fake: bool = True, waiting: bool = False, ends: bool = False
) -> ctypes.Array[bpf.Instruction]:
    """The filter. Calls that take a descriptor stop for numbers from *base* up, ioctl and mmap for any that may be a
    dma-buf's; with *fake* those stop, too, that a file of the host's would answer otherwise than the fake's; with
    *waiting* all calls of the poll family do, with *ends* the end of a process does.
    """
    places = {
        "ioctl": "ioctl", "mmap": "mmap", "fcntl": "fcntl", "newfstatat": "newfstatat", "statx": "statx",
        "close_range": "range", "epoll_ctl": "third", "io_uring_setup": "stop", "seccomp": "seccomp",
        **dict.fromkeys(_BY_DESCRIPTOR, "descriptor"),
        "ftruncate": "any descriptor", **dict.fromkeys((*_BY_PATH, *_OF_THE_ROOT), "stop"),
        # dup2(low, high) puts another file in the place of ours: both numbers count.
        "dup2": "two descriptors", "dup3": "two descriptors",
    }  # fmt: skip
    if fake:
        places |= dict.fromkeys(_OF_BYTES, "descriptor") | dict.fromkeys(_OF_ANY, "any descriptor")
        places |= dict.fromkeys(_OF_SEVERAL, "stop") | {"lseek": "lseek"}
        places |= {"madvise": "madvise", "msync": "msync", "mremap": "stop", "mincore": "stop"}
        places |= dict.fromkeys((*_RARE, *_ATTRIBUTES, "newfstatat", "statx"), "stop")
    places |= dict.fromkeys(_WAITING, "stop") if waiting else {}
    places |= {"exit_group": "stop"} if ends else {}
    program = bpf.Program()
    program.load(bpf.ARCHITECTURE_AT)
    program.if_equal(machine.audit, None, "another architecture")
    program.load(bpf.NUMBER_AT)
    if "open" in machine.calls:
        program.if_at_least(_X32, "allow")
    program.choose({machine.calls[name]: place for name, place in places.items() if name in machine.calls}, "allow")
    _ioctl(program, base)
    _mmap(program, base)
    _fcntl(program, fake=fake)
    program.place("madvise")
    program.load(bpf.argument_at(2))
    program.choose(dict.fromkeys(_ADVICE, "stop"), "allow")
    program.place("msync")
    program.load(bpf.argument_at(2))
    program.if_any_bit(_MS_SYNC, "stop", "allow")
    program.place("newfstatat")
    program.load(bpf.argument_at(3))
    program.if_any_bit(_AT_EMPTY_PATH, "descriptor", "stop")
    program.place("statx")
    program.load(bpf.argument_at(2))
    program.if_any_bit(_AT_EMPTY_PATH, "descriptor", "stop")
    program.place("seccomp")
    program.load(bpf.argument_at(1))
    program.if_any_bit(numbers.FLAG_NEW_LISTENER, "stop", "allow")
    program.place("range")
    program.load(bpf.argument_at(1))
    program.if_at_least(base, "stop", "allow")
    program.place("third")
    program.load(bpf.argument_at(2))
    program.if_at_least(_NEGATIVE, "allow")
    program.if_at_least(base, "stop", "allow")
    program.place("lseek")
    program.load(bpf.argument_at(2))
    program.if_equal(_SEEK_SET, "descriptor", "any descriptor")
    program.place("two descriptors")
    program.load(bpf.argument_at(1))
    program.if_at_least(_NEGATIVE, "descriptor")
    program.if_at_least(base, "stop")
    program.place("descriptor")
    program.load(bpf.argument_at(0))
    program.if_at_least(_NEGATIVE, "allow")
    program.if_at_least(base, "stop", "allow")
    program.place("any descriptor")
    program.load(bpf.argument_at(0))
    program.if_at_least(_NEGATIVE, "allow", "stop")
    program.place("allow")
    program.give(numbers.RET_ALLOW)
    program.place("stop")
    program.give(numbers.RET_USER_NOTIF)
    # A 32-bit program is only told of: by its first file, which is its C library's or its own.
    program.place("another architecture")
    program.if_equal(machine.audit_of_32_bits, None, "go by")
    program.load(bpf.NUMBER_AT)
    for number in machine.opens_of_32_bits:
        program.if_equal(number, "tell")
    program.place("go by")
    program.give(numbers.RET_ALLOW)
    program.place("tell")
    program.give(numbers.RET_USER_NOTIF)
    return program.assemble()


def _ioctl(program: bpf.Program, base: int) -> None:
    program.place("ioctl")
    program.load(bpf.argument_at(1))
    program.shift_right(8)
    program.mask(0xFF)
    for kind in (*IOCTL_TYPES, _OF_FILES):
        program.if_equal(kind, "stop")
    program.load(bpf.argument_at(0))
    program.if_at_least(_NEGATIVE, "allow")
    program.if_at_least(base, "stop", "allow")


def _mmap(program: bpf.Program, base: int) -> None:
    """Shared mappings of files: a dma-buf that came over a socket has a low number."""
    program.place("mmap")
    program.load(bpf.argument_at(3))
    program.if_any_bit(_MAP_ANONYMOUS, "allow")
    program.load(bpf.argument_at(4))
    program.if_at_least(_NEGATIVE, "allow")
    program.if_at_least(base, "stop")
    program.load(bpf.argument_at(3))
    program.if_any_bit(_MAP_SHARED, "stop", "allow")


def _fcntl(program: bpf.Program, *, fake: bool) -> None:
    program.place("fcntl")
    program.load(bpf.argument_at(1))
    program.if_equal(fcntl.F_ADD_SEALS, "stop")  # also of a memfd, which a udmabuf may hold pages of
    for command in (*_DUPLICATE, *((fcntl.F_GET_SEALS, *_OF_A_FILE) if fake else ())):
        program.if_equal(command, "any descriptor" if fake else "descriptor")
    for command in (*_LOCKS, *_OF_NO_PLACE) if fake else ():
        program.if_equal(command, "descriptor")  # those of other files are many
    program.give(numbers.RET_ALLOW)
