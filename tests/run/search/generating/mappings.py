"""Productions of what takes addresses: mappings, their bytes, and what becomes of both."""

from __future__ import annotations

import mmap as mm
from dataclasses import replace

from tests.run.search.generating.generator import PAGE, Generator
from tests.run.search.generating.model import ARENA_PAGES, Mapped

_SHARED, _PRIVATE, _FIXED, _POPULATE, _NOREPLACE = 0x01, 0x02, 0x10, 0x8000, 0x100000
_MAYMOVE, _MOVE_FIXED, _KEEP = 1, 2, 4
_REMOVE, _DONTFORK, _DOFORK = 9, 10, 11
_ADVICE = (0, 1, 2, 3, 4, _REMOVE, _DONTFORK, _DONTFORK, _DOFORK, 14, 15, 16, 17, 18, 19, 20, 22, 23)
"""NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, REMOVE, DONTFORK, DOFORK, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP,
WIPEONFORK, KEEPONFORK, COLD, POPULATE_READ, POPULATE_WRITE."""
_ONCE = (3, 4, 9, 20, 22, 23)
"""Advice that leaves no trace in an area."""
_RW, _RO = mm.PROT_READ | mm.PROT_WRITE, mm.PROT_READ


def mmap(g: Generator) -> None:
    slot = g.slot_of("dmabuf", "memfd")
    file = None if slot is None else g.file_of(slot)
    if slot is None:
        return
    pages = -(-file.size // PAGE) if file is not None and file.size else 1
    offset = g.random.randrange(pages) if g.chance(0.3) else 0
    count = g.random.randint(1, pages - offset) if g.chance(0.5) else pages - offset
    if g.chance(0.05):
        count += 1
    prot = g.pick((_RW, _RW, _RW, _RO, 0))
    flags = _SHARED
    if g.chance(0.06):
        flags = _PRIVATE
        if g.is_hidden(slot):
            return
    at = g.free_pages(count)
    if at >= ARENA_PAGES:
        return
    flags |= g.pick((_FIXED, _FIXED, _NOREPLACE, 0)) | (_POPULATE if g.chance(0.1) and flags == _SHARED else 0)
    g.do("mmap", at * PAGE, count * PAGE, prot, flags, slot, offset * PAGE)
    if file is not None and file.kind in ("dmabuf", "memfd"):
        area = g.state.area()
        for page in range(at, at + count):
            g.actor.memory.pages[page] = Mapped(file, area)


def _area(g: Generator) -> tuple[int, int] | None:
    areas = g.areas(g.actor)
    return g.pick(areas) if areas else None


def _part(g: Generator) -> tuple[int, int] | None:
    """(page, pages) of what is mapped, often all of an area."""
    area = _area(g)
    if area is None:
        return None
    first, count = area[0] // PAGE, area[1] // PAGE
    if g.chance(0.5):
        return first, count
    begin = g.random.randrange(count)
    return first + begin, g.random.randint(1, count - begin)


def munmap(g: Generator) -> None:
    part = _part(g)
    if part is not None:
        g.do("munmap", part[0] * PAGE, part[1] * PAGE)
        _clear(g, *part)


def _clear(g: Generator, first: int, count: int) -> None:
    for page in range(first, first + count):
        g.actor.memory.pages.pop(page, None)


def mprotect(g: Generator) -> None:
    part = _part(g)
    if part is None:
        return
    prot = g.pick((_RW, _RO, _RO, 0, _RW | mm.PROT_EXEC)) if g.chance(0.95) else 1 << 20
    g.do("mprotect", part[0] * PAGE, part[1] * PAGE, prot)
    _part_from_others(g, *part)


def _part_from_others(g: Generator, first: int, count: int) -> None:
    """These pages are made to be other than their neighbours."""
    area = g.state.area()
    for page in range(first, first + count):
        mapped = g.actor.memory.pages.get(page)
        if mapped is not None:
            g.actor.memory.pages[page] = replace(mapped, area=area)


def _is_several(g: Generator, first: int, count: int) -> bool:
    """Whether these pages may be in several areas, one of them a memfd's: newer kernels than some move those at once,
    and the memfd is the host's own. Then it is noted.
    """
    found = [g.actor.memory.pages.get(page) for page in range(first, first + count)]
    several = len({None if one is None else one.area for one in found}) > 1
    several = several and any(one is None or one.file is None or one.file.kind == "memfd" for one in found)
    if several:
        g.left_out["mremap of several areas of a memfd, which is the host's own"] += 1
    return several


def mremap(g: Generator) -> None:
    """Moved, grown or cut; over what is there; with the old place kept mapped."""
    part = _part(g)
    if part is None:
        return
    first, count = part
    new = g.pick((count, count, count + 1, max(1, count - 1), 2 * count))
    flags = g.pick((0, _MAYMOVE, _MAYMOVE, _MAYMOVE | _MOVE_FIXED, _MAYMOVE | _MOVE_FIXED, _MAYMOVE | _KEEP))
    if flags & _KEEP:
        new = count if g.chance(0.9) else new
        flags |= _MOVE_FIXED  # the kernel would choose a place otherwise
    at = g.free_pages(new)
    if at >= ARENA_PAGES:
        return
    if flags & _MOVE_FIXED and _is_several(g, first, count):
        return
    g.do("mremap", first * PAGE, count * PAGE, new * PAGE, flags, at * PAGE)
    pages = g.actor.memory.pages
    files = {None if page not in pages else pages[page].file for page in range(first, first + count)}
    file = files.pop() if len(files) == 1 else None
    if file is None or (file.kind == "dmabuf" and (new > count or flags & _KEEP)):
        return  # Linux refuses it
    old = [pages[page] for page in range(first, first + count)]
    if flags & _MOVE_FIXED or (new > count and flags):
        if not flags & _KEEP:
            _clear(g, first, count)
        area = g.state.area() if len({one.area for one in old}) == 1 else None
        for page in range(new):
            mapped = old[min(page, count - 1)]
            pages[at + page] = mapped if area is None else replace(mapped, area=area)
    elif new < count:
        _clear(g, first + new, count - new)
    elif new > count:
        for page in range(count, new):
            pages.setdefault(first + page, old[-1])


def madvise(g: Generator) -> None:
    part = _part(g)
    if part is None:
        return
    advice = g.pick(_ADVICE)
    pages = g.actor.memory.pages
    if advice == _REMOVE and any(
        one is not None and (one.file is None or one.file.is_pinned)
        for page in range(part[0], part[0] + part[1])
        for one in [pages.get(page)]
    ):
        g.left_out["a hole in a memfd that a udmabuf has pages of"] += 1
        return
    g.do("madvise", part[0] * PAGE, part[1] * PAGE, advice)
    if advice == _REMOVE:
        for page in range(part[0], part[0] + part[1]):
            mapped = pages.get(page)
            if mapped is not None and mapped.file is not None:
                mapped.file.has_holes = True
    if advice not in _ONCE:
        _part_from_others(g, *part)
    if advice in (_DONTFORK, _DOFORK):
        for page in range(part[0], part[0] + part[1]):
            mapped = pages.get(page)
            if mapped is not None:
                pages[page] = replace(mapped, is_inherited=advice == _DOFORK)


def msync(g: Generator) -> None:
    part = _part(g)
    if part is not None:
        g.do("msync", part[0] * PAGE, part[1] * PAGE, g.pick((1, 2, 4, 4, 5, 6)))


def poke(g: Generator) -> None:
    part = _part(g)
    if part is not None:
        at = part[0] * PAGE + g.pick((0, 0, 8, 100, PAGE - 8))
        g.do("poke", at, g.pick((1, 8, 16)) if g.chance(0.7) else PAGE, g.random.randrange(256))


def peek(g: Generator) -> None:
    area = _area(g)
    if area is not None:
        g.do("peek", *area)


PRODUCTIONS = (
    (9, mmap), (3, munmap), (3, mprotect), (4, mremap), (4, madvise), (1, msync), (9, poke), (2, peek),
)  # fmt: skip
