"""Calls that dma-bufs, sync files and device nodes have little to do with: ask a kernel all of them, and compare.

    python -m tests.conformance.calls [--write FILE | --against FILE]

A program like any other: on a real kernel it asks that kernel, under ``dmasync run`` the fake. With ``--write`` the
answers go to FILE, as JSON under xz; with ``--against`` those in FILE are compared, and exit status 1 says that some
differ. What Linux 6.12 said is in ``recorded/``; ``KNOWN`` has where ``dmasync run`` says otherwise, and why.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import fnmatch
import json
import lzma
import os
import select
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
KNOWN: Final = {
    "* | ioctl FICLONE*": "the descriptor in the argument is not looked up",
    "*dev* | ioctl FS_IOC_GETFSUUID": "drawn at random on every boot",
    "* | poll all": "the host's file is ready for POLLRDNORM and POLLWRNORM, too",
}
"""Patterns of "file | call" for which ``dmasync run`` answers otherwise than Linux 6.12, with the reason."""

_libc = ctypes.CDLL(None, use_errno=True)
_I64 = ctypes.c_int64
_libc.lseek.restype = _I64
for _function in ("read", "write", "pread", "pwrite", "readv", "writev", "sendfile", "splice", "tee", "vmsplice",
              "copy_file_range", "readahead", "preadv2", "pwritev2", "fgetxattr", "flistxattr"):  # fmt: skip
    getattr(_libc, _function).restype = ctypes.c_ssize_t
_INT = ctypes.c_int
_ALL_EVENTS = 0x7FFF & ~select.POLLNVAL
_LOCK = struct.Struct("=hhxxxxqqixxxx")

Answer = str
Question = tuple[str, Callable[[int], Answer]]


def said(result: int) -> Answer:
    """A call's result, or its errno's name."""
    return errno.errorcode[ctypes.get_errno()] if result < 0 else str(result)


def call(name: str, *arguments: object) -> Callable[[int], Answer]:
    """A function of the C library that takes a descriptor first; numbers go as 64 bits, bytes as a pointer."""
    passed = [_I64(argument) if isinstance(argument, int) else argument for argument in arguments]
    return lambda fd: said(getattr(_libc, name)(_INT(fd), *passed))


def _name(name: str, arguments: tuple[object, ...]) -> str:
    return (
        f"{name}({', '.join(str(a) if isinstance(a, int) else f'{len(a)} bytes' for a in arguments if a is not None)})"  # type: ignore[arg-type]
    )


class Helpers:
    """Files of the program's own that the calls with two descriptors need."""

    def __init__(self) -> None:
        self.file = os.memfd_create("other", 0)
        os.write(self.file, b"x" * 100)
        os.lseek(self.file, 0, os.SEEK_SET)
        self.reader, self.writer = os.pipe()
        os.write(self.writer, b"hello")
        self.room = ctypes.create_string_buffer(64)
        self.vector = struct.pack("=QQ", ctypes.addressof(self.room), 4)


def files() -> dict[str, int]:
    """One of each kind, by its name."""
    memfd = os.memfd_create("frames", os.MFD_ALLOW_SEALING)
    os.ftruncate(memfd, 2 * PAGE)
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    found = {"udmabuf dev": os.open("/dev/udmabuf", os.O_RDWR), "heap dev": os.open("/dev/dma_heap/system", os.O_RDWR)}
    create = bytearray(struct.pack("=IIQQ", memfd, 1, 0, 2 * PAGE))
    found["udmabuf"] = fcntl.ioctl(found["udmabuf dev"], 0x40187542, create)
    for name, flags in (("heap buffer", os.O_RDWR), ("reader", os.O_RDONLY), ("writer", os.O_WRONLY)):
        allocate = bytearray(struct.pack("=QIIQ", 2 * PAGE, 0, flags | os.O_CLOEXEC, 0))
        fcntl.ioctl(found["heap dev"], 0xC0184800, allocate)
        found[name] = struct.unpack_from("=I", allocate, 8)[0]
    export = bytearray(struct.pack("=Ii", 3, -1))
    fcntl.ioctl(found["udmabuf"], 0xC0086202, export)
    found["sync file"] = struct.unpack("=Ii", export)[1]
    return found


def simple() -> Iterator[Question]:
    """Calls with one descriptor, whose answer is a number."""
    data, vector = bytes(8), Helpers().vector
    table: list[tuple[object, ...]] = []
    for length in (0, 4):
        table += [("read", data, length), ("write", data, length)]
        table += [(name, data, length, offset) for name in ("pread", "pwrite") for offset in (0, 8, -1)]
    for parts in (0, 1):
        table += [("readv", vector, parts), ("writev", vector, parts)]
        table += [
            (name, vector, parts, at, flags)
            for name in ("preadv2", "pwritev2")
            for at in (0, -1)
            for flags in (0, 1, 8)
        ]
    for offset, whence in (
        *((0, whence) for whence in range(-1, 6)), (1, 0), (1, 1), (1, 2), (1, 3), (-1, 0), (-1, 1), (-1, 2), (-1, 3),
        (-1, 4), (2 * PAGE, 0), (2 * PAGE, 3), (2 * PAGE, 4), (1 << 62, 0),
    ):  # fmt: skip
        table.append(("lseek", offset, whence))
    table += [("ftruncate", length) for length in (0, PAGE, -1, 1 << 62)]
    table += [
        ("fallocate", mode, at, length)
        for mode in (0, 1, 2, 3, 4, 8, 16, 32, 64, 256)
        for at, length in ((0, PAGE), (-1, PAGE), (0, 0), (0, 1 << 62))
    ]
    table += [("readahead", at, PAGE) for at in (0, -1)]
    table += [("posix_fadvise", 0, PAGE, advice) for advice in (0, 1, 2, 3, 4, 5, 6, 99)] + [
        ("posix_fadvise", 0, -1, 0)
    ]
    table += [(name,) for name in ("fsync", "fdatasync", "syncfs", "fchdir")]
    table += [
        ("sync_file_range", *rest) for rest in ((0, PAGE, 0), (0, PAGE, 7), (0, PAGE, 8), (-1, PAGE, 1), (0, -1, 1))
    ]
    table += [("vmsplice", vector, 1, flags) for flags in (0, 99)]
    table += [("flock", operation) for operation in (5, 8, 6, 8, 0, 4, 16, 3)]
    table += [("fchmod", mode) for mode in (0o644, 0o4755, 0o600)] + [("fchown", -1, -1), ("listen", 1)]
    table += [("fgetxattr", name, None, 0) for name in (b"user.x\0", b"security.x\0", b"system.x\0", b"none\0")]
    table += [("fremovexattr", b"user.x\0"), ("fremovexattr", b"security.x\0"), ("flistxattr", None, 0)]
    for name, *arguments in table:
        yield _name(str(name), tuple(arguments)), call(str(name), *arguments)


def with_another(helpers: Helpers) -> Iterator[Question]:
    """Calls with two descriptors."""
    file, reader, writer = helpers.file, helpers.reader, helpers.writer
    offset = struct.pack("=q", 0)

    def sendfile(to: int, source: int, at: bytes | None, count: int) -> Answer:
        os.lseek(file, 0, os.SEEK_SET)
        return said(_libc.sendfile(to, source, at, _I64(count)))

    def splice(
        source: int, source_at: bytes | None, to: int, to_at: bytes | None, count: int, flags: int = 2
    ) -> Answer:
        return said(_libc.splice(source, source_at, to, to_at, _I64(count), flags))

    def copy(source: int, to: int, count: int, flags: int = 0) -> Answer:
        return said(_libc.copy_file_range(source, None, to, None, _I64(count), flags))

    def of_count(count: int) -> Iterator[Question]:
        yield f"sendfile {count} from it", lambda fd: sendfile(file, fd, None, count)
        yield f"sendfile {count} to it", lambda fd: sendfile(fd, file, None, count)
        yield f"splice {count} from it", lambda fd: splice(fd, None, writer, None, count)
        yield f"splice {count} to it", lambda fd: splice(reader, None, fd, None, count)
        yield f"copy {count} from it", lambda fd: copy(fd, file, count)
        yield f"copy {count} to it", lambda fd: copy(file, fd, count)

    yield from of_count(0)
    yield from of_count(4)
    yield "sendfile from it, with an offset", lambda fd: sendfile(file, fd, offset, 4)
    yield "sendfile to it, with an offset", lambda fd: sendfile(fd, file, offset, 4)
    yield "sendfile from it to a pipe", lambda fd: sendfile(writer, fd, None, 4)
    yield "sendfile to itself", lambda fd: sendfile(fd, fd, None, 4)
    yield "splice from it, with an offset", lambda fd: splice(fd, offset, writer, None, 4)
    yield "splice to it, with an offset", lambda fd: splice(reader, None, fd, offset, 4)
    yield "splice to it, with an offset into the pipe", lambda fd: splice(reader, offset, fd, None, 4)
    yield "splice from it, with a flag that is none", lambda fd: splice(fd, None, writer, None, 4, 0x100)
    yield "copy to itself", lambda fd: copy(fd, fd, 4)
    yield "copy with a flag", lambda fd: copy(fd, file, 4, 1)
    yield "tee from it", lambda fd: said(_libc.tee(fd, writer, _I64(4), 2))
    yield "tee to it", lambda fd: said(_libc.tee(reader, fd, _I64(4), 2))


def by_fcntl() -> Iterator[Question]:
    """Commands of fcntl."""

    def number(command: int, argument: int) -> Callable[[int], Answer]:
        return lambda fd: said(_libc.fcntl(fd, command, _I64(argument)))

    def set_flags(flags: int) -> Callable[[int], Answer]:
        def ask(fd: int) -> Answer:
            before = fcntl.fcntl(fd, fcntl.F_GETFL)
            answer = said(_libc.fcntl(fd, fcntl.F_SETFL, _I64(flags)))
            after = fcntl.fcntl(fd, fcntl.F_GETFL)
            fcntl.fcntl(fd, fcntl.F_SETFL, before)
            return f"{answer}, then {after:o}"

        return ask

    def lock(command: int, kind: int, whence: int, start: int = 0, length: int = 0) -> Callable[[int], Answer]:
        def ask(fd: int) -> Answer:
            room = ctypes.create_string_buffer(_LOCK.pack(kind, whence, start, length, 0), _LOCK.size)
            answer = said(_libc.fcntl(fd, command, room))
            return f"{answer}, {_LOCK.unpack(room.raw)[0]}" if answer == "0" else answer

        return ask

    for flags in (
        0,
        os.O_NONBLOCK,
        os.O_APPEND,
        os.O_ASYNC,
        os.O_DIRECT,
        os.O_NOATIME,
        os.O_RDWR,
        os.O_SYNC,
        0o10000000,
    ):
        yield f"F_SETFL {flags:o}", set_flags(flags)
    for command, arguments in {
        "F_GETFD": (0,), "F_GETFL": (0,), "F_GETOWN": (0,), "F_SETOWN": (0, 0x7FFF_FFFF), "F_GETSIG": (0,),
        "F_SETSIG": (0, 10, 65, -1, 0), "F_GETLEASE": (0,), "F_SETLEASE": (0, 1, 2, 7), "F_NOTIFY": (0, 1),
        "F_SETPIPE_SZ": (0, PAGE), "F_GETPIPE_SZ": (0,), "F_ADD_SEALS": (0, 1, 8), "F_GET_SEALS": (0,),
        "F_DUPFD": (-1, 1 << 30), "F_DUPFD_CLOEXEC": (-1, 1 << 30),
    }.items():  # fmt: skip
        for argument in arguments:
            yield f"{command} {argument}", number(getattr(fcntl, command), argument)
    for unknown in (13, 100, -1):
        yield f"fcntl {unknown}", number(unknown, 0)
    for locking, setter, asked in (
        ("F_GETLK", 6, 5),
        ("F_SETLK", 6, 6),
        ("F_OFD_GETLK", 37, 36),
        ("F_OFD_SETLK", 37, 37),
    ):
        for kind in (0, 1, 3, 2):
            for whence in (0, 1, 2):
                yield f"{locking} {kind} whence {whence}", lock(asked, kind, whence)
        yield f"{locking} before the file", lock(asked, 0, 0, -1)
        yield f"{locking} some bytes", lock(asked, 0, 0, 10, 20)
        yield f"{locking} unlock", lock(setter, 2, 0)


def by_ioctl() -> Iterator[Question]:
    """Requests of the VFS and of others, and those of the drivers with another size or direction."""

    def ask(request: int, argument: bytes) -> Callable[[int], Answer]:
        def asked(fd: int) -> Answer:
            room = ctypes.create_string_buffer(argument, max(len(argument), 1))
            answer = said(_libc.ioctl(fd, ctypes.c_ulong(request), room))
            return f"{answer}, {room.raw[:8].hex()}" if answer == "0" and request >> 8 & 0xFF == 0x54 else answer

        return asked

    yes, zero = b"\1\0\0\0", bytes(64)
    for name, request, argument in (
        ("FIONREAD", 0x541B, zero), ("FIONBIO on", 0x5421, yes), ("FIONBIO off", 0x5421, zero),
        ("FIOASYNC on", 0x5452, yes), ("FIOASYNC off", 0x5452, zero), ("FIOQSIZE", 0x5460, zero), ("FIGETBSZ", 2, zero),
        ("FIBMAP", 1, zero), ("FS_IOC_GETFLAGS", 0x80086601, zero), ("FS_IOC_SETFLAGS", 0x40086602, zero),
        ("FS_IOC_FSGETXATTR", 0x801C581F, zero), ("FS_IOC_FSSETXATTR", 0x401C5820, zero),
        ("FS_IOC_GETVERSION", 0x80087601, zero), ("FS_IOC_FIEMAP", 0xC020660B, zero),
        ("FIDEDUPERANGE", 0xC0189436, zero), ("FICLONE", 0x40049409, zero), ("FS_IOC_GETFSUUID", 0x80111500, zero),
        ("TCGETS", 0x5401, zero),
        ("TIOCGWINSZ", 0x5413, zero), ("BLKGETSIZE64", 0x80081272, zero), ("SIOCGIFCONF", 0x8912, zero), ("0", 0, zero),
        ("-1", 0xFFFF_FFFF, zero), ("FS_IOC_RESVSP", 0x40305828, zero), ("FS_IOC_GETFSLABEL", 0x81009431, bytes(256)),
    ):  # fmt: skip
        yield f"ioctl {name}", ask(request, argument)
    for letter, numbers, sizes in ((0x62, 6, (0, 4, 8, 16, 64)), (0x3E, 7, (0, 16, 48, 56)), (0x75, 0x45, (8, 24))):
        for number in range(0x41 if letter == 0x75 else 0, numbers):
            for size in sizes:
                for direction in range(4):
                    request = direction << 30 | size << 16 | letter << 8 | number
                    yield f"ioctl {letter:x} {number} of {size} bytes, {direction}", ask(request, bytes(96))


def about() -> Iterator[Question]:
    """What a file is, and its places in /proc."""

    def attempt(function: Callable[[int], object]) -> Callable[[int], Answer]:
        def ask(fd: int) -> Answer:
            try:
                return str(function(fd))
            except OSError as failure:
                return errno.errorcode[failure.errno or 0]

        return ask

    def state(fd: int) -> tuple[object, ...]:
        found = os.fstat(fd)
        size = (found.st_nlink, found.st_size, found.st_blksize, found.st_blocks)
        return size if found.st_rdev else (oct(found.st_mode), *size, found.st_mtime > 1e6)

    def open_place(place: str, flags: int) -> Callable[[int], object]:
        return lambda fd: os.close(os.open(place.format(fd), flags))

    def polled(fd: int, events: int) -> list[str]:
        poll = select.poll()
        poll.register(fd, events)
        return [hex(got) for _, got in poll.poll(0)]

    def epolled(events: int) -> Callable[[int], list[int]]:
        def ask(fd: int) -> list[int]:
            with select.epoll() as epoll:
                epoll.register(fd, events)
                return [got for _, got in epoll.poll(0)]

        return ask

    yield "fstat", attempt(state)
    yield "readlink", attempt(lambda fd: os.readlink(f"/proc/self/fd/{fd}"))
    yield "access", attempt(lambda fd: [os.access(f"/proc/self/fd/{fd}", mode) for mode in (4, 2, 1)])
    yield "truncate by its place", attempt(lambda fd: os.truncate(f"/proc/self/fd/{fd}", 0))
    yield "list", attempt(lambda fd: os.listdir(f"/proc/self/fd/{fd}"))
    yield "statvfs", attempt(lambda fd: os.statvfs(f"/proc/self/fd/{fd}").f_bsize)
    yield "open below it", attempt(lambda fd: os.close(os.open("x", os.O_RDONLY, dir_fd=fd)))
    for place in ("/proc/self/fd/{}", "/dev/fd/{}", "/proc/thread-self/fd/{}"):
        for flags in (
            os.O_RDWR,
            os.O_PATH,
            os.O_DIRECTORY,
            os.O_NOFOLLOW,
            os.O_PATH | os.O_NOFOLLOW,
            os.O_RDWR | os.O_TRUNC,
        ):
            yield f"open {place} {flags:o}", attempt(open_place(place, flags))
    yield "poll", attempt(lambda fd: polled(fd, select.POLLIN | select.POLLOUT | select.POLLPRI))
    yield "poll all", attempt(lambda fd: polled(fd, _ALL_EVENTS))
    for events in (0, 1, 4, 5, 1 | 1 << 31):
        yield f"epoll {events:x}", attempt(epolled(events))


def ask_all() -> dict[str, Answer]:
    """Every answer, by "file | call"; a call that is asked more than once counts on."""
    answers: dict[str, Answer] = {}
    for kind, fd in files().items():
        for question, ask in (*simple(), *with_another(Helpers()), *by_fcntl(), *by_ioctl(), *about()):
            if "dev" in kind and question.startswith(("fchmod", "fchown")):
                continue  # the machine's own node
            key, times = f"{kind} | {question}", 1
            while key in answers:
                times += 1
                key = f"{kind} | {question} #{times}"
            answers[key] = ask(fd)
    return answers


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.calls", description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    answers = ask_all()
    if options.write is not None:
        options.write.write_bytes(lzma.compress(json.dumps(answers).encode()))
    if options.against is None:
        print(f"{len(answers)} asked")
        return 0
    recorded = json.loads(lzma.decompress(options.against.read_bytes()))
    differ = [key for key in {**recorded, **answers} if recorded.get(key) != answers.get(key)]
    unknown = [key for key in differ if not any(fnmatch.fnmatchcase(key, pattern) for pattern in KNOWN)]
    print(
        *(f"{key}: {recorded.get(key)}, here {answers.get(key)}" for key in unknown),
        sep="\n",
        end="\n" if unknown else "",
    )
    print(f"{len(answers)} asked, {len(differ) - len(unknown)} known to differ, {len(unknown)} differ otherwise")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
