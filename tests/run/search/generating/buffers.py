"""Productions that make memfds, dma-bufs and sync files, and ask them."""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Sequence

from tests.run.search.generating.generator import PAGE, Generator
from tests.run.search.generating.model import File

_PATHS = (
    "/dev/udmabuf",
    "/dev/dma_heap/system",
    "/dev/dma_heap/nosuch",
    "/dev/udmabuf/",
    "/dev//udmabuf",
    "/dev/dma_heap/system/x",
)
_SIZES = (0, 1, PAGE - 1, PAGE, PAGE, 2 * PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE, 4 * PAGE, 8 * PAGE, 16 * PAGE, PAGE + 1)
_SEALS = (1, 2, 2, 2, 2, 4, 6, 8, 10, 16, 18, 32, 34, 63, 64, 0)
_F_SEAL_EXEC = 32
_SHRINK = fcntl.F_SEAL_SHRINK
_NEEDED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE
"""What a udmabuf looks at."""
_FUTURE_WRITE = 16
_SEALED = "F_SEAL_FUTURE_WRITE of a memfd that a udmabuf has pages of"
_EVENTS = (select.POLLIN, select.POLLOUT, select.POLLIN | select.POLLOUT, select.POLLPRI, 0)
_SYNC = (0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7, 7, 8, 1 << 32 | 1)
CLOEXEC = os.O_CLOEXEC


def open_node(g: Generator) -> None:
    path = g.pick(_PATHS[:2]) if g.chance(0.85) else g.pick(_PATHS)
    flags = g.pick((os.O_RDWR, os.O_RDWR, os.O_RDONLY, os.O_WRONLY, os.O_RDWR | 0o10000000)) | (
        CLOEXEC if g.chance(0.5) else 0
    )
    slot = g.free_slot()
    g.do("open", flags, slot, data=path)
    kind = {"/dev/udmabuf": "udmabuf", "/dev//udmabuf": "udmabuf", "/dev/dma_heap/system": "heap"}.get(path)
    if kind is not None:
        g.put(slot, File("place" if flags & 0o10000000 else kind), closes=bool(flags & CLOEXEC))


def memfd(g: Generator) -> None:
    flags = g.pick((2, 3, 3, 2, 2, 0, 1, 8, 16)) if g.chance(0.9) else g.pick((64, 24, 4))
    slot = g.free_slot()
    g.do("memfd", flags, slot, data=g.pick(("m", "frame", "a b", "")))
    if flags in (64, 24, 4):
        return
    file = File("memfd", seals=0 if flags & (2 | 8) else 1)
    g.put(slot, file, closes=bool(flags & 1), is_low=True)
    if g.chance(0.9):
        file.size = g.pick(_SIZES)
        g.do("ftruncate", slot, file.size)
    if flags & 2 and g.chance(0.7):
        file.seals |= 2
        g.do("add_seals", slot, 2)


def ftruncate(g: Generator) -> None:
    slot = g.slot_of("memfd", "memfd", "dmabuf")
    if slot is None:
        return
    size = g.pick(_SIZES)
    g.do("ftruncate", slot, size)
    file = g.file_of(slot)
    if file is not None and file.kind == "memfd" and not file.seals & 6:
        file.size = size


def add_seals(g: Generator) -> None:
    slot = g.slot_of("memfd") if g.chance(0.9) else g.slot_of("dmabuf")
    if slot is None:
        return
    seals, file = g.pick(_SEALS), g.file_of(slot)
    if file is not None and file.is_pinned and g.chance(0.85):
        seals &= ~(fcntl.F_SEAL_WRITE | _F_SEAL_EXEC)  # Linux waits 0.15 s for the pages before it says no
    if file is not None and file.is_pinned and seals & _FUTURE_WRITE:
        g.left_out[_SEALED] += 1
        seals &= ~_FUTURE_WRITE
    g.do("add_seals", slot, seals)
    if file is not None and not file.seals & 1:
        file.seals |= seals & 63


def get_seals(g: Generator) -> None:
    slot = g.slot_of()
    if slot is not None:
        g.do("get_seals", slot)


def _piece(g: Generator, slot: int) -> tuple[int, int, int]:
    """(slot, offset, size) for a udmabuf."""
    file = g.file_of(slot)
    pages = 0 if file is None else file.size // PAGE
    if g.chance(0.08) or not pages:
        return slot, g.pick((0, PAGE, 1, 1 << 40)), g.pick((0, PAGE, 1, 1 << 30, PAGE * (pages + 1)))
    first = g.random.randrange(pages) if g.chance(0.5) else 0
    return slot, first * PAGE, g.random.randint(1, pages - first) * PAGE


def _sealed(g: Generator) -> int | None:
    """A memfd that a udmabuf can be made of; made on the spot where there is none."""
    if g.chance(0.06):
        return g.slot_of()
    found = [slot for slot, held in g.held("memfd") if held.file.seals & _NEEDED == _SHRINK and held.file.size]
    if found and g.chance(0.8):
        return g.pick(found)
    slot = g.free_slot()
    file = File("memfd", size=g.pick((1, 2, 4, 8)) * PAGE, seals=2)
    g.do("memfd", 3, slot, data="frame")
    g.do("ftruncate", slot, file.size)
    g.do("add_seals", slot, 2)
    g.put(slot, file, closes=True, is_low=True)
    return slot


def _node(g: Generator, kind: str) -> int:
    slot = g.slot_of(kind)
    if slot is None:
        slot = g.free_slot()
        g.do("open", os.O_RDWR | CLOEXEC, slot, data=_PATHS[kind == "heap"])
        g.put(slot, File(kind), closes=True)
    return slot


def udmabuf(g: Generator) -> None:
    node, slot = _node(g, "udmabuf"), _sealed(g)
    if slot is None:
        return
    piece = _piece(g, slot)
    _, offset, size = piece
    flags = g.pick((0, 1, 1)) if g.chance(0.97) else 2
    to = g.free_slot()
    if _is_sealed(g, [slot]):
        return
    g.do("udmabuf", node, slot, flags, offset, size, to)
    _made(g, to, piece, closes=bool(flags & 1))


def udmabuf_list(g: Generator) -> None:
    node = _node(g, "udmabuf")
    pieces: list[int] = []
    for _ in range(g.pick((1, 2, 2, 3, 4)) if g.chance(0.97) else 0):
        slot = _sealed(g)
        if slot is not None:
            pieces += _piece(g, slot)
    flags, to = g.pick((0, 1)), g.free_slot()
    if _is_sealed(g, pieces[::3]):
        return
    g.do("udmabuf_list", node, flags, len(pieces) // 3, to, data=pieces)
    _made(g, to, pieces, closes=bool(flags & 1))


def _is_sealed(g: Generator, slots: Sequence[int]) -> bool:
    files = [g.file_of(slot) for slot in slots]
    found = any(file is not None and file.seals & _FUTURE_WRITE for file in files)
    if found:
        g.left_out[_SEALED] += 1
    return found


def _made(g: Generator, to: int, pieces: Sequence[int], *, closes: bool) -> None:
    of, size = [], 0
    for slot, offset, length in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        file = g.file_of(slot)
        if (
            file is None
            or file.kind != "memfd"
            or file.seals & _NEEDED != _SHRINK
            or not 0 < length <= file.size - offset
        ):
            return
        of.append(file)
        size += length
    for file in of:
        file.is_pinned = True
    if of:
        g.put(to, File("dmabuf", size=size, of=of), closes=closes)


def allocate(g: Generator) -> None:
    node, to = _node(g, "heap"), g.free_slot()
    size = g.pick((PAGE, PAGE, 2 * PAGE, 4 * PAGE, 5000, 16 * PAGE)) if g.chance(0.95) else 0
    flags = g.pick((os.O_RDWR, os.O_RDWR, os.O_RDONLY, os.O_WRONLY)) | (CLOEXEC if g.chance(0.5) else 0)
    heap_flags = 0
    if g.chance(0.04):
        flags, heap_flags = g.pick(((os.O_APPEND, 0), (os.O_RDWR, 1), (os.O_RDWR | os.O_NONBLOCK, 0)))
    g.do("heap", node, size, flags, heap_flags, to)
    if size and not heap_flags and not flags & (os.O_APPEND | os.O_NONBLOCK):
        can_write = flags & os.O_ACCMODE != os.O_RDONLY
        g.put(to, File("dmabuf", size=-(-size // PAGE) * PAGE, writable=can_write), closes=bool(flags & CLOEXEC))


def sync(g: Generator) -> None:
    slot = g.slot_of("dmabuf")
    if slot is None:
        return
    if g.chance(0.7):
        access = g.pick((1, 2, 3))
        g.do("sync", slot, access)
        g.do("sync", slot, access | 4)
    else:
        g.do("sync", slot, g.pick(_SYNC))


def set_name(g: Generator) -> None:
    slot = g.slot_of("dmabuf")
    if slot is not None:
        g.do("set_name", slot, data=g.pick(("frame", "", "x" * 31, "x" * 40, "a b", "ä")))


def export(g: Generator) -> None:
    slot, to = g.slot_of("dmabuf"), g.free_slot()
    if slot is not None:
        flags = g.pick((1, 2, 3)) if g.chance(0.95) else g.pick((0, 4, 7))
        g.do("export", slot, flags, to)
        if flags in (1, 2, 3) and g.file_of(slot) is not None:
            g.put(to, File("sync"), closes=True)


def import_(g: Generator) -> None:
    slot, sync_file = g.slot_of("dmabuf"), g.slot_of("sync")
    if slot is not None and sync_file is not None:
        g.do("import", slot, g.pick((1, 2, 3, 3)) if g.chance(0.95) else 4, sync_file)


def file_info(g: Generator) -> None:
    slot = g.slot_of("sync")
    if slot is not None:
        g.do("file_info", slot)


def merge(g: Generator) -> None:
    one, two, to = g.slot_of("sync"), g.slot_of("sync"), g.free_slot()
    if one is not None and two is not None:
        g.do("merge", one, two, to, data=g.pick(("both", "")))
        if all((file := g.file_of(slot)) is not None and file.kind == "sync" for slot in (one, two)):
            g.put(to, File("sync"), closes=True)


def poll(g: Generator) -> None:
    slot = g.slot_of("dmabuf", "sync") if g.chance(0.9) else g.slot_of()
    if slot is not None:
        g.do("poll", slot, g.pick(_EVENTS))


def lseek(g: Generator) -> None:
    slot = g.slot_of("dmabuf", "memfd")
    if slot is None:
        return
    whence = g.pick((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE))
    if whence == os.SEEK_SET and g.is_hidden(slot):
        return
    file = g.file_of(slot)
    if whence in (os.SEEK_DATA, os.SEEK_HOLE) and file is not None and file.has_holes:
        g.left_out["what is a hole in a memfd that fallocate() changed, which is the host's own"] += 1
        return
    g.do("lseek", slot, 0 if g.chance(0.7) else g.pick((PAGE, -1, 1, 1 << 40)), whence)


PRODUCTIONS = (
    (2, open_node), (5, memfd), (3, ftruncate), (3, add_seals), (1, get_seals), (9, udmabuf), (5, udmabuf_list),
    (7, allocate), (10, sync), (3, set_name), (4, export), (3, import_), (2, file_info), (2, merge), (4, poll),
    (4, lseek),
)  # fmt: skip
