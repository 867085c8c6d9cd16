"""What a process has mapped of buffers and of the files that they are made of: parts, as Linux would keep them."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dmasync.harness.run.open_files import Key, OpenFile
from dmasync.harness.run.program.areas import Area


class Part(NamedTuple):
    """Of a mapping: what Linux keeps as one area; *flags* are those that advice changes."""

    begin: int
    end: int
    prot: int
    flags: int


@dataclass
class Mapping:
    """Of *owner*, or, with None, of a program's own file."""

    owner: OpenFile | None
    begin: int
    offset: int
    """Of *begin* in the file."""
    keys: frozenset[Key]
    parts: list[Part]
    is_sure: bool = True
    """Whether it is known to be the owner's: one that was there before anybody looked may be another's."""
    is_shared: bool = True

    @property
    def end(self) -> int:
        return self.parts[-1].end

    def covers(self, begin: int, end: int) -> bool:
        """Whether all bytes from *begin* to *end* are in it."""
        for part in sorted(self.parts):
            if part.begin <= begin < part.end:
                begin = part.end
        return begin >= end

    def has(self, begin: int, end: int) -> bool:
        """Whether a byte from *begin* to *end* is in it."""
        return any(part.begin < end and begin < part.end for part in self.parts)


@dataclass
class Asked:
    """A mapping that was asked for, and has not been seen yet."""

    thread: int
    owner: OpenFile | None
    key: Key
    offset: int
    length: int
    address: int
    """Where it must be, 0 for anywhere."""
    replaces: bool
    """Whether it takes the place of what is there."""
    flags: int
    """Of it once it is there, as advice changes them."""
    is_shared: bool
    hint: int
    """Where it is wanted, 0 for anywhere."""

    def is_whole(self, begin: int, end: int, offset: int) -> bool:
        """Whether all of it may lie at *begin*, in an area that ends at *end* and shows its file from *offset* on."""
        return self.offset == offset and self.address in (0, begin) and self.length <= end - begin

    def has_rest(self, begin: int, offset: int) -> bool:
        """Whether what is at *begin* may be a part of it, of which another is gone by now."""
        return self.hint <= begin < self.hint + self.length and offset - self.offset == begin - self.hint


@dataclass
class Table:
    """Of one process."""

    mappings: list[Mapping] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    is_new: bool = False
    """Whether nobody has looked yet what the process has of it."""
    questions: int = 0
    """About single places, since the last look."""
    buffers: set[Key] = field(default_factory=set)
    """Files of which a buffer was ever mapped here."""
    _spans: list[tuple[int, int]] | None = None

    def copy(self) -> Table:
        """What a child has that was made of this process: all of it, also what was asked for and not seen."""
        mappings = [replace(mapping, parts=list(mapping.parts)) for mapping in self.mappings]
        return Table(mappings, list(self.asked), is_new=True, buffers=set(self.buffers))

    def explains(self, present: list[Area]) -> int:
        """How many of its mappings, seen or asked for, are among the areas that are *present*, at least in part."""
        begins = [area.begin for area in present]
        seen = sum(any(kept(mapping, present, begins)) for mapping in self.mappings)
        places = {(area.key, area.offset, area.is_shared, area.begin) for area in present}
        return seen + sum((one.key, one.offset, one.is_shared, one.hint) in places for one in self.asked)

    def become(self, mappings: Iterable[Mapping]) -> None:
        """These, of which some may have changed, are all that there are."""
        self.mappings = [mapping for mapping in mappings if mapping.parts]
        self._spans = None

    def spans(self) -> list[tuple[int, int]]:
        """(begin, end) of all parts, in order."""
        if self._spans is None:
            self._spans = sorted((part.begin, part.end) for mapping in self.mappings for part in mapping.parts)
        return self._spans

    def has(self, begin: int, end: int) -> bool:
        """Whether a byte from *begin* to *end* is in one of them."""
        spans = self.spans()
        place = bisect.bisect_left(spans, (end, 0)) - 1
        return place >= 0 and spans[place][1] > begin


def clear(table: Table, begin: int, end: int) -> None:
    for mapping in table.mappings:
        mapping.parts = list(_without(mapping.parts, begin, end))
    table.become(table.mappings)


def _without(parts: Iterable[Part], begin: int, end: int) -> Iterator[Part]:
    for part in parts:
        for piece in (part._replace(end=min(part.end, begin)), part._replace(begin=max(part.begin, end))):
            if piece.begin < piece.end:
                yield piece


def kept(mapping: Mapping, present: list[Area], begins: list[int]) -> Iterator[Part]:
    """What of its parts is still there; a part whose pages may do different things by now is several. *begins* are
    those of the areas that are *present*.
    """
    for part in mapping.parts:
        last: Part | None = None
        first = max(0, bisect.bisect_right(begins, part.begin) - 1)
        for area in present[first : bisect.bisect_left(begins, part.end)]:
            low, high = max(part.begin, area.begin), min(part.end, area.end)
            moved = mapping.offset >= 0 and area.offset - area.begin != mapping.offset - mapping.begin
            if low >= high or area.key not in mapping.keys or moved:
                continue
            if last is not None and last.end == low and last.prot == area.prot:
                last = last._replace(end=high)
                continue
            if last is not None:
                yield last
            last = Part(low, high, area.prot, part.flags)
        if last is not None:
            yield last


def joined(parts: Iterable[Part]) -> Iterator[Part]:
    last: Part | None = None
    for part in parts:
        if last is not None and (last.end, last.prot, last.flags) == (part.begin, part.prot, part.flags):
            last = last._replace(end=part.end)
            continue
        if last is not None:
            yield last
        last = part
    if last is not None:
        yield last


def uncovered(taken: list[tuple[int, int]], area: Area) -> Iterator[tuple[int, int]]:
    position = area.begin
    first = max(0, bisect.bisect_right(taken, (area.begin, 0)) - 1)
    for begin, end in taken[first : bisect.bisect_left(taken, (area.end, 0))]:
        if begin > position:
            yield position, begin
        position = max(position, end)
    if position < area.end:
        yield position, area.end
