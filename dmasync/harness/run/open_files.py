"""The open files that programs have got, and the numbers by which they know them.

A program's descriptor is told by the inode of its file: it needs no state and holds however the descriptor got where
it is, by dup, fork or a socket. Several udmabufs of one memfd have one inode; an open file description lock on a byte
of its own, which ``/proc/PID/fdinfo`` shows, tells them apart. Such a lock goes with the last descriptor and the last
mapping: so it is also known when a file is gone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from dmasync.harness.run.program import descriptor_tables, processes

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import HostFile, System

FIRST_MARK: Final = 1 << 40
"""The first byte that our locks are on: no file of ours is as long."""

NOT_OPEN: Final = 0x7FFF_FFF0
"""Stands for a descriptor that the program has not open: the backend has none of that number either."""

Key = tuple[int, int]
"""(device, inode)."""


class OpenFile:
    """One open file that a program got from the backend."""

    def __init__(
        self, kind: str, path: str | None, host: HostFile | None, held: Any, *, is_borrowed: bool = False
    ) -> None:
        self.kind = kind
        self.path = path
        """Of the node, for a device."""
        self.key: Key = (0, 0)
        self.mark = 0
        """The byte that its lock is on."""
        self.is_locked = False
        self.is_plain = host is None or host.is_plain
        self.is_shared = host is not None and host.is_shared
        self.witness = None if host is None else host.witness
        self.before_close: Callable[[], object] = (lambda: None) if host is None else host.before_close
        self.held = held
        self.is_borrowed = is_borrowed
        """Whether it is another exporter's, and known for one call only."""


class Descriptor:
    """A number of a program: its open file, and the backend's descriptor for it."""

    __slots__ = ("fd", "file", "is_met")

    def __init__(self, fd: int, file: OpenFile, *, is_met: bool = False) -> None:
        self.fd = fd
        self.file = file
        self.is_met = is_met
        """Inherited or received: it was there when the process was first seen to use it."""


class OpenFiles:
    """All of them; *base* is the first number that is given out. Safe to use from several threads."""

    def __init__(self, system: System, base: int) -> None:
        self.system = system
        self.base = base
        self.lock = threading.RLock()
        self.on_new: Callable[[OpenFile], None] = lambda file: None
        self.on_gone: list[Callable[[OpenFile], None]] = []
        self._files: dict[Key, list[OpenFile]] = {}
        self._pieced: dict[OpenFile, set[Key]] = {}
        """Buffers whose pages are not those of one host file from its beginning, and the files that have them."""
        self._numbers: dict[tuple[int, int], Descriptor] = {}
        self._closed: dict[tuple[int, int], int] = {}
        self._free: dict[int, int] = {}
        self._reserved: set[tuple[int, int]] = set()
        self._borrowed = threading.local()
        self._ending: set[int] = set()
        self.hears_of_ends = False
        """Whether :meth:`closed_unseen` is called before a process ends."""
        self._marks = itertools.count(FIRST_MARK)

    # -- files

    def add(self, file: OpenFile, fd: int) -> None:
        """Know *file* by the host's descriptor *fd*; before the program has it: its next call may come at once."""
        state = os.fstat(fd)
        file.key = (state.st_dev, state.st_ino)
        if file.witness is not None and file.kind != "sync_file":
            file.mark = next(self._marks)
            file.is_locked = processes.mark(fd, file.mark)
        with self.lock:
            self._files.setdefault(file.key, []).append(file)
            if file.kind == "dmabuf" and not file.is_plain:
                self._pieced[file] = self.system.keys_of(file.held)
        self.on_new(file)

    def of_key(self, key: Key) -> OpenFile | None:
        """A file with that inode."""
        found = self._files.get(key)
        return found[0] if found else None

    def all_of(self, key: Key) -> list[OpenFile]:
        with self.lock:
            return list(self._files.get(key, ()))

    def all(self) -> list[OpenFile]:
        with self.lock:
            return [file for files in self._files.values() for file in files]

    @property
    def is_empty(self) -> bool:
        """Whether no program has a file of the backend's."""
        return not self._files

    def buffer_of(self, key: Key) -> Any:
        """A dma-buf of the fake for the inode that stands for it: its file's, which the programs map, or that of a
        memfd which it has pages of; None for all others.
        """
        with self.lock:
            found = next((file for file in self._files.get(key, ()) if file.kind == "dmabuf"), None)
            if found is None:
                found = next((file for file, keys in self._pieced.items() if key in keys), None)
            return None if found is None else found.held

    def is_gone(self, file: OpenFile) -> bool:
        """Whether no process has it any more."""
        is_open = not file.is_locked or file.witness is None or processes.is_marked(file.witness, file.mark)
        # Of a buffer out of several ranges their files are mapped, and not the one with the lock.
        return not is_open and not (file in self._pieced and self.is_mapped(file))

    is_mapped: Callable[[OpenFile], bool] = staticmethod(lambda file: False)
    """Whether a process has it mapped; the supervisor sets it."""

    def is_open_elsewhere(self, key: Key, of: Iterable[int]) -> bool:
        """Whether one of the processes *of* has a file of its own open with that inode, which is also a udmabuf's."""
        for process in of:
            with contextlib.suppress(OSError):
                for number in map(int, os.listdir(f"/proc/{process}/fd")):
                    if processes.file_of(process, number) == key and _mark(processes.fdinfo(process, number)) is None:
                        return True
        return False

    def sweep(self, key: Key) -> None:
        """Let go of those with that inode, or with pages of its file, that are gone: when this returns, another thread
        has not only begun to.
        """
        with self.lock:
            pieced = [file for file, keys in self._pieced.items() if key in keys]
            for file in (*self.all_of(key), *pieced):
                if self.is_gone(file):
                    self.remove(file)

    def remove(self, file: OpenFile) -> None:
        """Forget *file*, which is gone, and give back all that stands for it."""
        with self.lock:
            same = self._files.get(file.key, [])
            if file not in same:
                return
            same.remove(file)
            self._pieced.pop(file, None)
            if not same:
                del self._files[file.key]
            for place in [place for place, known in self._numbers.items() if known.file is file]:
                if self.hears_of_ends and place[0] not in self._ending and processes.is_alive(place[0]):
                    # A low number, whose closing nobody saw: the program lives, and the file is gone.
                    with contextlib.suppress(OSError):
                        self.system.backend.close(self._numbers.pop(place).fd)
                else:
                    self._let_go(place)
            for hear in self.on_gone:
                hear(file)
            file.before_close()
            if file.witness is not None:
                os.close(file.witness)
                file.witness = None
            # All of it at once for others: whoever finds it gone finds what it held free.
            self.system.let_go(file.held)

    # -- numbers

    def find(self, thread: int, process: int, number: int) -> Descriptor | None:
        """What the program's descriptor *number* is; None for a file of its own."""
        if not 0 <= number < 1 << 31:
            return None
        key = processes.file_of(thread, number)
        files = None if key is None else self._files.get(key)
        if not files:
            return None if key is None or self.system.is_fake else self._borrow(thread, process, number)
        known = self._numbers.get((process, number))
        if not files[0].is_shared:
            # With a real kernel all that have one device node open are alike.
            file = known.file if known is not None and known.file in files else files[-1]
        else:
            lines = processes.fdinfo(thread, number)
            mark = _mark(lines)
            marked = [file for file in files if file.mark == mark]
            if not marked:
                return None
            file = marked[0]
            if number < self.base and file.kind == "dmabuf" and lines[0].split() != ["pos:", "0"]:
                self.on_position(file)
        if known is not None and known.file is file:
            return known
        if not self.system.is_fake and processes.is_place(thread, number):
            return None  # the real kernel's own, of the same inode
        return self._meet(process, number, file, thread)

    def _borrow(self, thread: int, process: int, number: int) -> Descriptor | None:
        """The real kernel has more exporters than the nodes that are opened here: a camera, a graphics card. What those
        give has a number of the kernel's choice, whose close nobody sees; so nothing of it is kept beyond the call.
        """
        from dmasync.fakes.foreign.systems import DEVICE, kind_of

        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/{thread}/fd/{number}")
            kind = kind_of(name)
            path = name if kind is None and self.is_node(name) else None
            mine = None if kind is None and path is None else self.take(process, number, thread)
            if mine is not None:
                self._borrowed.fds = [*getattr(self._borrowed, "fds", ()), mine]
                self.note(mine, number)
                return Descriptor(mine, OpenFile(kind or DEVICE, path, None, None, is_borrowed=True))
        return None

    def give_back(self) -> None:
        """The call that this thread answered is over."""
        if fds := getattr(self._borrowed, "fds", None):
            self._borrowed.fds = []
            for fd in fds:
                os.close(fd)

    def keep(self, fd: int) -> None:
        """The caller closes *fd* itself if it was borrowed."""
        self._borrowed.fds = [other for other in getattr(self._borrowed, "fds", ()) if other != fd]

    is_node: Callable[[str], bool] = staticmethod(lambda path: False)
    """Whether the backend opens that path; the supervisor sets it."""

    def _meet(self, process: int, number: int, file: OpenFile, thread: int) -> Descriptor:
        """A number seen for the first time: inherited, or received, or made where nobody looked."""
        from dmasync.fakes.foreign.memfds import ours

        # No call of the program's makes it: its limit, which may have been reached by now, does not count.
        with self.lock, ours():
            known = self._numbers.get((process, number))
            if known is not None and known.file is file:
                return known
            other = next((known.fd for known in self._numbers.values() if known.file is file), None)
            if other is not None:
                fd = int(self.system.backend.dup(other))
            else:
                fd = self.system.descriptor(file.held, lambda: self.take(process, number, thread))
            return self.put(process, number, Descriptor(fd, file, is_met=True))

    on_position: Callable[[OpenFile], object] = staticmethod(lambda file: None)
    """Hears of dma-bufs that are not at their beginning, where they always are; the supervisor sets it."""

    take: Callable[[int, int, int], int | None] = staticmethod(lambda process, number, thread: None)
    """A descriptor of our own of a program's; the supervisor sets it."""

    def put(self, process: int, number: int, descriptor: Descriptor) -> Descriptor:
        """*number* is *descriptor* from now on."""
        with self.lock:
            self._let_go((process, number))
            self.note(descriptor.fd, number)
            self._numbers[process, number] = descriptor
            self._closed.pop((process, number), None)
        return descriptor

    def note(self, fd: int, number: int) -> None:
        """For people: where the backend's *fd* is told of, the program knows it as *number*."""
        self.system.journal.numbers.note(fd, number)

    def _let_go(self, place: tuple[int, int]) -> None:
        known = self._numbers.pop(place, None)
        if known is not None:
            self._closed[place] = known.fd
            self.system.drop(known.fd)

    def reserve(self, process: int, thread: int, *, keep: bool = True) -> int:
        """The lowest number from the base on that *thread* of *process* has not open; with *keep* nobody else gets it
        until :meth:`given`.
        """
        with self.lock:
            number = self._free.get(process, self.base)
            while (process, number) in self._reserved or processes.is_open(thread, number):
                number += 1
            self._free[process] = number + keep
            if keep:
                self._reserved.add((process, number))
            return number

    def given(self, process: int, number: int) -> None:
        """The program has it, or never will."""
        with self.lock:
            self._reserved.discard((process, number))

    def close(self, process: int, number: int) -> Descriptor | None:
        """The program closes *number*: what it was, for the caller to close in the backend."""
        with self.lock:
            known = self._numbers.pop((process, number), None)
            if known is not None:
                self._closed[process, number] = known.fd
                if known.file.witness is None and all(other.file is not known.file for other in self._numbers.values()):
                    self.remove(known.file)  # the kernel's own: should it live on elsewhere, it is met again
            if number >= self.base:
                self._free[process] = min(number, self._free.get(process, number))
            return known

    def closed(self, process: int, number: int) -> int | None:
        """The backend's descriptor, closed by now, that *number* was last."""
        fd = self._closed.get((process, number))
        if fd is None or self.system.is_fake:
            return fd
        try:
            os.fstat(fd)
        except OSError:
            return fd
        # A real kernel has given it out again, to us: what the program does now must not be done to that.
        self.note(NOT_OPEN, number)
        return NOT_OPEN

    def numbers_of(self, process: int, first: int, last: int) -> list[int]:
        """Those from *first* to *last* that *process* has of ours."""
        with self.lock:
            return sorted(n for its, n in self._numbers if its == process and first <= n <= last)

    def count_known(self, file: OpenFile) -> int:
        """How many numbers of *file* are known here, by each of which the backend has a descriptor."""
        with self.lock:
            return sum(known.file is file for known in self._numbers.values())

    def count(self, file: OpenFile, of: Iterable[int], base: int | None = None) -> int:
        """How many descriptors of *file* the processes *of* have; as many as are known here where the file cannot be
        told from others. What is known of numbers from *base* up is believed.
        """
        if not file.is_locked:
            return self.count_known(file)
        believed = 0
        if base is not None:
            with self.lock:
                believed = sum(known.file is file and place[1] >= base for place, known in self._numbers.items())
        present = (_mark(processes.fdinfo(*place)) for place in descriptor_tables.numbers_of(file.key, of, base))
        return believed + sum(mark == file.mark for mark in present)

    def closed_unseen(self, thread: int, process: int) -> list[Descriptor]:
        """What *process*, which is about to end, has closed where nobody saw it, as low numbers are, and what it got
        from others and goes with it.
        """
        found = []
        self._ending.add(process)
        for number in self.numbers_of(process, 0, (1 << 31) - 1):
            known = self._numbers[process, number]
            if known.is_met or processes.file_of(thread, number) != known.file.key:
                found.append(known)
                self.close(process, number)
        return found

    def end(self, process: int) -> None:
        """The process has ended, and its descriptors with it."""
        with self.lock:
            for place in [place for place in self._numbers if place[0] == process]:
                self._let_go(place)
            for place in [place for place in self._closed if place[0] == process]:
                del self._closed[place]
            self._free.pop(process, None)
            self._ending.discard(process)


def _mark(lines: list[str]) -> int | None:
    """The byte that the lock of a descriptor's open file is on."""
    for line in lines:
        if line.startswith("lock:") and "OFDLCK" in line:
            with contextlib.suppress(ValueError):
                first = int(line.split()[-2])
                if first >= FIRST_MARK:  # else it is the program's own
                    return first
    return None
