"""The parts that advice splits a mapping into (``mm/vma.c``): Linux keeps flags for each, and each holds the file."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from types import MappingProxyType
from typing import Final, NamedTuple


class VmFlags(IntFlag):
    """What advice changes: flags of include/linux/mm.h, whose numbers nobody sees."""

    NONE = 0
    SEQ_READ = 1
    RAND_READ = 2
    DONTCOPY = 4
    DONTDUMP = 8
    HUGEPAGE = 16
    NOHUGEPAGE = 32


class _Change(NamedTuple):
    clears: VmFlags
    sets: VmFlags


_READS: Final = VmFlags.SEQ_READ | VmFlags.RAND_READ
# By the numbers of asm-generic/mman-common.h; advice that is not here changes no flag, and splits nothing.
_CHANGES: Final[Mapping[int, _Change]] = MappingProxyType(
    {
        0: _Change(_READS, VmFlags.NONE),  # MADV_NORMAL
        1: _Change(_READS, VmFlags.RAND_READ),
        2: _Change(_READS, VmFlags.SEQ_READ),
        10: _Change(VmFlags.NONE, VmFlags.DONTCOPY),  # MADV_DONTFORK
        11: _Change(VmFlags.DONTCOPY, VmFlags.NONE),
        14: _Change(VmFlags.NOHUGEPAGE, VmFlags.HUGEPAGE),
        15: _Change(VmFlags.HUGEPAGE, VmFlags.NOHUGEPAGE),
        16: _Change(VmFlags.NONE, VmFlags.DONTDUMP),
        17: _Change(VmFlags.DONTDUMP, VmFlags.NONE),
    }
)


def changed(flags: VmFlags, advice: int) -> VmFlags:
    """What *advice* makes of a part's flags."""
    change = _CHANGES.get(advice)
    return flags if change is None else flags & ~change.clears | change.sets


class _Part(NamedTuple):
    begin: int
    end: int
    flags: VmFlags


class Vmas:
    """The parts of one mapping of *length* bytes, whole pages; each call returns by how many more they are after it.

    All have *flags* from the start. Where *joins* says so, neighbours with the same flags become one again.
    """

    def __init__(self, length: int, *, joins: bool, flags: VmFlags = VmFlags.NONE) -> None:
        self._parts = [_Part(0, length, flags)]
        self._joins = joins

    def advise(self, advice: int, begin: int, end: int) -> int:
        """Change the flags of the pages from *begin* to *end*, as ``madvise_update_vma()`` does."""
        if advice not in _CHANGES:
            return 0
        parts: list[_Part] = []
        for part in self._parts:
            low, high = max(part.begin, begin), min(part.end, end)
            flags = changed(part.flags, advice)
            if low >= high or flags == part.flags:
                parts.append(part)
                continue
            cut = (_Part(part.begin, low, part.flags), _Part(low, high, flags), _Part(high, part.end, part.flags))
            parts += [piece for piece in cut if piece.begin < piece.end]
        return self._become(_joined(parts) if self._joins else parts)

    def uncut(self, advice: int, begin: int, end: int, whole: int) -> int:
        """How far from *begin* to *end* :meth:`advise` comes without a part that is not a multiple of *whole* bytes."""
        for part in self._parts:
            low, high = max(part.begin, begin), min(part.end, end)
            if low < high and changed(part.flags, advice) != part.flags and (low % whole or high % whole):
                return low
        return end

    def resize(self, length: int) -> int:
        """``mremap(2)``: the last part grows, or what lies behind *length* goes."""
        kept = [part for part in self._parts if part.begin < length]
        return self._become([*kept[:-1], kept[-1]._replace(end=length)])

    def unmapped(self) -> int:
        """All of it is gone."""
        return self._become([])

    def _become(self, parts: list[_Part]) -> int:
        more, self._parts = len(parts) - len(self._parts), parts
        return more


def _joined(parts: list[_Part]) -> list[_Part]:
    result: list[_Part] = []
    for part in parts:
        if result and result[-1].flags == part.flags:
            result[-1] = result[-1]._replace(end=part.end)
        else:
            result.append(part)
    return result
