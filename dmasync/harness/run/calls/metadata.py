"""Calls that ask what a file is: stat, access, and fstat of what was opened."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.calls.paths import FIRST_NODE, behind, inode_of, numbered
from dmasync.harness.run.device_paths import HEAPS
from dmasync.harness.run.open_files import Descriptor
from dmasync.harness.run.program import memory
from dmasync.harness.run.program.python_stacks import PREFIX
from dmasync.harness.run.seccomp import numbers
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import FakeSystem

_AT_FDCWD: Final = -100
_STATX_SIZE: Final = 256
_PAGE: Final = mmap.PAGESIZE
_SECOND: Final = 10**9
_ANONYMOUS_UNCHANGED: Final = "6.18"
"""Seen in 6.18.44 and 7.3.4, not in 6.12.117; what lies between was not asked."""
_BLOCK: Final = 512
_AT_EMPTY_PATH: Final = 0x1000
_MISC_MAJOR: Final = 10
_HEAP_MAJOR: Final = 251
_MASKED: Final = 0x17FF  # STATX_BASIC_STATS | STATX_MNT_ID
_STATX_RESERVED: Final = 0x80000000
_MOUNT: Final = 15
DEVICE_OF_BUFFERS: Final = 14
DEVICE_OF_SYNC_FILES: Final = 15
_HANDLE_FLAGS: Final = 0x1600 | 1
"""AT_EMPTY_PATH, AT_SYMLINK_FOLLOW, AT_HANDLE_FID, AT_HANDLE_MNT_ID_UNIQUE."""
_AT_SYMLINK_FOLLOW: Final = 0x400
_AT_HANDLE_FID: Final = 0x200
_EXEC_FLAGS: Final = 0x1100
"""AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW."""
_OF_ANONYMOUS_FILES: Final = 0x303000
"""STATX_ATTR_AUTOMOUNT, STATX_ATTR_MOUNT_ROOT, STATX_ATTR_VERITY, STATX_ATTR_DAX, in stx_attributes_mask."""
_NOFOLLOW: Final = 0x100
_STAT_FLAGS: Final = 0x7900
"""AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT, AT_EMPTY_PATH, AT_STATX_SYNC_TYPE: all others are EINVAL."""
_SYNC_TYPE: Final = 0x6000
_ACCESS_FLAGS: Final = 0x1300
"""AT_EACCESS, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH."""


@dataclass
class _State:
    """What the several layouts of stat hold."""

    mode: int
    inode: int
    size: int = 0
    node: int = 0
    """Device number, of a device node."""
    device: int = 5
    links: int = 1
    attributes: int = 0
    """Of struct statx: those that its file system knows."""
    uid: int = 0
    gid: int = 0
    times: tuple[int, int, int] = (0, 0, 0)
    """Of the last access, of the last change of the bytes and of the inode, in nanoseconds."""

    @property
    def blocks(self) -> int:
        return -(-self.size // _BLOCK)

    def as_stat(self) -> bytes:
        """As struct stat of this machine."""
        if platform.machine() == "aarch64":
            head = struct.pack(
                "=QQIIIIQQqiiq", self.device, self.inode, self.mode, self.links, self.uid, self.gid, self.node, 0,
                self.size, _PAGE, 0, self.blocks,
            )  # fmt: skip
            return (head + self._times("=qq")).ljust(128, b"\0")
        head = struct.pack(
            "=QQQIIIIQqqq", self.device, self.inode, self.links, self.mode, self.uid, self.gid, 0, self.node,
            self.size, _PAGE, self.blocks,
        )  # fmt: skip
        return (head + self._times("=qq")).ljust(144, b"\0")

    def _times(self, layout: str) -> bytes:
        return b"".join(struct.pack(layout, *divmod(time, _SECOND)) for time in self.times)

    def as_statx(self) -> bytes:
        """As struct statx."""
        head = struct.pack(
            "=IIQIIIHHQQQQ", _MASKED, _PAGE, 0, self.links, self.uid, self.gid, self.mode, 0, self.inode, self.size,
            self.blocks, self.attributes,
        )  # fmt: skip
        access, change_of_bytes, change = (self._times("=qI4x")[at : at + 16] for at in (0, 16, 32))
        times = access + bytes(16) + change + change_of_bytes
        numbers = struct.pack("=IIIIQ", os.major(self.node), os.minor(self.node), 0, self.device, _MOUNT)
        return (head + times + numbers).ljust(256, b"\0")


def _behind_path(run: Supervisor, call: Notification, folder: int, address: int, *, follow: bool) -> _State | None:
    """What is at a path of ours, or where a descriptor's name in /proc leads; None for all others, and for a link that
    *follow* does not follow. ENOENT where the fake has nothing there.
    """
    if not run.places.fake:
        return None
    path = run.places.of_call(call.thread, folder, address, follow=follow)
    if path is None or path.startswith(("/sys/", PREFIX)):
        return None
    if path.startswith(("/proc/", "/dev/fd/")):
        known = numbered(run, call, path) if follow and "/fdinfo/" not in path else None
        return None if known is None else _of_known(run, known)
    if path.rstrip("/") == HEAPS and run.places.heaps:
        return _folder()
    run.places.need_node(path)
    return _node(run, path)


def _folder() -> _State:
    return _State(stat.S_IFDIR | 0o755, 900, links=2)


def _node(run: Supervisor, path: str) -> _State:
    place = run.places.nodes.index(path)
    is_heap = path.startswith(HEAPS + "/")
    mode = stat.S_IFCHR | (0o600 if path in run.places.denied else 0o666)
    number = os.makedev(_HEAP_MAJOR, place) if is_heap else os.makedev(_MISC_MAJOR, 100 + place)
    return _State(mode, FIRST_NODE + place, node=number)


def _of_descriptor(run: Supervisor, call: Notification, number: int) -> _State | None:
    """What a descriptor of ours is of; None for all others, and for those that the host describes well."""
    known = run.find(call, number)
    return None if known is None or not run.system.is_fake else _of_known(run, known)


def _of_known(run: Supervisor, known: Descriptor) -> _State | None:
    if known.file.path == HEAPS:
        return _folder()
    if known.file.path is not None:
        return _node(run, known.file.path) if known.file.path in run.places.nodes else None
    held = behind(known)
    if held.kind == "sync_file":
        return _with_owner(
            _State(0o600, inode_of(run, known), device=DEVICE_OF_SYNC_FILES, attributes=_OF_ANONYMOUS_FILES), known
        )
    return _with_owner(
        _State(0o600, held.ino, held.size, device=DEVICE_OF_BUFFERS, attributes=_OF_ANONYMOUS_FILES), known
    )


def _with_owner(state: _State, known: Descriptor) -> _State:
    """What fchmod(), fchown() and futimens() change: they change it of the host's file."""
    if known.file.witness is not None and known.file.kind != "place":
        host = os.fstat(known.file.witness)
        state.uid, state.gid = host.st_uid, host.st_gid
        state.times = host.st_atime_ns, host.st_mtime_ns, host.st_ctime_ns
        if not known.file.is_shared:  # else it is the program's memfd, with a mode of its own
            state.mode = stat.S_IMODE(host.st_mode)
    return state


def _stat(run: Supervisor, call: Notification) -> Answer:
    address, into = call.arguments[:2]
    state = _behind_path(run, call, _AT_FDCWD, address, follow=True)
    return _beyond(run, call, _AT_FDCWD, address, into) if state is None else _write(call, into, state)


def _lstat(run: Supervisor, call: Notification) -> Answer:
    address, into = call.arguments[:2]
    state = _behind_path(run, call, _AT_FDCWD, address, follow=False)
    return _beyond(run, call, _AT_FDCWD, address, into, _NOFOLLOW) if state is None else _write(call, into, state)


def _fstat(run: Supervisor, call: Notification) -> Answer:
    return _write(call, call.arguments[1], _of_descriptor(run, call, call.arguments[0]))


def _newfstatat(run: Supervisor, call: Notification) -> Answer:
    folder, address, into, flags = call.arguments[:4]
    state = _at(run, call, flags)
    return _beyond(run, call, folder, address, into, flags) if state is None else _write(call, into, state)


def _at(run: Supervisor, call: Notification, flags: int) -> _State | None:
    """What fstatat() and statx() ask for; None where the kernel shall say it, EINVAL for unknown flags among it."""
    folder, address = call.arguments[:2]
    if flags & ~_STAT_FLAGS & 0xFFFF_FFFF:
        return None
    if flags & _AT_EMPTY_PATH and not memory.peek(call.thread, address, 1).strip(b"\0"):
        return _of_descriptor(run, call, folder)
    return _behind_path(run, call, folder, address, follow=not flags & _NOFOLLOW)


def _beyond(
    run: Supervisor, call: Notification, folder: int, address: int, into: int, flags: int = 0, mask: int | None = None
) -> Answer:
    """A path through the heaps' folder, which the host has not, to what it has: asked of the host by the way around."""
    path = run.places.beyond(call.thread, folder, address)
    if path is None:
        return Said.CARRY_ON
    where = ctypes.create_string_buffer(os.fsencode(f"/proc/{call.thread}/root{path}"))
    state = ctypes.create_string_buffer(_STATX_SIZE)
    place, found = ctypes.addressof(where), ctypes.addressof(state)
    if mask is None:
        numbers.call("newfstatat", _AT_FDCWD, place, found, flags & 0xFFFF_FFFF)
    else:
        numbers.call("statx", _AT_FDCWD, place, flags & 0xFFFF_FFFF, mask & 0xFFFF_FFFF, found)
    size = _STATX_SIZE if mask is not None else len(_State(0, 0).as_stat())
    memory.write(call.thread, into, state.raw[:size])
    return 0


def _write(call: Notification, into: int, state: _State | None) -> Answer:
    if state is None:
        return Said.CARRY_ON
    memory.write(call.thread, into, state.as_stat())
    return 0


def _statx(run: Supervisor, call: Notification) -> Answer:
    _, _, flags, mask, into = call.arguments[:5]
    is_odd = mask & _STATX_RESERVED or flags & _SYNC_TYPE == _SYNC_TYPE
    state = None if is_odd else _at(run, call, flags)
    if state is None:
        return _beyond(run, call, call.arguments[0], call.arguments[1], into, flags, mask)
    memory.write(call.thread, into, state.as_statx())
    return 0


def _access(run: Supervisor, call: Notification) -> Answer:
    return _may(run, call, _AT_FDCWD, call.arguments[0], call.arguments[1])


def _faccessat(run: Supervisor, call: Notification) -> Answer:
    return _may(run, call, *call.arguments[:3])


def _faccessat2(run: Supervisor, call: Notification) -> Answer:
    folder, address, wanted, flags = call.arguments[:4]
    if flags & ~_ACCESS_FLAGS & 0xFFFF_FFFF:
        return Said.CARRY_ON
    is_empty = bool(flags & _AT_EMPTY_PATH) and not memory.peek(call.thread, address, 1).strip(b"\0")
    return _may(run, call, folder, address, wanted, follow=not flags & _NOFOLLOW, is_empty=is_empty)


def _may(
    run: Supervisor, call: Notification, folder: int, address: int, wanted: int, *, follow: bool = True,
    is_empty: bool = False,
) -> Answer:  # fmt: skip
    if wanted & ~(os.R_OK | os.W_OK | os.X_OK) & 0xFFFF_FFFF:
        return Said.CARRY_ON
    state = _of_descriptor(run, call, folder) if is_empty else _behind_path(run, call, folder, address, follow=follow)
    if state is None:
        return Said.CARRY_ON
    is_folder = stat.S_ISDIR(state.mode)
    denied = wanted and state.node and not state.mode & 0o066
    if denied or (wanted & os.X_OK and not is_folder):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    return 0


def _change(run: Supervisor, call: Notification) -> Answer:
    """fchmod(), fchown() and futimens(): the host does it to its file, but newer kernels refuse it of a sync file."""
    from dmasync.fakes.kernel.releases import Since

    known = run.find(call, call.arguments[0])
    if known is not None and known.file.kind == "place":
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if known is None or known.file.kind != "sync_file" or not run.system.is_fake:
        return Said.CARRY_ON
    system: FakeSystem = run.system  # type: ignore[assignment]
    if system.kernel.profile.release not in Since.of(_ANONYMOUS_UNCHANGED):
        return Said.CARRY_ON
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def _utimensat(run: Supervisor, call: Notification) -> Answer:
    return Said.CARRY_ON if call.arguments[1] else _change(run, call)  # a path: below a folder


def _execve(run: Supervisor, call: Notification) -> Answer:
    return _execute(run, call, _AT_FDCWD, call.arguments[0], 0)


def _execveat(run: Supervisor, call: Notification) -> Answer:
    folder, address, _, _, flags = call.arguments[:5]
    return _execute(run, call, folder, address, flags & 0xFFFF_FFFF)


def _execute(run: Supervisor, call: Notification, folder: int, address: int, flags: int) -> Answer:
    """Nothing of ours is a program; the file that stands for it might be one."""
    run.processes.parted |= bool(run.files.numbers_of(call.process, 0, 1 << 31))  # some close then, unseen
    if flags & ~_EXEC_FLAGS:
        return Said.CARRY_ON
    if flags & _AT_EMPTY_PATH and not memory.peek(call.thread, address, 1).strip(b"\0"):
        state = _of_descriptor(run, call, folder)
    else:
        state = _behind_path(run, call, folder, address, follow=not flags & _NOFOLLOW)
    if state is None:
        return Said.CARRY_ON
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def _name_to_handle_at(run: Supervisor, call: Notification) -> Answer:
    """Neither dma-bufs nor sync files can be found again by a handle, though newer kernels give one to compare."""
    folder, address, _, _, flags = call.arguments[:5]
    flags &= 0xFFFF_FFFF
    if flags & ~_HANDLE_FLAGS or flags & _AT_HANDLE_FID:
        return Said.CARRY_ON
    known = None
    if flags & _AT_EMPTY_PATH and not memory.peek(call.thread, address, 1).strip(b"\0"):
        known = run.find(call, folder)
    elif flags & _AT_SYMLINK_FOLLOW:
        path = run.places.of_call(call.thread, folder, address)
        is_number = path is not None and path.startswith(("/proc/", "/dev/fd/")) and "/fdinfo/" not in path
        known = numbered(run, call, path) if path is not None and is_number else None
    if known is None or known.file.path is not None:
        return Said.CARRY_ON
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


HANDLERS: Final = {
    "execve": _execve,
    "execveat": _execveat,
    "name_to_handle_at": _name_to_handle_at,
    "fchmod": _change,
    "fchown": _change,
    "utimensat": _utimensat,
    "stat": _stat,
    "lstat": _lstat,
    "fstat": _fstat,
    "newfstatat": _newfstatat,
    "statx": _statx,
    "access": _access,
    "faccessat": _faccessat,
    "faccessat2": _faccessat2,
}
