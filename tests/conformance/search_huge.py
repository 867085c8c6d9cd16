"""Operations on huge pages, where the kernel has reserved some: memfds of them, mappings, holes, udmabufs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dmasync import uapi

if TYPE_CHECKING:
    from tests.conformance.search_generator import Generator
    from tests.conformance.search_world import Op

_RW, _RO = 3, 1
_SHARED, _PRIVATE = 1, 2
_POPULATE, _STACK, _HUGETLB = 0x8000, 0x20000, 0x40000
_ODD_FLAGS = (_SHARED | _POPULATE, _PRIVATE | _POPULATE, 3, _SHARED | _HUGETLB, _SHARED | _STACK)
_FLAGS = (*(_SHARED, _PRIVATE) * 3, _SHARED, *_ODD_FLAGS)
_ADVICE = (0, 1, 2, 4, 4, 9, 9, 10, 11, 14, 15, 16, 17, 22, 23, 24)
_MOST_FILES = 3
"""A page that was promised a udmabuf may take, before 6.17, and whoever touches it then dies: they must not run out."""
_FIOQSIZE = 0x5460


def huge_pages(generator: Generator) -> Iterator[Op]:
    """A memfd of huge pages and what can be done with it; some of it is left behind."""
    world, pick, one_in = generator.world, generator.pick, generator.one_in
    count = world.huge_pages
    if not count or len(world.by_kind.get("huge memfd", ())) >= _MOST_FILES:
        return
    huge, page = generator.page * (generator.page // 8), generator.page
    memfd, pages, maps, buffers = generator.out(), pick((1, 1, 2, 2, 3)), [], []
    yield ("memfd", memfd, "huge", uapi.MFD_CLOEXEC | uapi.MFD_ALLOW_SEALING | uapi.MFD_HUGETLB)
    yield ("ftruncate", memfd, pages * huge)
    if not one_in(4):
        yield ("add_seals", memfd, pick((uapi.F_SEAL_SHRINK, uapi.F_SEAL_SHRINK, 6)))
    for _ in range(3 + generator.below(8)):
        what = generator.below(12)
        if what < 3:
            maps.append(generator.out())
            first = generator.below(pages)
            offset = first * huge + (page if one_in(12) else 0)
            length = huge if one_in(2) else (pages - first) * huge
            yield ("mmap", maps[-1], memfd, length, pick((_RW, _RW, _RW, _RO)), pick(_FLAGS), offset)
        elif what < 6 and maps:
            data = bytes((1 + generator.below(255),)) * pick((1, 2, 8))
            yield ("write", pick(maps), generator.below(pages) * huge + pick((0, 1, page, 7 * page, huge - 8)), data)
        elif what < 9 and maps:
            yield ("madvise", pick(maps), pick(_ADVICE), *_range(generator, huge))
        elif what == 9:
            begin = generator.below(pages) * huge + pick((0, 0, page, huge - page))
            created = generator.create(memfd, begin, pick((page, page, 2 * page, huge, huge + page)))
            buffers.append(created[1])
            yield created
        elif what == 10 and buffers:
            view = generator.out()
            yield ("mmap", view, pick(buffers), pick((page, 2 * page, huge)), pick((_RW, _RO)), _SHARED, 0)
            maps.append(view)
        else:
            yield pick(
                (
                    generator.ioctl(memfd, _FIOQSIZE, bytes(8)),
                    ("ftruncate", memfd, pick((0, huge, pages * huge, (pages + 1) * huge, pages * huge + page))),
                    ("lseek", memfd, pick((0, huge, page)), pick((0, 2, 3, 4))),
                    ("add_seals", memfd, pick((4, 8, 16, 1))),
                    ("resize", pick(maps or [memfd]), pick((huge, pages * huge, (pages + 1) * huge))),
                    ("flush", pick(maps or [memfd]), 0, page),
                )
            )
    yield generator.ioctl(memfd, _FIOQSIZE, bytes(8))
    if one_in(6):
        yield from _more_than_there_are(generator, count, huge)
    for var in maps:
        if not one_in(8):
            yield ("unmap", var)
    for var in [*buffers, memfd]:
        if not one_in(8):
            yield ("close", var)


def _range(generator: Generator, huge: int) -> tuple[int, int]:
    """Where in a mapping: mostly whole huge pages."""
    begin = generator.below(2) * huge
    length = generator.pick((huge, huge, 2 * huge))
    if generator.one_in(4):
        begin += generator.pick((0, generator.page, huge - generator.page))
        length = generator.pick((generator.page, huge, huge + generator.page, 2 * huge))
    return begin, length


def _more_than_there_are(generator: Generator, count: int, huge: int) -> Iterator[Op]:
    memfd = generator.out()
    yield ("memfd", memfd, "too many", uapi.MFD_CLOEXEC | uapi.MFD_ALLOW_SEALING | uapi.MFD_HUGETLB)
    yield ("ftruncate", memfd, (count + 1) * huge)
    flags = generator.pick((_SHARED, _PRIVATE))
    yield ("mmap", generator.out(), memfd, (count + 1) * huge, _RW, flags, 0)
    yield ("close", memfd)
