"""Productions that move bytes by descriptors, or ask for room: what a memfd does and a dma-buf refuses."""

from __future__ import annotations

import fcntl
import os

from tests.run.search.generating.generator import PAGE, Generator
from tests.run.search.generating.model import File

_LENGTHS = (1, 8, 100, PAGE, PAGE, 2 * PAGE + 5)
_OFFSETS = (0, 0, 1, PAGE, PAGE - 4, 2 * PAGE, -1)
_KEEP_SIZE, _PUNCH = 1, 2
_MODES = (0, 0, _KEEP_SIZE, _KEEP_SIZE | _PUNCH, _KEEP_SIZE | _PUNCH, _PUNCH, 8, 0x10, 0x11, 0x20, 0x40, 0x41)


def _movable(g: Generator) -> int | None:
    slot = g.slot_of("memfd", "memfd", "dmabuf") if g.chance(0.9) else g.slot_of("sync", "udmabuf", "heap", "memfd")
    if slot is None or g.is_hidden(slot):
        return None
    file = g.file_of(slot)
    return None if file is not None and file.kind in ("socket", "reader", "writer") else slot


def _may_grow(g: Generator, slot: int) -> bool:
    """Whether bytes may be written there: how many of those that would make it longer than its seals let it become are
    written differs between releases, and a memfd is the host's own. Then it is noted.
    """
    file = g.file_of(slot)
    if file is None or not file.seals & fcntl.F_SEAL_GROW:
        return True
    g.left_out["bytes to a memfd with F_SEAL_GROW, which is the host's own"] += 1
    return False


def _wrote(g: Generator, slot: int, end: int) -> None:
    file = g.file_of(slot)
    if file is not None and file.kind == "memfd" and not file.seals & 12:
        file.size = max(file.size, end)


def read(g: Generator) -> None:
    slot = _movable(g)
    if slot is None:
        return
    if g.chance(0.5):
        g.do("read", slot, g.pick(_LENGTHS))
    else:
        g.do("pread", slot, g.pick(_LENGTHS), g.pick(_OFFSETS))


def write(g: Generator) -> None:
    slot = _movable(g)
    if slot is None or not _may_grow(g, slot):
        return
    length, byte = g.pick(_LENGTHS), g.random.randrange(256)
    if g.chance(0.4):
        g.do("write", slot, length, byte)
    else:
        at = g.pick(_OFFSETS)
        g.do("pwrite", slot, length, at, byte)
        _wrote(g, slot, at + length)


def fallocate(g: Generator) -> None:
    slot = g.slot_of("memfd", "dmabuf")
    if slot is None:
        return
    mode, file = g.pick(_MODES), g.file_of(slot)
    if mode & _PUNCH and file is not None and file.is_pinned:
        g.left_out["a hole in a memfd that a udmabuf has pages of"] += 1
        return
    at, length = g.pick(_OFFSETS), g.pick((*_LENGTHS, 0))
    g.do("fallocate", slot, mode, at, length)
    if file is not None:
        file.has_holes = True
    if mode == 0 and length:
        _wrote(g, slot, at + length)


def fsync(g: Generator) -> None:
    slot = g.slot_of("memfd", "dmabuf") if g.chance(0.9) else g.slot_of()
    if slot is not None:
        g.do("fsync", slot, g.random.randrange(2))


def pipe(g: Generator) -> None:
    slots = g.free_slots(2)
    if len(slots) == 2 and not any(g.held("reader")):
        closes = g.chance(0.5)
        g.do("pipe", os.O_CLOEXEC if closes else 0, *slots)
        g.put(slots[0], File("reader"), closes=closes, is_low=True)
        g.put(slots[1], File("writer"), closes=closes, is_low=True)


def sendfile(g: Generator) -> None:
    to = g.slot_of("memfd", "writer", "dmabuf")
    by = g.slot_of("memfd", "dmabuf")
    if to is not None and by is not None and _may_grow(g, to):
        g.do("sendfile", to, by, g.pick((0, 0, PAGE, -1)), g.pick(_LENGTHS))


def splice(g: Generator) -> None:
    reader, writer = g.slot_of("reader"), g.slot_of("writer")
    file = g.slot_of("memfd", "memfd", "dmabuf")
    if reader is None or writer is None or file is None:
        return
    if g.chance(0.5):
        g.do("splice", file, g.pick((0, PAGE, -1)), writer, g.pick(_LENGTHS), 0)
    elif _may_grow(g, file):
        g.do("splice", reader, g.pick((0, PAGE, -1)), file, g.pick(_LENGTHS), 1)


def copy_range(g: Generator) -> None:
    by, to = g.slot_of("memfd", "dmabuf"), g.slot_of("memfd", "dmabuf")
    if by is not None and to is not None and _may_grow(g, to):
        g.do("copy_range", by, g.pick((0, PAGE)), to, g.pick((0, PAGE, 2 * PAGE)), g.pick(_LENGTHS))


PRODUCTIONS = (
    (4, read),
    (4, write),
    (4, fallocate),
    (1, fsync),
    (1, pipe),
    (2, sendfile),
    (2, splice),
    (2, copy_range),
)
