"""Calls that dma-bufs, sync files and the device nodes have no code for, and the host's files that stand for them have:
read, write and their like. Each is refused as the kernel does, which looks at its arguments in this order.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.calls.metadata import DEVICE_OF_BUFFERS, DEVICE_OF_SYNC_FILES
from dmasync.harness.run.calls.paths import behind, numbered
from dmasync.harness.run.device_paths import HEAPS, UDMABUF
from dmasync.harness.run.open_files import Descriptor
from dmasync.harness.run.program import memory, processes
from dmasync.harness.run.program.python_stacks import PREFIX
from dmasync.harness.run.seccomp import numbers
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Handler, Supervisor

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import FakeSystem

_DMA_BUF_MAGIC: Final = 0x444D4142
_ANON_INODE_MAGIC: Final = 0x09041934
_SYNC_RANGE_FLAGS: Final = 7
_SPLICE_FLAGS: Final = 0xF
_STATFS: Final = struct.Struct("=qqQQQQQiiqqq4q")
_LONGEST_NAME: Final = 255
_SPACES: Final = (b"security", b"trusted", b"user")
_ACCESS_LISTS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")
_AT_FDCWD: Final = -100
_ST_VALID: Final = 0x20
"""In f_flags: they are filled in."""
_PAGE: Final = mmap.PAGESIZE


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class _File:
    """What the kernel knows of an open file when it is asked for bytes."""

    def __init__(self, run: Supervisor, known: Descriptor) -> None:
        system: FakeSystem = run.system  # type: ignore[assignment]  # only the filter for the fake stops such calls
        self.release = system.kernel.profile.release
        mode = int(system.kernel.fdinfo(known.fd)["flags"]) & os.O_ACCMODE
        is_place = known.file.kind == "place"
        self.reads = mode in (os.O_RDONLY, os.O_RDWR) and not is_place
        self.writes = mode in (os.O_WRONLY, os.O_RDWR) and not is_place
        self.has_positions = known.file.path == UDMABUF
        """Where the others are opened as streams: pread() is ESPIPE."""


def _signed(value: int) -> int:
    return ctypes.c_int64(value).value


def _read(file: _File, call: Notification) -> OSError:
    return _error(errno.EINVAL if file.reads else errno.EBADF)


def _write(file: _File, call: Notification) -> OSError:
    return _error(errno.EINVAL if file.writes else errno.EBADF)


def stream_error(run: Supervisor, known: Descriptor, *, writes: bool) -> OSError:
    """What reading or writing bytes of it fails with."""
    file = _File(run, known)
    return _error(errno.EINVAL if (file.writes if writes else file.reads) else errno.EBADF)


def _at_position(stream: Callable[[_File, Notification], OSError]) -> Callable[[_File, Notification], OSError]:
    def refuse(file: _File, call: Notification) -> OSError:
        if _signed(call.arguments[3]) < 0:
            return _error(errno.EINVAL)
        if not file.has_positions:
            return _error(errno.ESPIPE)
        return stream(file, call)

    return refuse


def _at_any_position(stream: Callable[[_File, Notification], OSError]) -> Callable[[_File, Notification], OSError]:
    positioned = _at_position(stream)
    return lambda file, call: (stream if _signed(call.arguments[3]) == -1 else positioned)(file, call)


def _sync(file: _File, call: Notification) -> OSError:
    return _error(errno.EINVAL)


def _sync_range(file: _File, call: Notification) -> OSError:
    _, offset, length, flags = map(_signed, call.arguments[:4])
    return _error(errno.EINVAL if flags & ~_SYNC_RANGE_FLAGS or offset < 0 or offset + length < 0 else errno.ESPIPE)


def _fallocate(file: _File, call: Notification) -> OSError:
    if _signed(call.arguments[2]) < 0 or _signed(call.arguments[3]) <= 0:
        return _error(errno.EINVAL)
    from dmasync.fakes.foreign.file_ranges import mode_error

    code = mode_error(call.arguments[1] & 0xFFFF_FFFF, file.release)
    if code:
        return _error(code)
    return _error(errno.ENODEV if file.writes else errno.EBADF)


def _handler(refuse: Callable[[_File, Notification], OSError]) -> Handler:
    def handle(run: Supervisor, call: Notification) -> Answer:
        known = run.find(call, call.arguments[0])
        if known is None or known.file.kind == "directory":
            return Said.CARRY_ON
        if known.file.kind == "place":
            raise _error(errno.EBADF)
        raise refuse(_File(run, known), call)

    return handle


def _sendfile(run: Supervisor, call: Notification) -> Answer:
    to, source = (run.find(call, number) for number in call.arguments[:2])
    if source is None and to is None:
        return Said.CARRY_ON
    if not _may(run, call, call.arguments[1], os.O_RDONLY):
        raise _error(errno.EBADF)
    number = _signed_number(call.arguments[1])
    is_stream = source is None and processes.is_stream(call.thread, number)
    positioned = _File(run, source).has_positions if source is not None else not is_stream
    if call.arguments[2] and not positioned:
        raise _error(errno.ESPIPE)
    if not _may(run, call, call.arguments[0], os.O_WRONLY):
        raise _error(errno.EBADF)
    if not call.arguments[3] and (source is None or source.file.kind == "dmabuf"):
        return 0
    position = struct.unpack("=q", memory.peek(call.thread, call.arguments[2], 8))[0] if call.arguments[2] else None
    if source is None and not is_stream and processes.is_at_end(call.thread, number, position):
        return 0
    raise _error(errno.EINVAL)


def _splice(run: Supervisor, call: Notification) -> Answer:
    source, to = run.find(call, call.arguments[0]), run.find(call, call.arguments[2])
    if (source is None and to is None) or not call.arguments[4]:
        return Said.CARRY_ON
    if call.arguments[5] & ~_SPLICE_FLAGS & 0xFFFF_FFFF:
        raise _error(errno.EINVAL)
    ends = ((call.arguments[0], call.arguments[1]), (call.arguments[2], call.arguments[3]))
    if not all(_is_there(run, call, number) for number, _ in ends):
        raise _error(errno.EBADF)
    if any(offset and run.find(call, number) is None and _is_pipe(call, number) for number, offset in ends):
        raise _error(errno.ESPIPE)
    modes = (os.O_RDONLY, os.O_WRONLY)
    is_good = all(_may(run, call, number, mode) for (number, _), mode in zip(ends, modes, strict=True))
    raise _error(errno.EINVAL if is_good else errno.EBADF)


def _is_there(run: Supervisor, call: Notification, number: int) -> bool:
    """Whether a descriptor is open, and no place's."""
    known = run.find(call, number)
    if known is not None:
        return known.file.kind != "place"
    number = _signed_number(number)
    return processes.is_open(call.thread, number) and not processes.is_place(call.thread, number)


def _may(run: Supervisor, call: Notification, number: int, mode: int) -> bool:
    """Whether a descriptor is open for reading, or for writing, which *mode* says; of ours or of the program's own."""
    known = run.find(call, number)
    if known is not None:
        return _File(run, known).reads if mode == os.O_RDONLY else _File(run, known).writes
    try:
        flags = processes.flags_of(call.thread, _signed_number(number))
    except OSError:
        return False
    return not flags & os.O_PATH and flags & os.O_ACCMODE in (mode, os.O_RDWR)


def _signed_number(value: int) -> int:
    return ctypes.c_int(value & 0xFFFF_FFFF).value


def _is_pipe(call: Notification, number: int) -> bool:
    try:
        return os.readlink(f"/proc/{call.thread}/fd/{number & 0xFFFF_FFFF}").startswith("pipe:")
    except OSError:
        return False


def _xattr(run: Supervisor, call: Notification, of_users: int, known: Descriptor | None) -> Answer:
    """An extended attribute: none of a dma-buf's or a sync file's; *of_users* is what is said to one in ``user.``."""
    if known is None or known.file.kind == "directory":
        return Said.CARRY_ON
    name = memory.peek(call.thread, call.arguments[1], _LONGEST_NAME + 1).partition(b"\0")[0]
    if not 0 < len(name) <= _LONGEST_NAME:
        return Said.CARRY_ON  # not there, or no name: the kernel says so whatever the file is
    if name.startswith(b"user.") and name != b"user.":
        raise _error(of_users)
    if known.file.path is not None:
        return Said.CARRY_ON
    raise _error(errno.EOPNOTSUPP)


def _of_a_descriptor(run: Supervisor, call: Notification) -> Descriptor | None:
    known = run.find(call, call.arguments[0])
    if known is not None and known.file.kind == "place":
        raise _error(errno.EBADF)
    return known


def _get_xattr(run: Supervisor, call: Notification) -> Answer:
    return _xattr(run, call, errno.ENODATA, _of_a_descriptor(run, call))


def _change_xattr(run: Supervisor, call: Notification) -> Answer:
    return _xattr(run, call, errno.EPERM, _of_a_descriptor(run, call))


def _list_xattr(run: Supervisor, call: Notification) -> Answer:
    return Said.CARRY_ON if _of_a_descriptor(run, call) is None else 0


def _change_by_name(run: Supervisor, call: Notification) -> Answer:
    """By the name of a descriptor in /proc; the nodes' own are the host's."""
    path = run.places.of_call(call.thread, _AT_FDCWD, call.arguments[0])
    known = numbered(run, call, path) if path is not None and path.startswith(("/proc/", "/dev/fd/")) else None
    return _xattr(run, call, errno.EPERM, known)


def _of_a_node(follow: bool, listed: bool) -> Handler:
    """An extended attribute that is asked for by a path; ``ls -l`` does that."""

    def handle(run: Supervisor, call: Notification) -> Answer:
        path = run.places.of_call(call.thread, _AT_FDCWD, call.arguments[0], follow=follow)
        if path is None:
            return _of_the_host(run, call, follow=follow, listed=listed)
        if run.places.fake and follow and path.startswith(("/proc/", "/dev/fd/")):
            known = numbered(run, call, path)
            if known is None or "/fdinfo/" in path:
                return Said.CARRY_ON
            return 0 if listed else _xattr(run, call, errno.ENODATA, known)
        if not run.places.fake or path.startswith(("/proc/", "/sys/", "/dev/fd/", PREFIX)):
            return Said.CARRY_ON
        if path.rstrip("/") != HEAPS or not run.places.heaps:
            run.places.need_node(path)
        if listed:
            return 0
        name = memory.string(call.thread, call.arguments[1], _LONGEST_NAME + 1)
        if not 0 < len(name) <= _LONGEST_NAME:
            raise _error(errno.ERANGE)
        raise _error(_without(name, is_folder=path.rstrip("/") == HEAPS))

    return handle


def _of_the_host(run: Supervisor, call: Notification, *, follow: bool, listed: bool) -> Answer:
    """Of what the host has at the end of a path through the heaps' folder, which it has not."""
    path = run.places.beyond(call.thread, _AT_FDCWD, call.arguments[0])
    if path is None:
        return Said.CARRY_ON
    where = f"/proc/{call.thread}/root{path}"
    if listed:
        data = b"".join(os.fsencode(name) + b"\0" for name in os.listxattr(where, follow_symlinks=follow))
    else:
        name = memory.string(call.thread, call.arguments[1], _LONGEST_NAME + 1)
        data = os.getxattr(where, name, follow_symlinks=follow)
    into, room = call.arguments[1:3] if listed else call.arguments[2:4]
    if room and len(data) > room:
        raise _error(errno.ERANGE)
    if room:
        memory.write(call.thread, into, data)
    return len(data)


def _without(name: bytes, *, is_folder: bool) -> int:
    """The errno of one of the device nodes' file system, which has no attribute *name*."""
    space, _, rest = name.partition(b".")
    if name in _ACCESS_LISTS:
        return errno.ENODATA
    if space not in _SPACES or b"." not in name:
        return errno.EOPNOTSUPP
    return errno.ENODATA if rest or (space == b"user" and not is_folder) else errno.EINVAL


def _tee(file: _File, call: Notification) -> OSError:
    return _error(errno.EINVAL if file.reads or call.arguments[3] & ~_SPLICE_FLAGS & 0xFFFF_FFFF else errno.EBADF)


def _vmsplice(file: _File, call: Notification) -> OSError:
    return _error(errno.EINVAL if call.arguments[3] & ~_SPLICE_FLAGS & 0xFFFF_FFFF else errno.EBADF)


def _fadvise(run: Supervisor, call: Notification) -> Answer:
    """Taken by all of them, and nothing comes of it; what stands for them is another kernel's, or a pipe."""
    known = run.find(call, call.arguments[0])
    if known is not None and known.file.kind == "place":
        raise _error(errno.EBADF)
    if known is None:
        return Said.CARRY_ON
    offset, length = map(_signed, call.arguments[1:3])
    from dmasync.fakes.foreign.file_ranges import advice_error

    code = advice_error(offset, length, call.arguments[3] & 0xFFFF_FFFF, _File(run, known).release)
    if code:
        raise _error(code)
    return 0


def _flock(run: Supervisor, call: Notification) -> Answer:
    known = run.find(call, call.arguments[0])
    if known is not None and known.file.kind == "place":
        raise _error(errno.EBADF)
    return Said.CARRY_ON


def _copy_file_range(run: Supervisor, call: Notification) -> Answer:
    """No bytes go to or come from a file of ours; where one is not open, that is said first."""
    both = call.arguments[0], call.arguments[2]
    if all(run.find(call, number) is None for number in both):
        return Said.CARRY_ON
    if not all(_is_there(run, call, number) for number in both):
        raise _error(errno.EBADF)
    raise _error(errno.EINVAL)


def _fstatfs(run: Supervisor, call: Notification) -> Answer:
    """By this a program tells a dma-buf from other files."""
    known = run.find(call, call.arguments[0])
    return Said.CARRY_ON if known is None else _file_system(call, known.file.path, behind(known).kind)


def _statfs(run: Supervisor, call: Notification) -> Answer:
    path = run.places.of_call(call.thread, _AT_FDCWD, call.arguments[0])
    if path is None or not run.places.fake or path.startswith(("/sys/", PREFIX)):
        return Said.CARRY_ON
    if path.startswith(("/proc/", "/dev/fd/")):
        known = None if "/fdinfo/" in path else numbered(run, call, path)
        return Said.CARRY_ON if known is None else _file_system(call, known.file.path, behind(known).kind)
    if path.rstrip("/") != HEAPS or not run.places.heaps:
        run.places.need_node(path)
    return _file_system(call, path, "")


def _file_system(call: Notification, path: str | None, kind: str) -> Answer:
    if path is not None:  # as it is mounted for the program
        where = ctypes.create_string_buffer(os.fsencode(f"/proc/{call.thread}/root/dev"))
        found = ctypes.create_string_buffer(_STATFS.size)
        numbers.call("statfs", ctypes.addressof(where), ctypes.addressof(found))
        packed = found.raw
    else:
        magic = _ANON_INODE_MAGIC if kind == "sync_file" else _DMA_BUF_MAGIC
        device = DEVICE_OF_SYNC_FILES if kind == "sync_file" else DEVICE_OF_BUFFERS
        packed = _STATFS.pack(magic, _PAGE, 0, 0, 0, 0, 0, device, 0, _LONGEST_NAME, _PAGE, _ST_VALID, 0, 0, 0, 0)
    memory.write(call.thread, call.arguments[1], packed)
    return 0


HANDLERS: Final[dict[str, Handler]] = {
    **{name: _handler(_read) for name in ("read", "readv", "readahead")},
    **{name: _handler(_write) for name in ("write", "writev")},
    "tee": _handler(_tee),
    "vmsplice": _handler(_vmsplice),
    "fadvise64": _fadvise,
    "fgetxattr": _get_xattr,
    "fsetxattr": _change_xattr,
    "fremovexattr": _change_xattr,
    "flistxattr": _list_xattr,
    **dict.fromkeys(("setxattr", "removexattr"), _change_by_name),
    "flock": _flock,
    "statfs": _statfs,
    "getxattr": _of_a_node(follow=True, listed=False),
    "lgetxattr": _of_a_node(follow=False, listed=False),
    "listxattr": _of_a_node(follow=True, listed=True),
    "llistxattr": _of_a_node(follow=False, listed=True),
    **{name: _handler(_at_position(_read)) for name in ("pread64", "preadv")},
    **{name: _handler(_at_position(_write)) for name in ("pwrite64", "pwritev")},
    "preadv2": _handler(_at_any_position(_read)),
    "pwritev2": _handler(_at_any_position(_write)),
    **{name: _handler(_sync) for name in ("fsync", "fdatasync")},
    "sync_file_range": _handler(_sync_range),
    "fallocate": _handler(_fallocate),
    "sendfile": _sendfile,
    "splice": _splice,
    "copy_file_range": _copy_file_range,
    "fstatfs": _fstatfs,
}
