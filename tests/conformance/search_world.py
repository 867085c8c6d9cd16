"""One kernel as a random program sees it: runs one operation, tells all that can be observed of it.

Nothing in an observation depends on which kernel it was, where its memory lies or which numbers it gave out:
descriptors are told by the variable that holds them, inodes and fence contexts by the order in which they were seen,
times by whether they are set. Two kernels that are alike give equal observations.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import re
import resource
import select
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dmasync import uapi
from dmasync.backend import LINUX
from dmasync.fakes.kernel import FakeFence, FakeKernel
from dmasync.fakes.kernel.machine import HOST, Machine, machine_named
from dmasync.fakes.kernel.profile import DEFAULT_PROFILE, nearest_profile
from dmasync.harness.vgem import Vgem
from tests.conformance.search_memory import Arena

Op = tuple[Any, ...]
"""A name and arguments, all of them plain values; ``search_program`` tells which."""
Observation = tuple[Any, ...]

CLOSED = 99_999
"""A descriptor that is never open: what a variable stands for that holds none."""
SYSTEM_HEAP, UDMABUF = "/dev/dma_heap/system", "/dev/udmabuf"
PLUMBING = (
    "fakes/memory/host.py",
    "fakes/kernel/usermem.py",
    "fakes/kernel/files/descriptors.py",
    "fakes/kernel/errors.py",
    "fakes/kernel/waiting.py",
    "fakes/kernel/dma_buf/dma_fence.py",
)
"""Modules that many ask: who asked is the place that refuses."""
_MERGED_AT = uapi.sync_merge_data.offsets["fence"]
_EXPORTED_AT = uapi.dma_buf_export_sync_file.offsets["fd"]
_ALLOCATED_AT = uapi.dma_heap_allocation_data.offsets["fd"]
_POINTER_AT = uapi.sync_file_info.offsets["sync_fence_info"]
_INFO = uapi.sync_fence_info
_NUMBERED = re.compile(rb"(.*-unbound)(\d+)(-\d+)\Z")
_READABLE = mmap.PROT_READ | mmap.PROT_WRITE
# mmap.mmap keeps a duplicate of its descriptor, a reference more than the mapping itself has, before Python 3.13.
_MMAP_KEEPS_A_DUPLICATE = sys.version_info < (3, 13)
_SAMPLE = 48
_O_PATH = 0o10000000
_PAGEOUT = 21
_MOST_OF_A_HEAP = 4 << 20
_HIGH = 512
"""Where the search's own descriptors begin: no program gets that far."""


class File:
    """What descriptors and mappings share."""

    def __init__(self, kind: str, size: int = 0) -> None:
        self.kind = kind
        self.size = size
        self.maps: set[int] = set()
        self.sealed = False


class Held:
    """What a variable holds: a descriptor, a mapping or a fence."""

    __slots__ = ("advised", "fd", "fence", "file", "kind", "length", "mapping", "offset", "prot")

    def __init__(self, kind: str, fd: int, file: File) -> None:
        self.kind, self.fd, self.file = kind, fd, file


class Placed(NamedTuple):
    """The argument of an ioctl, as :meth:`World.ioctl` is given it."""

    argument: Any
    """What the call gets: a bytearray, or an address, or an int."""
    kind: str
    """b(uffer), m(emory), r(ead-only memory), i(nt)."""
    filled: bytes
    """All bytes of the argument with descriptors and addresses filled in; empty for an int."""
    cut: int
    """How many of them lie in a hole."""
    patches: Sequence[tuple[int, int, Any]]
    file_kind: str
    may_wait: bool


class World:
    """Variables over one kernel. Subclasses know the kernel."""

    backend: Any
    machine: Machine = machine_named(HOST)
    """The processor that the kernel is for."""
    huge_pages = 0
    """Of the usual size, that the kernel has reserved."""
    huge_page = 0
    """Their size in bytes, 0 where there are none."""
    tick = 0.002
    """Seconds after which what waits is interrupted, again and again."""
    bytes_as: Callable[[Any], Any] = bytes
    """What a look at everything takes of a mapping's bytes: all of them, or their checksum."""

    def __init__(self, arena: Arena | None = None) -> None:
        self.held: dict[int, Held] = {}
        self.by_kind: dict[str, list[int]] = {}
        self.pending = 0
        self._none_left = False
        self.arena = arena or Arena()
        self.page = self.arena.page
        """The bytes of the kernel's pages."""
        self._own_arena = arena is None
        self._table_address = ctypes.addressof(self.arena.table)
        self._ids: dict[str, dict[Any, int]] = {"ino": {}, "context": {}}
        self._touched: list[int] = []
        self._run: dict[str, Callable[..., Any]] = {
            name[3:]: getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def step(self, op: Op) -> Observation:
        """Run *op*: its outcome (a value or an errno's name), then what is seen of all that it touched."""
        touched = self._touched
        touched.clear()
        try:
            outcome = self._run[op[0]](*op[1:])
        except OSError as failure:
            self.note(failure)
            outcome = errno.errorcode.get(failure.errno or 0, str(failure.errno))
        except (ValueError, OverflowError, TypeError) as failure:
            outcome = type(failure).__name__
        return (outcome, *[self.look(var) for var in touched])

    def checkpoint(self) -> Observation:
        """Everything, also what no operation touched, and all bytes of all mappings."""
        seen: list[Any] = []
        for var in sorted(self.held):
            held = self.held[var]
            if held.kind == "map":
                seen.append((var, self.bytes_as(held.mapping) if self._may_read(held) else b""))
            elif held.kind != "fence":
                # Not polled while work is pending: that would leave a callback, and hide what later polls do.
                events = select.POLLIN | select.POLLOUT
                ready = -1 if self.pending else self.backend.poll(held.fd, events, 0)
                seen.append((var, self.look(var), ready))
        return tuple(seen)

    def look(self, var: int) -> Any:
        """What fdinfo shows of a descriptor, and a memfd's seals."""
        held = self.held.get(var)
        if held is None or held.kind in ("map", "fence"):
            return None
        if held.kind in ("memfd", "huge memfd"):
            return (*self.fdinfo(held), self.backend.get_seals(held.fd))
        return self.fdinfo(held)

    def told_by(self, text: bytes, held: Held, *, doubled: bool) -> tuple[Any, ...]:
        """What a file in ``/proc/self/fdinfo`` says; *doubled*: each mapping has a descriptor of its own."""
        lines = text.split(b"\n")
        first = (lines[0][5:], lines[1][7:])
        if held.kind != "dmabuf":
            return first
        count = int(lines[5][7:])
        if doubled:
            count -= len(held.file.maps)
        name = lines[7][6:] if lines[7].startswith(b"name:\t") else None
        return (*first, self.known("ino", lines[3]), lines[4][6:], count, lines[6][10:], name)

    # What differs between kernels

    def note(self, failure: OSError) -> None:
        """An operation failed."""

    def fdinfo(self, held: Held) -> tuple[Any, ...]:
        raise NotImplementedError

    def without_descriptors(self) -> Any:
        """A context in which every new descriptor is one too many."""
        raise NotImplementedError

    def set_limits(self, list_limit: int, size_limit_mb: int) -> None:
        raise NotImplementedError

    def new_fence(self) -> tuple[Any, int]:
        """A pending fence, and a descriptor of a sync file that holds it."""
        raise NotImplementedError

    def signal_fence(self, fence: Any) -> None:
        raise NotImplementedError

    def unknown_descriptor(self) -> int | None:
        """A descriptor that the kernel gave out without telling."""
        raise NotImplementedError

    def open_again(self, fd: int, flags: int) -> int:
        """Open *fd*'s place in ``/proc/self/fd``."""
        return int(self.backend.open(f"/proc/self/fd/{fd}", flags))

    def ioctl(self, fd: int, request: int, placed: Placed) -> int:
        """Make the call; where it may wait for ever, a timer interrupts it."""
        if not placed.may_wait:
            return int(self.backend.ioctl(fd, request, placed.argument))
        signal.setitimer(signal.ITIMER_REAL, self.tick, self.tick)
        try:
            return int(self.backend.ioctl(fd, request, placed.argument))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    # Variables

    def fd(self, var: int) -> int:
        held = self.held.get(var)
        if held is None or held.kind in ("map", "fence"):
            return CLOSED
        self._touched.append(var)
        return held.fd

    def keep(self, var: int, held: Held) -> Held:
        self.held[var] = held
        self.by_kind.setdefault(held.kind, []).append(var)
        self._touched.append(var)
        return held

    def drop(self, var: int) -> Held:
        held = self.held.pop(var)
        self.by_kind[held.kind].remove(var)
        return held

    def known(self, what: str, value: Any) -> int:
        ids = self._ids[what]
        return ids.setdefault(value, len(ids))

    # Operations

    def do_nofd(self, op: list[Any] | Op) -> Any:
        with self.without_descriptors():
            self._none_left = True
            try:
                return self._run[op[0]](*op[1:])
            finally:
                self._none_left = False

    def do_limits(self, list_limit: int, size_limit_mb: int) -> None:
        self.set_limits(list_limit, size_limit_mb)

    def do_open(self, out: int, path: str, flags: int) -> int:
        fd = self.backend.open(path, flags)
        kind = _kind_at(path)
        self.keep(out, Held("path" if flags & _O_PATH else kind, fd, File(kind)))
        return out

    def do_reopen(self, out: int, var: int, flags: int) -> Any:
        """The file behind *var* once more, by its place in ``/proc/self/fd``."""
        old = self.fd(var)
        held = self.held.get(var)
        if held is not None and flags & os.O_TRUNC and self._would_cut(held.file, 0):
            return "not run: would cut pages off a mapping"
        fd = self.open_again(old, flags)
        file = self.held[var].file
        if flags & os.O_TRUNC and not flags & _O_PATH:
            file.size = 0
        self.keep(out, Held("path" if flags & _O_PATH else file.kind, fd, file))
        return out

    def do_memfd(self, out: int, name: str, flags: int) -> int:
        fd = self.backend.memfd_create(name, flags)
        kind = "huge memfd" if flags & uapi.MFD_HUGETLB else "memfd"
        self.keep(out, Held(kind, fd, File(kind)))
        return out

    def do_dup(self, out: int, var: int) -> int:
        fd = self.backend.dup(self.fd(var))
        held = self.held[var]
        self.keep(out, Held(held.kind, fd, held.file))
        return out

    def do_close(self, var: int) -> None:
        held = self.held.get(var)
        if held is None or held.kind in ("map", "fence"):
            self.backend.close(CLOSED)
        else:
            self.backend.close(held.fd)
            self.drop(var)

    def do_ftruncate(self, var: int, length: int) -> str | None:
        fd = self.fd(var)
        held = self.held.get(var)
        if held is not None and self._would_cut(held.file, length):
            return "not run: would cut pages off a mapping"
        self.backend.ftruncate(fd, length)
        if held is not None:
            held.file.size = length
        return None

    def do_add_seals(self, var: int, seals: int) -> None:
        self.backend.add_seals(self.fd(var), seals)
        self.held[var].file.sealed = bool(self.backend.get_seals(self.fd(var)) & uapi.F_SEAL_SHRINK)

    def do_get_seals(self, var: int) -> int:
        return int(self.backend.get_seals(self.fd(var)))

    def do_lseek(self, var: int, offset: int, whence: int) -> int:
        return int(self.backend.lseek(self.fd(var), offset, whence))

    def do_poll(self, var: int, events: int) -> int:
        return int(self.backend.poll(self.fd(var), events, 0))

    def do_mmap(self, out: int, var: int, length: int, prot: int, flags: int, offset: int) -> Any:
        fd = self.fd(var)
        if fd == CLOSED and offset % self.page:
            return "not run: mmap.mmap duplicates the descriptor first, before Python 3.13"
        of = self.held.get(var)
        if of is not None and of.file.kind == "huge memfd" and self.huge_page and length % self.huge_page:
            return "not run: less than a huge page can be mapped, and never unmapped"
        mapping = self.backend.mmap(fd, length, prot, flags, offset)
        file = self.held[var].file
        held = self.keep(out, Held("map", -1, file))
        held.mapping, held.length, held.prot, held.offset = mapping, len(mapping), prot, offset
        held.advised = False
        file.maps.add(out)
        return len(mapping)

    def do_unmap(self, var: int) -> None:
        held = self.held.get(var)
        if held is None or held.kind != "map":
            return
        self.drop(var)
        held.file.maps.discard(var)
        held.mapping.close()

    def do_madvise(self, var: int, advice: int, at: int, length: int) -> Any:
        """Advice about a part of a mapping; then what every mapping shows there."""
        held = self.held.get(var)
        if held is None or held.kind != "map":
            return None
        if advice == _PAGEOUT and held.file.kind == "memfd":
            return "not run: what a udmabuf's mapping wrote is lost"
        held.mapping.madvise(advice, at, length)
        held.advised |= at != 0 or length < held.length
        return self._shown(min(at, held.length))

    def do_flush(self, var: int, at: int, length: int) -> None:
        held = self.held.get(var)
        if held is not None and held.kind == "map":
            held.mapping.flush(at, length)

    def do_map_size(self, var: int) -> int | None:
        held = self.held.get(var)
        return int(held.mapping.size()) if held is not None and held.kind == "map" else None

    def do_resize(self, var: int, length: int) -> Any:
        held = self.held.get(var)
        if held is None or held.kind != "map":
            return None
        cuts = held.file.kind in ("memfd", "huge memfd") and held.offset + length < held.file.size
        if cuts and (len(held.file.maps) > 1 or held.advised or length < 1):
            return "not run: would cut pages off a mapping"
        held.mapping.resize(length)
        held.length, held.file.size = len(held.mapping), held.offset + length
        return held.length

    def _shown(self, at: int) -> Any:
        views = [(var, self.held[var]) for var in self.by_kind["map"]]
        return tuple((var, held.mapping[at : at + _SAMPLE]) for var, held in views if self._may_read(held))

    def do_write(self, var: int, at: int, data: bytes) -> Any:
        """Bytes into a mapping; then what every mapping shows around that place."""
        held = self.held.get(var)
        if held is None or held.kind != "map" or not held.prot & mmap.PROT_WRITE or not self._may_read(held):
            return None
        at = min(at, held.length - len(data))
        if at < 0:
            return None
        held.mapping[at : at + len(data)] = data
        return self._shown(at)

    def do_fence(self, out: int, out_file: int) -> int:
        fence, sync_file = self.new_fence()
        held = self.keep(out, Held("fence", -1, File("fence")))
        held.fence = fence
        self.keep(out_file, Held("sync_file", sync_file, File("sync_file")))
        self.pending += 1
        return out

    def do_signal(self, var: int) -> None:
        held = self.held.get(var)
        if held is None or held.kind != "fence":
            return
        self.drop(var)
        self.pending -= 1
        self.signal_fence(held.fence)

    def do_ioctl(
        self, out: int, var: int, request: int, kind: str, payload: bytes | int, cut: int, patches: list[Any]
    ) -> Any:
        """*kind*: b(uffer), m(emory of which *cut* bytes lie in a hole), r(ead-only memory), i(nt).

        *patches* are (offset, size, value): a variable's descriptor, or an address of this world by name.
        """
        fd = self.fd(var)
        held = self.held.get(var)
        file_kind = held.kind if held is not None and fd != CLOSED else ""
        whole = b""
        if isinstance(payload, int):
            argument: Any = payload
        else:
            filled = bytearray(payload)
            for at, size, value in patches:
                filled[at : at + size] = self._value(value).to_bytes(size, "little")
            whole = bytes(filled)
            argument = filled
            if kind == "m":
                argument = self.arena.put(whole, cut)
            elif kind == "r":
                argument = self.arena.put_read_only(whole)
        before = whole[: len(whole) - cut] if kind == "m" else whole
        if file_kind == "heap device" and not request & 0xFF and _asks_for_too_much(request, before, self.page):
            return "not run: would wake the out-of-memory killer"
        may_wait = bool(self.pending) and request == uapi.DMA_BUF_IOCTL_SYNC and file_kind == "dmabuf"
        placed = Placed(argument, kind, whole, cut if kind == "m" else 0, patches, file_kind, may_wait)
        try:
            result = self.ioctl(fd, request, placed)
            outcome = ""
        except OSError as failure:
            self.note(failure)
            result, outcome = -1, errno.errorcode.get(failure.errno or 0, str(failure.errno))
        if outcome == "EFAULT" and file_kind == "heap device" and not self._none_left:
            outcome = self._leaked() or outcome
        after = b"" if isinstance(payload, int) else self.arena.get(argument) if kind in "mr" else bytes(argument)
        if after == before and outcome:
            return outcome  # refused and untouched: nearly always
        after = bytearray(after)
        if not outcome:
            result = self._take_new(out, file_kind, request, result, after)
        for at, size, _ in patches:
            if after[at : at + size] == before[at : at + size]:
                after[at : at + size] = bytes(len(after[at : at + size]))
        table: tuple[Any, ...] = ()
        if not outcome and file_kind == "sync_file" and request == uapi.SYNC_IOC_FILE_INFO:
            after[:32] = self._name(bytes(after[:32]))
            room, pointer = struct.unpack_from("=I", before, 40)[0], struct.unpack_from("=Q", before, _POINTER_AT)[0]
            fences = struct.unpack_from("=I", after, 40)[0]
            table = self._table(pointer, fences) if room else ()
        return (outcome, result, bytes(after), table)

    # Insides

    def _leaked(self) -> str:
        """Close the descriptor that a heap made before it failed to tell its number, as some releases do, and say so.

        Left open, it would be taken for the next one that nobody is told.
        """
        fd = self.unknown_descriptor()
        if fd is None:
            return ""
        self.backend.close(fd)
        return "EFAULT, and a descriptor that nobody was told"

    def _value(self, value: int | str) -> int:
        if value == "table":
            return self._table_address
        if value == "edge":
            return self.arena.edge - _INFO.size
        held = self.held.get(value) if isinstance(value, int) else None
        return CLOSED if held is None or held.kind in ("map", "fence") else held.fd

    def _table(self, pointer: int, fences: int) -> tuple[Any, ...]:
        if pointer != self._table_address:
            return ()
        entries = []
        for index in range(fences):
            *names, status, flags, timestamp = _INFO.unpack(self.arena.table.raw, index * _INFO.size)
            entries.append((*names, status, flags, timestamp != 0))
        return tuple(entries)

    def _name(self, field: bytes) -> bytes:
        """A sync file's name with its context as this world knows it; what follows the NUL may not be compared then."""
        text = field.partition(b"\0")[0]
        match = _NUMBERED.match(text)
        if match is None:
            return field
        made = b"%s %d%s" % (match[1], self.known("context", match[2]), match[3])
        return made[:32].ljust(32, b"\0")

    def _take_new(self, out: int, kind: str, request: int, result: int, after: bytearray) -> Any:
        """Keep a descriptor that an ioctl brought; its number is taken out of what is compared."""
        made = made_by(kind, request)
        if made is None:
            return result
        new_kind, at = made
        if at is None:
            fd, result = result, 0
        else:
            fd = self._fd_at(after, at, request)
        file = File(new_kind)
        if new_kind == "dmabuf":
            file.size = int(self.backend.lseek(fd, 0, os.SEEK_END))
        self.keep(out, Held(new_kind, fd, file))
        return (result, out)

    def _fd_at(self, after: bytearray, at: int, request: int) -> int:
        # An argument that is too small for the field, or is not written back, leaves the number untold.
        if is_told(request, at, len(after)):
            fd = int.from_bytes(after[at : at + 4], "little")
            after[at : at + 4] = bytes(4)
            return fd
        found = self.unknown_descriptor()
        if found is None:
            raise AssertionError("an ioctl succeeded, but no new descriptor can be found")
        after[at : at + 4] = bytes(len(after[at : at + 4]))
        return found

    @staticmethod
    def _would_cut(file: File, length: int) -> bool:
        return bool(file.maps) and not file.sealed and length < file.size

    def _may_read(self, held: Held) -> bool:
        return bool(held.prot & _READABLE)

    def close(self) -> None:
        """Give everything back."""
        for var in list(self.by_kind.get("fence", ())):
            self.do_signal(var)
        for var in list(self.held):
            if self.held[var].kind == "map":
                self.do_unmap(var)
        for var in list(self.held):
            self.backend.close(self.drop(var).fd)
        if self._own_arena:
            self.arena.close()


def made_by(kind: str, request: int) -> tuple[str, int | None] | None:
    """What a successful ioctl of a file of *kind* makes, and where in its argument the number is, if at all."""
    if kind == "udmabuf device" and request in (uapi.UDMABUF_CREATE, uapi.UDMABUF_CREATE_LIST):
        return "dmabuf", None
    if kind == "heap device" and not request & 0xFF:
        return "dmabuf", _ALLOCATED_AT
    if kind == "dmabuf" and request == uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE:
        return "sync_file", _EXPORTED_AT
    if kind == "sync_file" and request == uapi.SYNC_IOC_MERGE:
        return "sync_file", _MERGED_AT
    return None


def is_told(request: int, at: int, length: int) -> bool:
    """Whether an argument of *length* bytes has a new descriptor's number at *at* afterwards."""
    return bool(request >> 30 & 2) and length >= at + 4 and uapi_size(request) >= at + 4


def _kind_at(path: str) -> str:
    name = path.rstrip("/")
    if name in ("/proc/self/fd", "/dev/fd"):
        return "proc directory"
    if name in ("/dev/null", "/dev/dma_heap"):
        return "null device" if name == "/dev/null" else "directory"
    return "udmabuf device" if "udmabuf" in path else "heap device"


def uapi_size(request: int) -> int:
    """``_IOC_SIZE()``."""
    return request >> 16 & 0x3FFF


def _asks_for_too_much(request: int, argument: bytes, page: int) -> bool:
    length = int.from_bytes(argument[: min(8, uapi_size(request))], "little") if request >> 30 & 1 else 0
    return _MOST_OF_A_HEAP < length <= (1 << 64) - page


class FakeWorld(World):
    """The fake; counts at which places in its source it refused."""

    def __init__(
        self,
        profile: str = DEFAULT_PROFILE,
        arena: Arena | None = None,
        *,
        has_heap: bool = True,
        machine: str = HOST,
        huge_pages: int = 0,
    ) -> None:
        super().__init__(arena)
        self._has_heap = has_heap
        self.huge_pages = huge_pages
        self.kernel = self.backend = FakeKernel(
            profile=profile,
            machine=machine,
            page_size=self.page,
            providers=None if has_heap else [UDMABUF],
            huge_pages=huge_pages,
        )
        self.machine = self.kernel.machine
        self.huge_page = 1 << self.machine.huge_pages(self.page)[0] if huge_pages else 0
        self.refusals: dict[tuple[Any, int, int], int] = {}

    def note(self, failure: OSError) -> None:
        trace = failure.__traceback__
        if trace is None:
            return
        here = trace
        while trace is not None:
            if not trace.tb_frame.f_code.co_filename.endswith(PLUMBING):
                here = trace
            trace = trace.tb_next
        place = (here.tb_frame.f_code, here.tb_lineno, failure.errno or 0)
        self.refusals[place] = self.refusals.get(place, 0) + 1

    def fdinfo(self, held: Held) -> tuple[Any, ...]:
        info = self.kernel.fdinfo(held.fd)
        first = (b"%d" % info["pos"], b"0%o" % info["flags"])
        if held.kind != "dmabuf":
            return first
        name = info.get("name")
        return (
            *first,
            self.known("ino", info["ino"]),
            b"%d" % info["size"],
            int(info["count"]),
            str(info["exp_name"]).encode(),
            None if name is None else os.fsencode(str(name)),
        )

    def without_descriptors(self) -> Any:
        return _NoneLeft(self.kernel)

    def set_limits(self, list_limit: int, size_limit_mb: int) -> None:
        self.kernel.list_limit, self.kernel.size_limit_mb = list_limit, size_limit_mb

    def new_fence(self) -> tuple[Any, int]:
        fence = FakeFence()
        carrier = self._carrier()
        self.kernel.attach_fence(carrier, fence)
        export = uapi.dma_buf_export_sync_file.pack(uapi.DMA_BUF_SYNC_RW, -1)
        self.kernel.ioctl(carrier, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, export)
        self.kernel.close(carrier)
        return fence, uapi.dma_buf_export_sync_file.get(export, "fd")

    def _carrier(self) -> int:
        """A dma-buf of one page."""
        kernel = self.kernel
        if self._has_heap:
            argument = uapi.dma_heap_allocation_data.pack(self.page, 0, os.O_RDWR | os.O_CLOEXEC, 0)
            heap = kernel.open(SYSTEM_HEAP, os.O_RDWR)
            kernel.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, argument)
            kernel.close(heap)
            return uapi.dma_heap_allocation_data.get(argument, "fd")
        memfd = kernel.memfd_create("carrier", uapi.MFD_ALLOW_SEALING | uapi.MFD_CLOEXEC)
        kernel.ftruncate(memfd, self.page)
        kernel.add_seals(memfd, uapi.F_SEAL_SHRINK)
        device = kernel.open(UDMABUF, os.O_RDWR)
        limit, kernel.size_limit_mb = kernel.size_limit_mb, 1
        try:
            made = kernel.ioctl(device, uapi.UDMABUF_CREATE, bytearray(struct.pack("=IIQQ", memfd, 1, 0, self.page)))
        finally:
            kernel.size_limit_mb = limit
            kernel.close(device)
            kernel.close(memfd)
        return made

    def signal_fence(self, fence: Any) -> None:
        fence.signal()

    def unknown_descriptor(self) -> int | None:
        known = {held.fd for held in self.held.values()}
        unknown = [fd for fd in self.kernel.open_fds() if fd not in known]
        return unknown[0] if unknown else None


class _NoneLeft:
    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def __enter__(self) -> None:
        self._kernel.descriptors.limit = len(self._kernel.open_fds())

    def __exit__(self, *exc_info: object) -> None:
        self._kernel.descriptors.limit = None


class RealWorld(World):
    """The kernel that runs; one object for all programs keeps vgem's card and the fdinfo files open."""

    def __init__(self, machine: RealMachine) -> None:
        super().__init__()
        self.backend = LINUX
        self._machine = machine
        self._limits_set = False
        self._kept: list[int] = []

    def do_memfd(self, out: int, name: str, flags: int) -> int:
        result = super().do_memfd(out, name, flags)
        if not self._machine.mapped_pages_outlive_their_file:
            self._kept.append(fcntl.fcntl(self.held[out].fd, fcntl.F_DUPFD_CLOEXEC, _HIGH))
        return result

    def fdinfo(self, held: Held) -> tuple[Any, ...]:
        return self.told_by(self._machine.read_fdinfo(held.fd), held, doubled=_MMAP_KEEPS_A_DUPLICATE)

    def without_descriptors(self) -> Any:
        return self._machine.no_descriptors

    def set_limits(self, list_limit: int, size_limit_mb: int) -> None:
        self._limits_set = True
        self._machine.set_limits(list_limit, size_limit_mb)

    def new_fence(self) -> tuple[Any, int]:
        return self._machine.vgem.sync_file()

    def signal_fence(self, fence: Any) -> None:
        self._machine.vgem.signal(fence)

    def unknown_descriptor(self) -> int | None:
        # Mappings have descriptors of their own; those of a buffer that nobody has seen yet are the one. One that is
        # only a place (O_PATH) does not tell its buffer's inode.
        known = {held.fd for held in self.held.values() if held.kind == "path"}
        for name in sorted(os.listdir("/proc/self/fd"), key=int):
            if int(name) in known:
                continue
            try:
                is_buffer = os.readlink(f"/proc/self/fd/{name}").startswith("/dmabuf:")
            except OSError:  # the listing's own
                continue
            if is_buffer and self._machine.read_fdinfo(int(name)).split(b"\n")[3] not in self._ids["ino"]:
                return int(name)
        return None

    def close(self) -> None:
        super().close()
        for fd in self._kept:
            self.backend.close(fd)
        if self._limits_set:
            self._machine.set_limits(*self._machine.default_limits)


class RealMachine:
    """What all programs on the real kernel share."""

    def __init__(self) -> None:
        self.vgem = Vgem.load()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2048 if hard == resource.RLIM_INFINITY else min(2048, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        self.no_descriptors = RealNoneLeft(wanted, hard)
        self._fdinfo: dict[int, int] = {}
        # Before 6.11 a udmabuf maps its memfd's own pages. When the memfd's last descriptor goes while such a page is
        # mapped, Linux miscounts ("Bad page cache", "Bad page map") and gives the page to others: the guest then shows
        # wrong bytes, or hangs. There each program keeps its memfds until it has unmapped everything.
        self.mapped_pages_outlive_their_file = nearest_profile(os.uname().release).udmabuf_maps_numbers
        self.merges_pages = Path("/sys/kernel/mm/ksm").exists()
        parameters = Path("/sys/module/udmabuf/parameters")
        self.default_limits = [int((parameters / name).read_text()) for name in ("list_limit", "size_limit_mb")]

    def read_fdinfo(self, fd: int) -> bytes:
        """``/proc/self/fdinfo/<fd>``; the files stay open, high up: each read tells of what *fd* is by then."""
        info = self._fdinfo.get(fd)
        if info is None:
            low = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            info = self._fdinfo[fd] = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _HIGH)
            os.close(low)
        return os.pread(info, 4096, 0)

    def set_limits(self, list_limit: int, size_limit_mb: int) -> None:
        """Set udmabuf's module parameters."""
        for name, value in (("list_limit", list_limit), ("size_limit_mb", size_limit_mb)):
            fd = os.open(f"/sys/module/udmabuf/parameters/{name}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, b"%d" % value)
            os.close(fd)

    def close(self) -> None:
        """Give the card and the files back."""
        for info in self._fdinfo.values():
            os.close(info)
        self.vgem.close()


class RealNoneLeft:
    def __init__(self, soft: int, hard: int) -> None:
        self._soft, self._hard = soft, hard

    def __enter__(self) -> None:
        # Not 0: F_DUPFD calls a limit that its lowest number reaches EINVAL.
        lowest = os.open("/", os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, self._hard))

    def __exit__(self, *exc_info: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._soft, self._hard))
