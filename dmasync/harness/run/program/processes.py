"""The program's processes: which thread belongs to which, their descriptors, their signals, their ends."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Final

from dmasync.harness.run.seccomp import numbers

_FLOCK: Final = struct.Struct("=hhxxxxqqixxxx")  # struct flock of a 64-bit machine
_OFD_GETLK: Final = 36
_OFD_SETLK: Final = 37
_CAP_IPC_LOCK: Final = 14
_KCMP_VM: Final = 1
_KCMP_FILES: Final = 2


ON_HIDDEN: Final[list[Callable[[int], object]]] = []
"""The last of them hears of threads that let nobody look into them."""


def tell_hidden(thread: int) -> None:
    for hear in ON_HIDDEN[-1:]:
        hear(thread)


class Processes:
    """What is known of the processes that made a call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leaders: dict[int, int] = {}
        self._handles: dict[int, int] = {}
        self._at_home: dict[int, bool] = {}
        self._may_take = True
        self.top = os.getpid()
        """All of the program's are below this one."""
        self.met = 0
        """How many thread groups have ever made a call."""
        self.parted = False
        """Whether a thread may have left its process's table of descriptors."""
        self.on_end: list[Callable[[int], None]] = []
        """Called with a thread group that has ended."""

    def leader(self, thread: int) -> int:
        """The thread group that *thread* belongs to; ProcessLookupError when it has ended."""
        leader = self._leaders.get(thread)
        if leader is None:
            leader = group_of(thread)
            with self._lock:
                self._leaders[thread] = leader
                if leader not in self._handles:
                    self.met += 1
                    self._handles[leader] = numbers.call("pidfd_open", leader, 0)
        return leader

    def has(self, thread: int) -> bool:
        """Whether *thread* has made a call."""
        return thread in self._leaders

    def shares_root(self, thread: int) -> bool:
        """Whether paths lead *thread* where they lead this process."""
        leader = self._leaders.get(thread, thread)
        if leader not in self._at_home:
            with self._lock:
                self._at_home[leader] = _root(leader) == _root(os.getpid())
        return self._at_home[leader]

    def leaves_root(self, leader: int) -> None:
        """From now on they may lead it elsewhere."""
        with self._lock:
            self._at_home[leader] = False

    def everybody(self) -> set[int]:
        """The program's processes, also those that have made no call yet."""
        return {*self._handles, *descendants(self.top)}

    def all(self) -> list[int]:
        """The thread groups that have not been forgotten."""
        return list(self._handles)

    def handles(self) -> dict[int, int]:
        """Pidfds by thread group; one becomes readable when its process has ended."""
        with self._lock:
            return dict(self._handles)

    def forget(self, leader: int) -> None:
        """The process has ended: its number may come again."""
        with self._lock:
            handle = self._handles.pop(leader, None)
            self._at_home.pop(leader, None)
            self._leaders = {thread: its for thread, its in self._leaders.items() if its != leader}
        if handle is not None:
            os.close(handle)
        for hear in self.on_end:
            hear(leader)

    def take(self, leader: int, fd: int, thread: int) -> int | None:
        """A descriptor of our own of the very open file *fd* of a process's *thread*; None where the host does not
        allow it.

        EBADF when it is not open.
        """
        if self._may_take:
            try:
                if thread != leader and same_table(thread, leader) is False:
                    return _taken_from_thread(thread, fd)
                return numbers.call("pidfd_getfd", self._handles[leader], fd, 0)
            except OSError as problem:
                if problem.errno not in (errno.EPERM, errno.ENOSYS):
                    raise
            self._may_take = False
        return None

    def advise(self, leader: int, address: int, length: int, advice: int) -> None:
        """``process_madvise(2)`` on one range; OSError."""
        vector = (ctypes.c_uint64 * 2)(address, length)
        numbers.call("process_madvise", self._handles[leader], ctypes.addressof(vector), 1, advice, 0)


def _taken_from_thread(thread: int, fd: int) -> int | None:
    try:
        handle = numbers.call("pidfd_open", thread, os.O_EXCL)  # PIDFD_THREAD
    except OSError:
        return None  # before Linux 6.9
    try:
        return numbers.call("pidfd_getfd", handle, fd, 0)
    finally:
        os.close(handle)


def _root(process: int) -> tuple[int, ...]:
    """What tells a process's root and mounts; of one that has ended it is told apart from all others."""
    try:
        root, mounts = os.stat(f"/proc/{process}/root"), os.stat(f"/proc/{process}/ns/mnt")
    except OSError:
        return (process,)
    return root.st_dev, root.st_ino, mounts.st_ino


def file_of(thread: int, fd: int) -> tuple[int, int] | None:
    """(device, inode) of a descriptor of the program; None when it is not open."""
    try:
        state = os.stat(f"/proc/{thread}/fd/{fd}")
    except PermissionError:
        tell_hidden(thread)
        return None
    except OSError:
        return None
    return state.st_dev, state.st_ino


def group_of(thread: int) -> int:
    """The process that *thread* is of; ProcessLookupError when it has ended."""
    return _field(thread, "Tgid:")


def is_open(process: int, fd: int) -> bool:
    return os.path.lexists(f"/proc/{process}/fd/{fd}")


def fdinfo(thread: int, fd: int) -> list[str]:
    """The lines of ``/proc/…/fdinfo/fd``; none when it is not open."""
    try:
        with open(f"/proc/{thread}/fdinfo/{fd}") as info:
            return info.readlines()
    except OSError:
        return []


def flags_of(thread: int, fd: int) -> int:
    """The flags of a descriptor's open file, with O_CLOEXEC if the descriptor has it; EBADF."""
    for line in fdinfo(thread, fd):
        if line.startswith("flags:"):
            return int(line.split()[1], 8)
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def is_stream(thread: int, fd: int) -> bool:
    """Whether a descriptor is a pipe's or a socket's."""
    mode = os.stat(f"/proc/{thread}/fd/{fd}").st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def is_at_end(thread: int, fd: int, position: int | None) -> bool:
    """Whether a regular file has no byte from *position* on, None for where it is to be read next."""
    state = os.stat(f"/proc/{thread}/fd/{fd}")
    if position is None:
        position = next((int(line.split()[1]) for line in fdinfo(thread, fd) if line.startswith("pos:")), 0)
    return stat.S_ISREG(state.st_mode) and position >= state.st_size


def is_place(thread: int, fd: int) -> bool:
    """Whether a descriptor was opened with O_PATH."""
    with contextlib.suppress(OSError):
        return bool(flags_of(thread, fd) & os.O_PATH)
    return False


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{process}/stat", "rb") as state:
        return state.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return False


def name_of(thread: int) -> str:
    """What ``ps`` calls a process or a thread; empty when it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{thread}/comm", errors="replace") as name:
        return name.read().rstrip("\n")
    return ""


def shared_mappings(process: int, inode: int) -> Iterator[tuple[int, int, int]]:
    """(address, length, offset in the file) of the process's shared mappings of one file."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/maps") as maps:
        for line in maps:
            fields = line.split(None, 5)
            if int(fields[4]) == inode and fields[1][3] == "s":
                begin, end = (int(text, 16) for text in fields[0].split("-"))
                yield begin, end - begin, int(fields[2], 16)


def signal_is_pending(thread: int) -> bool:
    """Whether a signal waits for *thread* that it does not hold back or ignore; True also when it has ended."""
    masks: dict[str, int] = {}
    try:
        with open(f"/proc/{thread}/status") as status:
            for line in status:
                if line[:6] in ("SigPnd", "ShdPnd", "SigBlk", "SigIgn"):
                    masks[line[:6]] = int(line.split()[1], 16)
    except OSError:
        return True
    return bool((masks["SigPnd"] | masks["ShdPnd"]) & ~masks["SigBlk"] & ~masks["SigIgn"])


def of_pidfd(thread: int, number: int) -> int | None:
    """The process that the program's pidfd *number* is of; None where it is no pidfd, or its process has ended."""
    for line in fdinfo(thread, number):
        if line.startswith("Pid:"):
            process = int(line.split()[1])
            return process if process > 0 else None
    return None


def may_lock(process: int, length: int) -> bool:
    """Whether its limit lets *process* lock *length* more bytes of memory."""
    locked, rights = 0, 0
    try:
        with open(f"/proc/{process}/status") as status:
            for line in status:
                if line.startswith("VmLck:"):
                    locked = int(line.split()[1]) << 10
                elif line.startswith("CapEff:"):
                    rights = int(line.split()[1], 16)
        limit = resource.prlimit(process, resource.RLIMIT_MEMLOCK)[0]
    except OSError:
        return True
    return bool(rights >> _CAP_IPC_LOCK & 1) or limit == resource.RLIM_INFINITY or locked + length <= limit


def share_memory(process: int, other: int) -> bool:
    """Whether the two have one memory, as of ``clone(2)`` with CLONE_VM; False where the host does not say."""
    with contextlib.suppress(OSError):
        return numbers.call("kcmp", process, other, _KCMP_VM, 0, 0) == 0
    return False


def same_table(thread: int, other: int) -> bool | None:
    """Whether the two have one table of descriptors; None where the host does not say."""
    try:
        return numbers.call("kcmp", thread, other, _KCMP_FILES, 0, 0) == 0
    except ProcessLookupError:
        return False
    except OSError:
        return None


def parent_of(process: int) -> int:
    """0 where it has ended."""
    with contextlib.suppress(ProcessLookupError):
        return _field(process, "PPid:")
    return 0


def is_traced(thread: int) -> bool:
    """Whether a debugger or strace has it; it must be there."""
    return _field(thread, "TracerPid:") != 0


def _field(thread: int, name: str) -> int:
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{thread}/status") as status:
        for line in status:
            if line.startswith(name):
                return int(line.split()[1])
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def children(of: int) -> list[int]:
    """The processes that threads of the process *of* have made and nobody has waited for."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{of}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{of}/task/{thread}/children") as names:
                found += map(int, names.read().split())
    return found


def descendants(of: int) -> list[int]:
    """The processes below *of*, children before grandchildren."""
    found: list[int] = []
    waiting = [of]
    while waiting:
        ours = children(waiting.pop())
        found += ours
        waiting += ours
    return found


def kill_descendants(of: int | None = None) -> None:
    """End all that *of* (this process) has started, and what that has; again until none is left to start more."""
    seen: set[int] = set()
    while fresh := set(descendants(of or os.getpid())) - seen:
        for process in fresh:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        seen |= fresh


def mark(fd: int, byte: int) -> bool:
    """Put the lock on; it belongs to the open file, not to this process."""
    mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    kind = fcntl.F_RDLCK if mode == os.O_RDONLY else fcntl.F_WRLCK
    try:
        fcntl.fcntl(fd, _OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except OSError:
        return False  # opened with O_PATH, or for neither reading nor writing: nothing can be done with it
    return True


def is_marked(witness: int, byte: int) -> bool:
    answer = fcntl.fcntl(witness, _OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
