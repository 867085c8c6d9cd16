"""Calls that name a file: open, access, readlink; and reading the folder of the heaps."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.device_paths import HEAPS, PARAMETERS, RESOLVE_BENEATH, RESOLVE_IN_ROOT
from dmasync.harness.run.open_files import Descriptor
from dmasync.harness.run.program import memory, processes
from dmasync.harness.run.program.python_stacks import PREFIX
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

_AT_FDCWD: Final = -100
_OPEN_HOW: Final = struct.Struct("=QQQ")
_DIRENT: Final = struct.Struct("=QqHB")
_CHANGEABLE: Final = os.O_NONBLOCK | os.O_APPEND | os.O_NOATIME
_OPEN_FLAGS: Final = 0o37777703
"""Those that openat2() takes; open() ignores the others."""
_RESOLVE: Final = 0x3F
_PAGE: Final = 4096
FIRST_NODE: Final = 1000
"""The inode of the first device node; of the next one it is one more."""
_ANONYMOUS: Final = 20
_DT_CHR: Final = 2
_DT_DIR: Final = 4


def _open(run: Supervisor, call: Notification) -> Answer:
    return open_path(run, call, _AT_FDCWD, call.arguments[0], call.arguments[1])


def _creat(run: Supervisor, call: Notification) -> Answer:
    return open_path(run, call, _AT_FDCWD, call.arguments[0], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)


def _openat(run: Supervisor, call: Notification) -> Answer:
    return open_path(run, call, call.arguments[0], call.arguments[1], call.arguments[2])


def _openat2(run: Supervisor, call: Notification) -> Answer:
    folder, address, how, size = call.arguments[:4]
    try:
        flags, mode, resolve = _OPEN_HOW.unpack(memory.read(call.thread, how, _OPEN_HOW.size))
        rest = memory.read(call.thread, how + _OPEN_HOW.size, min(max(0, size - _OPEN_HOW.size), _PAGE))
    except OSError:
        return Said.CARRY_ON
    makes = flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY)
    unknown = flags & ~_OPEN_FLAGS or resolve & ~_RESOLVE or (mode and not makes)
    unknown = unknown or (resolve & RESOLVE_BENEATH and resolve & RESOLVE_IN_ROOT)
    if unknown or size < _OPEN_HOW.size or rest.strip(b"\0"):
        return Said.CARRY_ON  # refused by the kernel before it looks at the path
    if resolve and not run.places.fake:
        return Said.CARRY_ON
    if resolve & RESOLVE_IN_ROOT:
        path = run.places.of_root(call.thread, folder, address)
        return Said.CARRY_ON if path is None else _open_named(run, call, path, ctypes.c_int(flags & 0xFFFF_FFFF).value)
    run.places.refuse_to_lead(call.thread, folder, address, resolve)
    return open_path(run, call, folder, address, flags)


def open_path(run: Supervisor, call: Notification, folder: int, address: int, flags: int) -> Answer:
    """``open(2)``, whichever of its forms."""
    places = run.places
    flags = ctypes.c_int(flags & 0xFFFF_FFFF).value
    path = places.of_call(call.thread, folder, address, follow=not flags & os.O_NOFOLLOW)
    if path is None:
        return Said.CARRY_ON
    if path.startswith(PREFIX):
        run.python_stacks.announced(call.process, path)
        return Said.CARRY_ON
    if path.startswith(("/proc/", "/dev/fd/")):
        return _open_by_number(run, call, path, flags)
    return _open_named(run, call, path, flags)


def _open_named(run: Supervisor, call: Notification, path: str, flags: int) -> Answer:
    """``open(2)`` of a node, their folder or a module's parameter."""
    places = run.places
    if path.rstrip("/") == HEAPS and not places.fake:
        return Said.CARRY_ON
    if path.startswith(PARAMETERS + "/"):
        return _open_parameter(run, call, path, flags) if places.fake else Said.CARRY_ON
    return open_node(run, call, path, flags)


def open_node(run: Supervisor, call: Notification, path: str, flags: int) -> Answer:
    """``open(2)`` of a device node, or of the folder of the heaps."""
    if not run.system.is_fake:
        if flags & os.O_PATH:
            return Said.CARRY_ON  # nothing can be done with it but to open it again
        run.need_number(call)  # the fake asks for itself
    if path in run.places.denied and not flags & os.O_PATH:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    fd = run.system.backend.open(path, flags)
    return _hand_over(run, call, fd, flags, path.rstrip("/"))


def _hand_over(run: Supervisor, call: Notification, fd: int, flags: int, path: str | None) -> Answer:
    run.hand_over(call, fd, close_on_exec=bool(flags & os.O_CLOEXEC), answer=True, path=path)
    return Said.SENT


def numbered(run: Supervisor, call: Notification, path: str) -> Descriptor | None:
    """The descriptor that a path in /proc names; None for one of no file of ours."""
    named = _owner(call, path)
    number = path.rstrip("/").rpartition("/")[2]
    return run.files.find(*named, int(number)) if named is not None and number.isdigit() else None


def _owner(call: Notification, path: str) -> tuple[int, int] | None:
    """(thread, process) of the table of descriptors that a path in /proc leads to. A thread may have one of its own."""
    parts = path.split("/")
    if path.startswith("/dev/fd/"):
        return call.process, call.process
    if parts[2] == "thread-self":
        return call.thread, call.process
    if parts[2] != "self" and not parts[2].isdigit():
        return None
    named = call.process if parts[2] == "self" else int(parts[2])
    thread = int(parts[4]) if parts[3] == "task" else named
    try:
        return thread, processes.group_of(thread)
    except ProcessLookupError:
        return None


def _open_by_number(run: Supervisor, call: Notification, path: str, flags: int) -> Answer:
    known = numbered(run, call, path)
    if known is None:
        return Said.CARRY_ON
    if "/fdinfo/" in path:
        return _open_fdinfo(run, call, path, flags, known)
    if not run.system.is_fake:
        of_itself = known.file.path is None or flags & os.O_PATH
        return Said.CARRY_ON if of_itself else open_node(run, call, str(known.file.path), flags)
    if flags & os.O_PATH and flags & os.O_NOFOLLOW and not flags & os.O_DIRECTORY and not path.endswith("/"):
        return Said.CARRY_ON  # the link itself: the host's is as good
    if known.file.path in run.places.denied and not flags & os.O_PATH:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    fd = run.system.backend.open(f"/proc/self/fd/{known.fd}" + "/" * path.endswith("/"), flags)
    return _hand_over(run, call, fd, flags, known.file.path)


def _open_fdinfo(run: Supervisor, call: Notification, path: str, flags: int, known: Descriptor) -> Answer:
    kernel = getattr(run.system, "kernel", None)
    if kernel is None:
        return Said.CARRY_ON
    owner, number = _owner(call, path), int(path.rpartition("/")[2])
    if owner is None:
        return Said.CARRY_ON
    with run.files.lock:  # of a process that ends at this moment both are taken away
        info = dict(kernel.fdinfo(known.fd))
        others = int(info.get("count", 0)) - run.files.count_known(known.file)
    if "count" in info:
        # Not what the supervisor holds it by, but the programs' descriptors, also those that nobody has used yet, as a
        # child's are, and their mappings, each of which holds it as well.
        everybody = run.processes.everybody()
        # Where there never was but one table, what is known of the numbers that are given out is true.
        is_one = len(everybody) == run.processes.met == 1 and not run.processes.parted
        numbers = run.files.count(known.file, everybody, base=run.files.base if is_one else None)
        info["count"] = others - 1 + numbers + run.mappings.count(known.file, everybody)
    info.setdefault("ino", inode_of(run, known))
    native = processes.flags_of(owner[0], number)
    flags_of_file = changed_flags(int(info.pop("flags")), native) & ~os.O_CLOEXEC | native & os.O_CLOEXEC
    text = f"pos:\t{info.pop('pos')}\nflags:\t0{flags_of_file:o}\n"
    # The file system is one of the kernel's own; it and the inode come after the flags.
    text += "mnt_id:\t15\n" + "".join(f"{name}:\t{value}\n" for name, value in info.items())
    return _give_text(run, call, text, flags)


def behind(known: Descriptor) -> Any:
    """The fake kernel's file that a descriptor is of, or whose place it is."""
    return known.file.held.of if known.file.kind == "place" else known.file.held


def inode_of(run: Supervisor, known: Descriptor) -> int:
    """Of a node, or of a sync file: all of those have one inode."""
    path = known.file.path
    return FIRST_NODE + run.places.nodes.index(path) if path in run.places.nodes else _ANONYMOUS


def changed_flags(flags: int, native: int) -> int:
    """The flags of an open file: the backend's, with those that the program may have changed on the host's file."""
    return flags & ~_CHANGEABLE | native & _CHANGEABLE


def _open_parameter(run: Supervisor, call: Notification, path: str, flags: int) -> Answer:
    name = path.rpartition("/")[2]
    if run.parameters is None or name not in run.parameters.names:
        return Said.CARRY_ON
    fd = run.parameters.open(name, flags)
    try:
        run.listener.give(call, fd, None, close_on_exec=bool(flags & os.O_CLOEXEC), answer=True)
    finally:
        os.close(fd)
    return Said.SENT


def _give_text(run: Supervisor, call: Notification, text: str, flags: int) -> Answer:
    made = os.memfd_create("dmasync", os.MFD_CLOEXEC)
    try:
        os.write(made, text.encode())
        os.lseek(made, 0, os.SEEK_SET)
        run.listener.give(call, made, None, close_on_exec=bool(flags & os.O_CLOEXEC), answer=True)
    finally:
        os.close(made)
    return Said.SENT


# -- the folder of the heaps


def _getdents(run: Supervisor, call: Notification) -> Answer:
    address, room = call.arguments[1], call.arguments[2] & 0xFFFF_FFFF
    known = run.find(call, call.arguments[0])
    if known is None or known.file.kind != "directory":
        return Said.CARRY_ON
    folder = known.file.held
    names = [(".", _DT_DIR), ("..", _DT_DIR), *((heap, _DT_CHR) for heap in run.places.heaps)]
    data = b""
    position = folder.position
    for place, (name, kind) in list(enumerate(names))[position:]:
        encoded = os.fsencode(name) + b"\0"
        length = -(-(_DIRENT.size + len(encoded)) // 8) * 8
        if len(data) + length > room:
            if not data:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            break
        data += (_DIRENT.pack(place + 1, place + 1, length, kind) + encoded).ljust(length, b"\0")
        position = place + 1
    memory.write(call.thread, address, data)
    folder.position = position
    return len(data)


# -- what a path says


def _readlink(run: Supervisor, call: Notification) -> Answer:
    return _read_link(run, call, _AT_FDCWD, *call.arguments[:3])


def _readlinkat(run: Supervisor, call: Notification) -> Answer:
    return _read_link(run, call, *call.arguments[:4])


def _read_link(run: Supervisor, call: Notification, folder: int, address: int, into: int, room: int) -> Answer:
    path = run.places.of_call(call.thread, folder, address, follow=False)
    if path is None:
        return Said.CARRY_ON
    if run.places.fake and not path.startswith(("/proc/", "/dev/fd/", "/sys/", PREFIX)):
        if path.rstrip("/") != HEAPS:
            run.places.need_node(path)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # no link
    if "/fd/" not in path:
        return Said.CARRY_ON
    known = numbered(run, call, path)
    kernel = getattr(run.system, "kernel", None)
    if known is None or kernel is None:
        return Said.CARRY_ON
    held = behind(known)
    if known.file.path is not None:
        text = known.file.path.encode()
    elif held.kind == "sync_file":
        text = b"anon_inode:sync_file"
    else:
        text = b"/dmabuf:" + (held.name or b"")
    memory.write(call.thread, into, text[:room])
    return min(len(text), room)


def _unshare(run: Supervisor, call: Notification) -> Answer:
    run.processes.parted = True
    return _another_root(run, call)


def _another_root(run: Supervisor, call: Notification) -> Answer:
    run.processes.leaves_root(call.process)
    return Said.CARRY_ON


def _truncate(run: Supervisor, call: Notification) -> Answer:
    path = run.places.of_call(call.thread, _AT_FDCWD, call.arguments[0])
    if path is None or not run.places.fake or path.startswith(("/sys/", PREFIX)):
        return Said.CARRY_ON
    if path.startswith(("/proc/", "/dev/fd/")):
        if "/fdinfo/" in path or numbered(run, call, path) is None:
            return Said.CARRY_ON
    elif path.rstrip("/") == HEAPS:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    else:
        run.places.need_node(path)
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


HANDLERS: Final = {
    "truncate": _truncate,
    **dict.fromkeys(("chroot", "pivot_root", "setns"), _another_root),
    "unshare": _unshare,
    "open": _open,
    "creat": _creat,
    "openat": _openat,
    "openat2": _openat2,
    "readlink": _readlink,
    "readlinkat": _readlinkat,
    "getdents64": _getdents,
}
