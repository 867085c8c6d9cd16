"""Random programs: mostly sensible, so that they get deep, with one thing wrong every so often.

A program depends on its seed, on how often each production is to be chosen, and on what the kernel answered.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from dmasync import uapi
from dmasync.fakes.kernel.profile import largest_kmalloc
from tests.conformance.search_huge import huge_pages
from tests.conformance.search_world import SYSTEM_HEAP, UDMABUF, Op, World

T = TypeVar("T")
RW, RO = mmap.PROT_READ | mmap.PROT_WRITE, mmap.PROT_READ
SHARED, PRIVATE = mmap.MAP_SHARED, mmap.MAP_PRIVATE
O_PATH = 0o10000000
MEMFD_SEALABLE = uapi.MFD_ALLOW_SEALING | uapi.MFD_CLOEXEC
FIO = {"FIOCLEX": 0x5451, "FIONCLEX": 0x5450, "FIONBIO": 0x5421, "FIOASYNC": 0x5452, "FIOQSIZE": 0x5460}
FIO |= {"FIONREAD": 0x541B, "FIGETBSZ": 2, "FS_IOC_FIEMAP": 0xC020660B}
REQUESTS = {
    "SYNC": uapi.DMA_BUF_IOCTL_SYNC,
    "SET_NAME_A": uapi.DMA_BUF_SET_NAME_A,
    "SET_NAME_B": uapi.DMA_BUF_SET_NAME_B,
    "EXPORT": uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
    "IMPORT": uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE,
    "ALLOC": uapi.DMA_HEAP_IOCTL_ALLOC,
    "CREATE": uapi.UDMABUF_CREATE,
    "CREATE_LIST": uapi.UDMABUF_CREATE_LIST,
    "MERGE": uapi.SYNC_IOC_MERGE,
    "FILE_INFO": uapi.SYNC_IOC_FILE_INFO,
    "SET_DEADLINE": uapi.SYNC_IOC_SET_DEADLINE,
    **FIO,
}
REQUEST_NUMBERS = tuple(REQUESTS.values())
SEALS = (0, 1, 2, 2, 2, 4, 6, 6, 7, 8, 10, 16, 18, 32, 34, 63, 64, 0x82, 1 << 30)
EVENTS = (
    select.POLLIN,
    select.POLLOUT,
    select.POLLIN | select.POLLOUT,
    select.POLLIN | select.POLLOUT | select.POLLPRI,
    select.POLLPRI,
    0,
    0x7FFF,
    select.POLLRDNORM | select.POLLWRNORM,
)
_SYNC_BITS = (*range(16), 1 << 4, 1 << 31, 1 << 32 | 1, 1 << 63 | 3)
_WO, _EXEC = mmap.PROT_WRITE, mmap.PROT_EXEC
_PROTECTIONS = (RW, RW, RW, RW, RW, RW, RO, RO, 0, _WO, _EXEC, _EXEC | RO, _EXEC | _WO, _EXEC | RW)
_ADVICE = (0, 0, 1, 2, 4, 4, 9, 9, 10, 11, 14, 15, 16, 17, 20, 21, 22, 23, 24)
"""NORMAL, RANDOM, SEQUENTIAL, DONTNEED, REMOVE, DONTFORK, DOFORK, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP, COLD,
PAGEOUT, POPULATE_READ, POPULATE_WRITE, DONTNEED_LOCKED."""
_MAP_POPULATE = 0x8000
_NEWLINE = 10
_HUGE_PAGES = 1 << 28
"""A udmabuf of so many pages has a table of them that Linux does not even try to allocate."""
_LIST_LIMITS = (1024, 1024, 0, 1, 2, 4, -1, -1)
_SIZE_LIMITS_MB = (64, 64, 1, 1, 1, 0, 2047)
_BUFFER_ROOM = 64
_OPEN_FLAGS = (
    os.O_CREAT, os.O_EXCL, os.O_NOCTTY, os.O_TRUNC, os.O_APPEND, os.O_NONBLOCK, os.O_DSYNC, 0o20000, os.O_DIRECT,
    0o100000, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_NOATIME, os.O_CLOEXEC, 0o4010000, O_PATH, 1 << 26, 1 << 30,
)  # fmt: skip
_FOLDERS_OF_NUMBERS = ("/proc/self/fd", "/proc/self/fd/", "/dev/fd")
_PATHS = (
    UDMABUF + "x", UDMABUF + "/", UDMABUF + "/x", "/dev/dma_heap/nosuch", "/dev/nosuch/system", "/dev/dma_heap",
    "/dev/dma_heap",
    "", "/dev/../dev/udmabuf", "/dev//dma_heap/system", SYSTEM_HEAP + "/", "/dev/dma_heap/" + "x" * 256, "/" * 4096,
)  # fmt: skip


class Generator:
    """Operations for *world*, which runs each of them before the next one is asked for."""

    def __init__(self, seed: str, world: World, weights: Mapping[str, int] | None = None) -> None:
        """*weights*: how often productions are chosen, by their names, other than they are by themselves."""
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self.world = world
        self.page = page = world.page
        few = (2 * page, 3 * page, 3 * page + 7, 4 * page, 8 * page, 16 * page)
        self._sizes = (0, 1, page - 1, page, page + 1, *few)
        end = world.machine.address_space
        self._far = (1 << 31, 1 << 32, end - page, end, 1 << 62, (1 << 63) - page, (1 << 63) - 1)
        self._int_arguments = (0, 1, 2, page, 0x7FFF_FFFF, -1, -page)
        self._huge_size = _HUGE_PAGES * page
        self._next = 1
        self._may_be_huge = False
        choices: tuple[tuple[int, Callable[[], Iterator[Op]]], ...] = (
            (9, self._udmabuf),
            (5, self._udmabuf_of_a_list),
            (5, self._bad_create),
            (6, self._allocate),
            (5, self._odd_allocate),
            (4, self._memfd),
            (5, self._ftruncate),
            (6, self._add_seals),
            (1, self._get_seals),
            (9, self._mmap),
            (4, self._unmap),
            (6, self._madvise),
            (3, self._ask_mapping),
            (4, self._reopen),
            (10, self._write),
            (16, self._sync),
            (5, self._set_name),
            (7, self._export),
            (7, self._import),
            (6, self._merge),
            (7, self._info),
            (2, self._deadline),
            (4, self._fence),
            (3, self._signal),
            (2, self._several_fences),
            (6, self._poll),
            (8, self._lseek),
            (4, self._dup),
            (2, self._path),
            (2, self._place),
            (3, self._huge),
            (4, self._huge_pages),
            (7, self._close),
            (4, self._open),
            (7, self._odd_request),
            (6, self._wrong_kind),
            (5, self._fio),
        )
        self.weights = {production.__name__[1:]: weight for weight, production in choices} | dict(weights or {})
        self.producing = ""
        """The production that the last operation came from."""
        self._productions = [
            production for _, production in choices for _ in range(self.weights[production.__name__[1:]])
        ]

    def ops(self) -> Iterator[Op]:
        """Without end."""
        if self.one_in(3):
            size_limit_mb = self.pick((*_SIZE_LIMITS_MB, self._huge_size >> 19))
            self._may_be_huge = size_limit_mb << 20 > self._huge_size
            yield ("limits", self.pick(_LIST_LIMITS), size_limit_mb)
        yield ("open", self.out(), UDMABUF, os.O_RDWR)
        yield ("open", self.out(), SYSTEM_HEAP, os.O_RDWR)
        while True:
            production = self.pick(self._productions)
            self.producing = production.__name__[1:]
            for op in production():
                if self.one_in(25) and op[0] in ("open", "reopen", "memfd", "dup", "ioctl"):
                    yield ("nofd", op)
                else:
                    yield op
            if len(self.world.held) > 36:
                yield from self._close_something()

    # Choosing

    def pick(self, values: Sequence[T]) -> T:
        return values[int(self._random.random() * len(values))]

    def one_in(self, n: int) -> bool:
        return self._random.random() * n < 1

    def below(self, n: int) -> int:
        return int(self._random.random() * n)

    def out(self) -> int:
        self._next += 1
        return self._next

    def var(self, *kinds: str, wrong: int = 14) -> int:
        """A variable of one of *kinds*; one time in *wrong* of any kind, 0 when there is none."""
        if self.one_in(wrong):
            return self.any_var()
        vars_ = [var for kind in kinds for var in self.world.by_kind.get(kind, ())]
        if not vars_:
            return self.any_var()
        # Late ones more often: they have not been closed, cut or sealed yet.
        return vars_[-1 - self.below(min(4, len(vars_)))] if self.one_in(2) else self.pick(vars_)

    def memfd_for_a_udmabuf(self, wrong: int) -> int:
        """Mostly one that may not shrink any more and has pages."""
        held = self.world.held
        good = [var for var in self.world.by_kind.get("memfd", ()) if held[var].file.sealed and held[var].file.size]
        return self.pick(good) if good and not self.one_in(5) else self.var("memfd", "huge memfd", wrong=wrong)

    def any_var(self) -> int:
        held = [var for var, thing in self.world.held.items() if thing.kind not in ("map", "fence")]
        return self.pick(held) if held and not self.one_in(5) else 0

    # Arguments

    def ioctl(
        self, var: int, request: int, payload: bytes, patches: Sequence[tuple[int, int, Any]] = ()
    ) -> tuple[Any, ...]:
        """A call, its argument now and then where it can only be read, or not to its end."""
        page = self.page
        out = self.out()
        size = request >> 16 & 0x3FFF
        if self.one_in(8):
            roll = self.below(8)
            if roll < 2 and len(payload) < page:
                return ("ioctl", out, var, request, "m", payload, 0, list(patches))
            if roll < 4 and len(payload) < page:
                cut = 1 + self.below(len(payload))
                return ("ioctl", out, var, request, "m", payload, cut, list(patches))
            if roll < 7 and len(payload) < page:
                return ("ioctl", out, var, request, "r", payload, 0, list(patches))
            return ("ioctl", out, var, request, "i", self.pick(self._int_arguments), 0, [])
        room = max(size, _BUFFER_ROOM)
        if len(payload) < room and request not in (uapi.DMA_BUF_SET_NAME_A, uapi.DMA_BUF_SET_NAME_B):
            payload = payload.ljust(room, b"\0")
        return ("ioctl", out, var, request, "b", payload, 0, list(patches))

    # Productions

    def _open(self) -> Iterator[Op]:
        path = self.pick((UDMABUF, SYSTEM_HEAP))
        flags = self.pick((os.O_RDWR, os.O_RDWR, os.O_RDONLY, os.O_WRONLY, 3))
        if self.one_in(2):
            for _ in range(1 + self.below(3)):
                flags |= self.pick(_OPEN_FLAGS)
        if self.one_in(4):
            path = self.pick(_PATHS)
            flags &= ~(os.O_CREAT | os.O_DIRECTORY | O_PATH)
            if path == "/dev/dma_heap":
                flags |= os.O_RDWR
        yield ("open", self.out(), path, flags)

    def _path(self) -> Iterator[Op]:
        """A descriptor that is only a place, and something that it cannot do; opens that cannot be."""
        page = self.page
        node = self.pick((UDMABUF, SYSTEM_HEAP))
        if self.one_in(2):
            wrong = (os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_DIRECTORY, os.O_DIRECTORY, os.O_DIRECT)
            yield ("open", self.out(), node, os.O_RDWR | self.pick(wrong))
            return
        out = self.out()
        yield ("open", out, node, O_PATH | self.pick((0, os.O_RDWR, os.O_NOFOLLOW)))
        for _ in range(2):
            yield self.pick(
                (
                    ("lseek", out, 0, 2),
                    ("ftruncate", out, page),
                    ("add_seals", out, 2),
                    ("get_seals", out),
                    ("mmap", self.out(), out, page, RO, SHARED, 0),
                    ("dup", self.out(), out),
                    ("poll", out, select.POLLIN),
                    self.ioctl(out, self.pick(REQUEST_NUMBERS), bytes(64)),
                )
            )
        yield self._create(out, 1, 0, page)
        yield ("close", out)

    def _place(self) -> Iterator[Op]:
        """``/dev/null``, or a folder, and something that neither is there for."""
        page = self.page
        out = self.out()
        path = self.pick(("/dev/null", "/dev/null", "/dev/dma_heap", "/dev/dma_heap/", *_FOLDERS_OF_NUMBERS))
        flags = self.pick((os.O_RDONLY, os.O_RDWR, os.O_WRONLY, 3)) if path == "/dev/null" else os.O_RDONLY
        yield ("open", out, path, flags | self.pick((0, 0, os.O_CLOEXEC, os.O_DIRECTORY, os.O_TRUNC, os.O_APPEND)))
        if out not in self.world.held:
            return
        for _ in range(1 + self.below(3)):
            yield self.pick(
                (
                    ("lseek", out, self.pick((0, 1, page, -1, (1 << 63) - 1)), self.pick((0, 0, 1, 1, 2, 3, 4, 5))),
                    ("ftruncate", out, page),
                    ("add_seals", out, 2),
                    ("get_seals", out),
                    ("mmap", self.out(), out, self.pick((0, page)), self.pick((0, RO, RW)), self.pick((0, 1, 2)), 0),
                    ("poll", out, self.pick(EVENTS)),
                    self.ioctl(out, self.pick(REQUEST_NUMBERS), bytes(64)),
                    self._create(out, 1, 0, page),
                )
            )
        yield ("close", out)

    def _huge_pages(self) -> Iterator[Op]:
        return huge_pages(self)

    def _huge(self) -> Iterator[Op]:
        """A memfd of huge pages, as it is also where there are none."""
        page = self.page
        machine, out = self.world.machine, self.out()
        usual, *others = machine.huge_pages(page)
        huge = 1 << usual
        log = self.pick((0, 0, usual, usual, *others, 16, 22, 63)) << 26
        yield ("memfd", out, "huge", MEMFD_SEALABLE | uapi.MFD_HUGETLB | log)
        yield ("ftruncate", out, self.pick((huge, huge, 2 * huge, page, 0)))
        yield ("add_seals", out, self.pick((2, 2, 6)))
        yield self.pick(
            (
                ("lseek", out, self.pick((0, 1, huge, 2 * huge, -1)), self.pick((0, 2, 3, 4))),
                # Where there are some, less than one of them could never be unmapped.
                ("mmap", self.out(), out, huge if self.world.huge_pages else page, RW, SHARED, self.pick((0, 0, page))),
                self._create(out, 1, 0, page),
                self._create(out, 1, 0, huge),
                ("ftruncate", out, self.pick((0, huge, 4 * huge))),
            )
        )
        yield self.ioctl(out, FIO["FIOQSIZE"], bytes(8))
        yield ("close", out)

    def _memfd(self) -> Iterator[Op]:
        flags = self.pick((MEMFD_SEALABLE, MEMFD_SEALABLE, 0, 1, 2, 3, 8, 9, 0x0A, 0x10, 0x12, 0x18, 4, 6, 0x20, 0x100))
        if self.one_in(12):
            flags |= self.below(64) << 26
            if flags >> 26 & 0x3F in self.world.machine.perhaps.get(self.page, ()):
                flags ^= 1 << 26
        name = "search"
        if self.one_in(3):
            name = "a" * self.pick((1, 3, 8, 8, 0, 248, 249, 250, 251))
        elif self.one_in(6):
            name = "\u00e4/" * self.pick((1, 82, 83, 84))
        out = self.out()
        yield ("memfd", out, name, flags)
        if out in self.world.held and not self.one_in(4):
            yield ("ftruncate", out, self.pick(self._sizes))

    def _sealed(self, pages: int) -> Iterator[Op]:
        """A memfd that a udmabuf can be made of, most of the time."""
        page = self.page
        out = self.out()
        yield ("memfd", out, "search", MEMFD_SEALABLE)
        size = pages * page
        yield ("ftruncate", out, size - 1 - self.below(page) if self.one_in(16) else size)
        if not self.one_in(16):
            yield ("add_seals", out, self.pick((2, 2, 2, 6, 7)))

    def _udmabuf(self) -> Iterator[Op]:
        page = self.page
        if self.one_in(2):
            most = (1 << 20) // page  # where size_limit_mb is 1
            pages = self.pick((most, most, most + 1)) if self.one_in(40) else self.pick((1, 1, 2, 3, 4, 8))
            yield from self._sealed(pages)
        memfd = self.memfd_for_a_udmabuf(wrong=20)
        held = self.world.held.get(memfd)
        size = held.file.size if held is not None and held.file.size <= 300 * page else page
        whole = max(page, size // page * page)
        offset = 0 if self.one_in(2) else self.below(whole // page) * page
        length = whole - offset if self.one_in(2) else (1 + self.below((whole - offset) // page)) * page
        yield self._create(memfd, self.pick((0, 1)), offset, length)
        if not self.one_in(3):
            yield from self._use_new_buffer()

    def create(self, memfd: int, offset: int, size: int) -> Op:
        """A udmabuf of a part of *memfd*."""
        return self._create(memfd, 1, offset, size)

    def _create(self, memfd: int, flags: int, offset: int, size: int) -> Op:
        mask = (1 << 64) - 1
        payload = struct.pack("=IIQQ", 0, flags, offset & mask, size & mask)
        return self.ioctl(self.var("udmabuf device"), uapi.UDMABUF_CREATE, payload, [(0, 4, memfd)])

    def _bad_create(self) -> Iterator[Op]:
        page = self.page
        memfd = self.var("memfd", "huge memfd", wrong=5)
        held = self.world.held.get(memfd)
        end = held.file.size // page * page if held is not None else page
        far = (1 << 64) - page
        offset = self.pick((0, 0, 0, page, 1, page - 1, end, end + page, far, far - page, 1 << 63, (1 << 63) - page))
        # Sizes that the kernel would pin are kept small: the guest's memory is too.
        limit = (64 << 20) + page
        sizes = (0, 0, 1, page, page, page - 1, min(end + page, 8 * page), limit, far, far - offset, 1 << 63)
        size = self._huge_size if self.one_in(2 if self._may_be_huge else 20) else self.pick(sizes)
        if size == 0 and end > 64 * page:
            size = page
        if self.one_in(3):
            count = self.pick((0, 1, 1, 2, 3))
            first = (memfd, offset & far | offset & 1, size)
            yield self._list([first] * min(count, 1) + [(memfd, 0, page)] * max(0, count - 1))
        else:
            yield self._create(memfd, self.below(4), offset, size)

    def _list(self, items: Sequence[tuple[int, int, int]], count: int | None = None) -> Op:
        mask = (1 << 64) - 1
        count = len(items) if count is None else count
        payload = struct.pack("=II", self.below(4), count & 0xFFFF_FFFF)
        patches = []
        for index, (memfd, offset, size) in enumerate(items):
            payload += struct.pack("=IIQQ", 0, 0, offset & mask, size & mask)
            patches.append((8 + 24 * index, 4, memfd))
        # The kernel reads as many items as the head says, if there may be so many.
        payload = payload.ljust(8 + 24 * min(count & 0xFFFF_FFFF, 1025), b"\0")
        return self.ioctl(self.var("udmabuf device"), uapi.UDMABUF_CREATE_LIST, payload, patches)

    def _udmabuf_of_a_list(self) -> Iterator[Op]:
        page = self.page
        if self.one_in(2):
            yield from self._sealed(self.pick((1, 2, 4)))
        items = []
        for _ in range(1 + self.below(5)):
            memfd = self.memfd_for_a_udmabuf(wrong=40)
            held = self.world.held.get(memfd)
            pages = min(300, held.file.size // page) if held is not None else 1
            offset = self.below(max(1, pages))
            items.append((memfd, offset * page, (1 + self.below(max(1, min(4, pages - offset)))) * page))
        if self.one_in(10):
            at = self.below(len(items))
            memfd, offset, size = items[at]
            wrong = ((memfd, offset + 1, size), (memfd, offset, size + 1), (memfd, offset, 0), (0, offset, size))
            items[at] = self.pick(wrong)
        # Too long a list to be copied at once: of a shorter one the kernel reads what nobody has written.
        endless = max(1 << 20, largest_kmalloc(page) // 24 + 1)
        count = self.pick((*[None] * 5, 0, len(items) - 1, 1024, 1025, 0xFFFF_FFFF, endless))
        if count in (1024, 1025) and not self.one_in(4):
            count = None
        yield self._list(items, count)
        if self.one_in(2):
            yield from self._use_new_buffer()

    def _use_new_buffer(self) -> Iterator[Op]:
        page = self.page
        buffers = self.world.by_kind.get("dmabuf")
        if not buffers:
            return
        buffer = buffers[-1]
        held = self.world.held[buffer]
        size = max(page, min(held.file.size, 8 * page))
        yield ("mmap", self.out(), buffer, size, RW, SHARED, 0)
        if size > page and self.one_in(3):
            offset = (1 + self.below(size // page - 1)) * page
            yield ("mmap", self.out(), buffer, size - offset, RW, SHARED, offset)
        maps = [var for var in self.world.by_kind.get("memfd", ()) if not self.world.held[var].file.maps]
        if maps and self.one_in(2):
            size = min(self.world.held[maps[-1]].file.size, 8 * page)
            yield ("mmap", self.out(), maps[-1], size, RW, SHARED, 0)
        yield from self._write()

    def _allocate(self) -> Iterator[Op]:
        page = self.page
        length = self.pick((1, page - 1, page, page, 2 * page, 2 * page, page + 1, 4 * page, 16 * page))
        flags = self.pick((os.O_RDWR | os.O_CLOEXEC, os.O_RDWR, os.O_RDONLY, os.O_WRONLY, 3, os.O_RDWR | os.O_CLOEXEC))
        yield self._alloc(length, 0, flags, 0)
        if self.one_in(2):
            yield from self._use_new_buffer()

    def _alloc(self, length: int, fd: int, flags: int, heap_flags: int, request: int = uapi.DMA_HEAP_IOCTL_ALLOC) -> Op:
        payload = bytes(uapi.dma_heap_allocation_data.pack(length, fd, flags, heap_flags))
        return self.ioctl(self.var("heap device"), request, payload)

    def _odd_allocate(self) -> Iterator[Op]:
        page = self.page
        length, fd, flags, heap_flags, request = page, 0, os.O_RDWR | os.O_CLOEXEC, 0, uapi.DMA_HEAP_IOCTL_ALLOC
        roll = self.below(6)
        if roll == 0:
            length = self.pick((0, (1 << 64) - 1, (1 << 64) - page + 1, 0))
        elif roll == 1:
            fd = self.pick((1, 3, 0xFFFF_FFFF))
        elif roll == 2:
            flags = 1 << self.below(32) | self.below(4)
        elif roll == 3:
            heap_flags = 1 << self.below(64)
        else:
            size = self.pick((0, 1, 4, 7, 8, 9, 11, 12, 15, 16, 17, 20, 23, 24, 25, 32, 40, 64, 128, 129, 1000))
            request = self.below(4) << 30 | size << 16 | self.pick((0x48, 0x48, 0x62, 0)) << 8 | self.pick((0, 0, 0, 1))
        yield self._alloc(length, fd, flags, heap_flags, request)

    def _ftruncate(self) -> Iterator[Op]:
        length = self.pick(self._sizes)
        if self.one_in(6):
            length = self.pick((*self._far, -1, -(1 << 63), self.page * 100, 2 << 20, 4 << 20))
        yield ("ftruncate", self.var("memfd", "memfd", "huge memfd"), length)

    def _add_seals(self) -> Iterator[Op]:
        yield ("add_seals", self.var("memfd", "memfd", "memfd", "huge memfd", wrong=10), self.seals())

    def seals(self) -> int:
        """F_SEAL_WRITE rarely where there is a dma-buf: Linux waits 0.15 s for pages that one has pinned."""
        seals = self.pick(SEALS)
        if seals & uapi.F_SEAL_WRITE and self.world.by_kind.get("dmabuf") and not self.one_in(8):
            seals &= ~uapi.F_SEAL_WRITE
        return seals

    def _get_seals(self) -> Iterator[Op]:
        yield ("get_seals", self.var("memfd", "huge memfd", "dmabuf", "sync_file"))

    def _mmap(self) -> Iterator[Op]:
        page = self.page
        var = self.var("memfd", "dmabuf", "dmabuf", wrong=10)
        held = self.world.held.get(var)
        size = min(held.file.size, 16 * page) if held is not None else page
        length, prot, flags, offset = size, self.pick(_PROTECTIONS), SHARED, 0
        roll = self.below(8)
        if roll == 0:
            length = self.pick((0, 1, page - 1, page, size + 1, size + page, size - 1, self._far[3], 1 << 62))
        elif roll == 1:
            offset = self.pick((1, page, page, size, size + page, page - 1, 1 << 40, (1 << 63) - page))
            length = self.pick((1, page, max(1, size - page)))
        elif roll == 2:
            flags = self.pick((0, PRIVATE, PRIVATE, 3, 4, 0x0F, SHARED | 0x4000, SHARED | 0x100, 3 | 1 << 24))
        elif roll == 3:
            odd = (SHARED | 0x40000, PRIVATE | 0x40000, 3 | 0x80000, SHARED | 0x80000, SHARED | 0x800)
            flags = self.pick((*odd, SHARED | 0x8000, SHARED | 0x20000, 3 | 0x18000, PRIVATE | 0x8000))
        elif roll == 4:
            flags, length = PRIVATE, self.pick((page, size))
        if length < 0:
            length = 0
        if held is not None and held.kind in ("udmabuf device", "heap device", "path"):
            # How /dev is mounted decides whether that is EPERM.
            prot &= ~mmap.PROT_EXEC
        # A large mapping costs the fake real pages tables, and overcommitment decides: neither is what is asked.
        room = self.world.machine.longest_mapping
        if held is not None and held.kind in ("memfd", "huge memfd") and 16 * page < length <= room:
            length = page
        if length == 0 and held is not None and held.kind in ("memfd", "huge memfd") and held.file.size > 64 * page:
            length = page
        if prot == _EXEC:
            # Where the processor has protection keys, and the kernel knows them, Linux cannot read it to populate it.
            flags &= ~_MAP_POPULATE
        if len(self.world.by_kind.get("map", ())) > 8:
            yield ("unmap", self.pick(self.world.by_kind["map"]))
        yield ("mmap", self.out(), var, length, prot, flags, offset)

    def _unmap(self) -> Iterator[Op]:
        maps = self.world.by_kind.get("map")
        if maps:
            yield ("unmap", self.pick(maps))

    def _madvise(self) -> Iterator[Op]:
        """Advice about one of the mappings or a part of it, often one that does something."""
        page = self.page
        maps = self.world.by_kind.get("map")
        if not maps:
            return
        var = self.pick(maps)
        length = self.world.held[var].length
        advice = self.pick(_ADVICE) if self.one_in(2) else self.below(27)
        if self.one_in(12):
            advice = self.pick((-1, 26, 99, 102, 103, 104, 1 << 30))
        at, part = 0, length
        if self.one_in(2):
            at = self.pick((0, page, 2 * page, page, 1, length - 1, length, page - 1))
            part = self.pick((0, 1, page, page + 1, length, 2 * length))
        yield ("madvise", var, advice, at, part)
        while self.one_in(3):
            at, part = self.pick((0, 0, page, 2 * page)), self.pick((page, page, length))
            yield ("madvise", var, self.pick(_ADVICE), at, part)
        if self.one_in(3):
            yield from self._write()

    def _ask_mapping(self) -> Iterator[Op]:
        page = self.page
        maps = self.world.by_kind.get("map")
        if not maps:
            return
        var = self.pick(maps)
        length = self.world.held[var].length
        roll = self.below(4)
        if roll == 0:
            yield ("map_size", var)
        elif roll == 1:
            yield (
                "resize",
                var,
                self.pick((length, page, 2 * page, length + page, length - 1, 1, 0, 3 * page + 7, -1)),
            )
        else:
            at = self.pick((0, 0, 0, page, 1, length))
            yield ("flush", var, at, self.pick((length, length, length - at, 0, 1, page)))

    def _reopen(self) -> Iterator[Op]:
        """A file opened once more, mostly a memfd to read only, and something that shows the difference."""
        page = self.page
        out = self.out()
        var = self.var("memfd", "memfd", "memfd", "huge memfd", "dmabuf", "udmabuf device", "path", wrong=6)
        flags = self.pick((os.O_RDONLY, os.O_RDONLY, os.O_RDWR, os.O_WRONLY, 3, O_PATH))
        while self.one_in(3):
            flags |= self.pick(_OPEN_FLAGS)
        yield ("reopen", out, var, flags)
        if out not in self.world.held:
            return
        size, shared = min(self.world.held[out].file.size, 16 * page), self.pick((1, 1, 2))
        # How /dev is mounted decides whether a node's PROT_EXEC is EPERM.
        protections = _PROTECTIONS if self.world.held[out].file.kind == "memfd" else (RW, RO, 0, _WO)
        for _ in range(1 + self.below(3)):
            yield self.pick(
                (
                    (
                        "mmap",
                        self.out(),
                        out,
                        self.pick((page, size)),
                        self.pick(protections),
                        shared,
                        0,
                    ),
                    ("add_seals", out, self.seals()),
                    ("add_seals", var, self.seals()),
                    ("ftruncate", out, self.pick(self._sizes)),
                    ("lseek", out, self.pick((0, 1, page)), self.pick((0, 1, 2, 3, 4))),
                    ("lseek", var, 0, 1),
                    self._create(out, 1, 0, page),
                    ("reopen", self.out(), out, self.pick((os.O_RDONLY, os.O_RDWR, O_PATH))),
                )
            )

    def _write(self) -> Iterator[Op]:
        page = self.page
        maps = [var for var in self.world.by_kind.get("map", ()) if self.world.held[var].prot & mmap.PROT_WRITE]
        if maps:
            at = self.below(4) * page + self.pick((0, 0, 1, 100, page - 8, page - 1))
            data = self._random.getrandbits(64).to_bytes(8, "little")[: self.pick((1, 2, 8, 8))]
            yield ("write", self.pick(maps), at, data)

    def _sync(self) -> Iterator[Op]:
        buffer = self.var("dmabuf", wrong=30)
        if self.one_in(3):
            yield self.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, struct.pack("=Q", self.pick(_SYNC_BITS)))
            return
        access = 1 + self.below(3)
        steps = (0, 4) if not self.one_in(4) else (self.pick((0, 4)),)
        for step in steps:
            yield self.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, struct.pack("=Q", access | step))

    def _set_name(self) -> Iterator[Op]:
        length = self.pick((0, 1, 5, 5, 30, 31, 32, 33, 40))
        if self.one_in(4):
            # Whatever a byte can be but the end of a name and of a line, by which fdinfo is read.
            name = bytes(1 + self.below(255) for _ in range(length)).replace(bytes([_NEWLINE]), b" ")
        else:
            name = bytes(97 + self.below(26) for _ in range(length))
        request = self.pick((uapi.DMA_BUF_SET_NAME_A, uapi.DMA_BUF_SET_NAME_B))
        # Memory that ends where the name does must hold its NUL, or not: both are asked.
        yield self.ioctl(self.var("dmabuf"), request, name + b"\0" if self.one_in(2) or not name else name)

    def _export(self) -> Iterator[Op]:
        flags = self.pick((1, 2, 3, 3)) if not self.one_in(6) else self.pick((0, 4, 5, 7, 8, 1 << 31, 9))
        yield self.ioctl(self.var("dmabuf"), uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, struct.pack("=Ii", flags, -1))

    def _import(self) -> Iterator[Op]:
        flags = self.pick((1, 2, 3)) if not self.one_in(6) else self.pick((0, 4, 5, 7, 8, 1 << 31))
        source = self.var("sync_file", wrong=7)
        payload = struct.pack("=Ii", flags, -1)
        patches = [] if self.one_in(30) else [(4, 4, source)]
        yield self.ioctl(self.var("dmabuf"), uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, payload, patches)

    def _merge(self) -> Iterator[Op]:
        name = self.pick((b"", b"", b"both", b"x" * 31, b"y" * 32))
        flags, pad = (0, 0) if not self.one_in(8) else self.pick(((1, 0), (0, 1), (1 << 31, 5)))
        payload = bytes(uapi.sync_merge_data.pack(name, -1, self.pick((0, -1)), flags, pad))
        patches = [(32, 4, self.var("sync_file", wrong=8))]
        yield self.ioctl(self.var("sync_file"), uapi.SYNC_IOC_MERGE, payload, patches)

    def _info(self) -> Iterator[Op]:
        flags, pad = (0, 0) if not self.one_in(10) else self.pick(((1, 0), (0, 1), (1 << 31, 0)))
        room = self.pick((0, 0, 1, 2, 3, 8, 40))
        name = self.pick((b"", b"", b"z" * 32))
        payload = bytes(uapi.sync_file_info.pack(name, self.pick((0, 5)), flags, room, pad, self.pick((0, 8))))
        where = self.pick(("table", "table", "table", "table", "edge", None))
        patches = [(48, 8, where)] if where else []
        yield self.ioctl(self.var("sync_file"), uapi.SYNC_IOC_FILE_INFO, payload, patches)

    def _deadline(self) -> Iterator[Op]:
        payload = struct.pack("=QQ", self.pick((0, 1, 1 << 62, (1 << 64) - 1)), self.pick((0, 0, 0, 1, 1 << 63)))
        yield self.ioctl(self.var("sync_file"), uapi.SYNC_IOC_SET_DEADLINE, payload)

    def _fence(self) -> Iterator[Op]:
        if len(self.world.by_kind.get("fence", ())) > 6:
            yield from self._signal()
        sync_file = self.out()
        yield ("fence", self.out(), sync_file)
        for _ in range(self.below(3)):
            buffers = self.world.by_kind.get("dmabuf")
            if buffers:
                payload = struct.pack("=Ii", self.pick((1, 2, 3)), -1)
                yield self.ioctl(self.pick(buffers), uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, payload, [(4, 4, sync_file)])

    def _several_fences(self) -> Iterator[Op]:
        """A buffer that waits for more than one, what it exports, and too little room to be told of them."""
        buffer = self.var("dmabuf", wrong=40)
        # The list of a buffer's fences grows at the sixth, and at the fourteenth.
        count = 2 + self.below(2) if self.one_in(2) else 2 + self.below(6)
        for _ in range(count):
            fences = self.world.by_kind.get("fence", ())
            if len(fences) > 6:
                yield ("signal", self.pick(fences))
            sync_file = self.out()
            yield ("fence", self.out(), sync_file)
            payload = struct.pack("=Ii", self.pick((1, 2, 2, 3)), -1)
            yield self.ioctl(buffer, uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, payload, [(4, 4, sync_file)])
            yield ("close", sync_file)
        yield self.ioctl(buffer, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, struct.pack("=Ii", self.pick((1, 2, 3)), -1))
        newest = self.world.by_kind.get("sync_file", (0,))[-1:] or (0,)
        for room in (1, 2, self.pick((0, 3, 8))):
            payload = bytes(uapi.sync_file_info.pack(b"", 0, 0, room, 0, 0))
            yield self.ioctl(newest[0], uapi.SYNC_IOC_FILE_INFO, payload, [(48, 8, "table")])
        if self.one_in(2):
            # All of them once more, some of them signalled.
            for _ in range(self.below(3)):
                yield from self._signal()
            again = struct.pack("=Ii", self.pick((1, 2, 3)), -1)
            yield self.ioctl(buffer, uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, again, [(4, 4, newest[0])])
            yield self.ioctl(buffer, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, struct.pack("=Ii", self.pick((1, 2, 3)), -1))
            newest = self.world.by_kind.get("sync_file", (0,))[-1:] or (0,)
            payload = bytes(uapi.sync_file_info.pack(b"", 0, 0, 40, 0, 0))
            yield self.ioctl(newest[0], uapi.SYNC_IOC_FILE_INFO, payload, [(48, 8, "table")])

    def _signal(self) -> Iterator[Op]:
        fences = self.world.by_kind.get("fence")
        if fences:
            yield ("signal", self.pick(fences))

    def _poll(self) -> Iterator[Op]:
        events = self.below(1 << 16) if self.one_in(5) else self.pick(EVENTS)
        yield ("poll", self.var("dmabuf", "dmabuf", "sync_file", "memfd", wrong=6), events)

    def _lseek(self) -> Iterator[Op]:
        var = self.var("dmabuf", "memfd", "huge memfd", "sync_file", wrong=6)
        held = self.world.held.get(var)
        size = held.file.size if held is not None and held.file.size < 1 << 62 else 0
        near = (0, 0, 0, 1, -1, self.page, size, size - 1, size + 1, -size, -size - 1)
        offset = self.pick((*near, 1 << 40, (1 << 63) - 1, -(1 << 63)))
        yield ("lseek", var, offset, self.pick((0, 1, 2, 2, 3, 4, 5, -1, 77)))

    def _dup(self) -> Iterator[Op]:
        yield ("dup", self.out(), self.any_var())

    def _close(self) -> Iterator[Op]:
        if self.one_in(3):
            yield from self._close_something()
        else:
            yield ("close", self.var("dmabuf", "sync_file", "sync_file", "path"))

    def _close_something(self) -> Iterator[Op]:
        var = self.any_var()
        held = self.world.held.get(var)
        # The last descriptor of a node is opened again: nothing deep can be reached without.
        yield ("close", var)
        if held is not None and held.kind.endswith("device") and len(self.world.by_kind[held.kind]) < 1:
            yield ("open", self.out(), UDMABUF if held.kind.startswith("udmabuf") else SYSTEM_HEAP, os.O_RDWR)

    def _fio(self) -> Iterator[Op]:
        request = self.pick(tuple(FIO.values())[:7])
        if self.one_in(4):
            yield ("ioctl", self.out(), self.any_var(), request, "i", self.pick((0, 1)), 0, [])
        yield self.ioctl(self.any_var(), request, struct.pack("=q", self.pick((0, 1, -5, 0))))

    def _odd_request(self) -> Iterator[Op]:
        request = self.pick(REQUEST_NUMBERS)
        roll = self.below(5)
        if roll == 0:
            request ^= 1 << 30 + self.below(2)
        elif roll == 1:
            request ^= 1 << 16 + self.below(6)
        elif roll == 2:
            request ^= 1 << self.below(8)
        elif roll == 3:
            request = request & ~0xFF00 | ord(self.pick("bHu>Td")) << 8
        else:
            request = request & ~0xFF | self.below(8)
        payload = self._random.getrandbits(64 * 8).to_bytes(64, "little") if self.one_in(3) else bytes(64)
        # Small values mean something more often than random ones; and no heap may be asked for much.
        payload = struct.pack("=QIIQ", self.pick((1, 2, 3, self.page)), 0, 2, 0) + payload[24:]
        yield self.ioctl(self.any_var(), request, payload)

    def _wrong_kind(self) -> Iterator[Op]:
        payload = struct.pack("=QIIQ", self.pick((1, 2, 3, self.page)), 0, 2, 0).ljust(64, b"\0")
        yield self.ioctl(self.any_var(), self.pick(REQUEST_NUMBERS), payload)


def name_of(request: int) -> str:
    """A request's short name, what is odd about it where it has none."""
    return _NAMES.get(request) or ("ALLOC of another size" if request & 0xFFFF == _ALLOC_NUMBER else "odd request")


_NAMES = {number: name for name, number in REQUESTS.items()}
_ALLOC_NUMBER = uapi.DMA_HEAP_IOCTL_ALLOC & 0xFFFF
