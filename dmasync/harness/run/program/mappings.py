"""Which mappings of the programs are a buffer's, and in how many parts Linux would keep each.

In ``/proc/PID/maps`` a udmabuf looks as the memfd does that it was made of. Every shared mapping of such a file is seen
when it is asked for, though not where it comes to lie: the next look at the process's areas tells that.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from dmasync.harness.run.open_files import Key, OpenFile, OpenFiles
from dmasync.harness.run.program import areas, processes
from dmasync.harness.run.program.areas import Area

_EVERYTHING: Final = 1 << 48
_MOST_QUESTIONS: Final = 8
_MOST_ASKED: Final = 64


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
class _Asked:
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


@dataclass
class _Table:
    """Of one process."""

    mappings: list[Mapping] = field(default_factory=list)
    asked: list[_Asked] = field(default_factory=list)
    questions: int = 0
    """About single places, since the last look."""
    buffers: set[Key] = field(default_factory=set)
    """Files of which a buffer was ever mapped here."""
    _spans: list[tuple[int, int]] | None = None

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


class Mappings:
    """Of all processes. Safe to use from several threads."""

    def __init__(self, files: OpenFiles, keys_of: Callable[[OpenFile], Iterable[Key]]) -> None:
        self._files = files
        self._keys_of = keys_of
        self._tables: dict[int, _Table] = {}
        self._relatives: dict[int, int] = {}
        """Processes that have the memory of another, as vfork() makes them, and with it its table."""
        self._lock = files.lock  # it is asked with this one held, and says with its own held what is gone
        self.own: set[Key] = set()
        """Files of the programs' own that they have mapped shared."""
        self.joins: Callable[[OpenFile], bool] = lambda file: True
        """Whether parts of such a mapping that are alike become one again, on the kernel that answers."""
        self.change: Callable[[int, int], int] = lambda flags, advice: flags
        """What advice makes of a part's flags."""
        self.flags_of: Callable[[OpenFile, int], int] = lambda file, asked: 0
        """Those of a new mapping; the second argument: the flags that mmap() was asked with."""

    # -- what is heard

    def ask(self, process: int, asked: _Asked) -> None:
        """The kernel is about to make a mapping."""
        with self._lock:
            table = self._known(process)
            if table is None or self._matters(table, asked):
                table = self._look(process, asked.thread)
            table.asked = [other for other in table.asked if other != asked]
            if asked.replaces:
                _clear(table, asked.address, asked.address + asked.length)
            if asked.owner is not None:
                table.buffers.add(asked.key)
            table.asked.append(asked)

    def _matters(self, table: _Table, asked: _Asked) -> bool:
        """Whether it must be known what of that file is mapped before the new mapping is there: that may take the place
        of one that is gone by now, and of another owner or in another state.
        """
        same = [mapping for mapping in table.mappings if asked.key in mapping.keys]
        owners = {asked.owner, *(one.owner for one in same)}
        owners |= {other.owner for other in table.asked if other.key == asked.key}
        changed = any(len(one.parts) > 1 or one.parts[0].flags != self.first_flags(one.owner) for one in same)
        is_mixed = len(owners) > 1 or (asked.owner is not None and asked.key in self.own)
        return is_mixed or changed or len(table.asked) >= _MOST_ASKED

    def first_flags(self, owner: OpenFile | None, asked: int = 0) -> int:
        """Those of a new mapping of *owner*, None for a file of the program's own, that is asked for with *asked*."""
        return 0 if owner is None else self.flags_of(owner, asked)

    def expect(
        self, process: int, thread: int, owner: OpenFile | None, key: Key, place: tuple[int, int], address: int,
        *, replaces: bool, flags: int,
    ) -> None:  # fmt: skip
        """As :meth:`ask`; *place* is (offset in the file, length in bytes), *address* 0 for anywhere."""
        offset, length = place
        if owner is None:
            self.own.add(key)
            if self._files.buffer_of(key) is None:
                return  # a file as any other
        self.ask(process, _Asked(thread, owner, key, offset, length, address, replaces, flags))

    def add(self, process: int, owner: OpenFile, begin: int, length: int, prot: int, *, flags: int) -> None:
        """A mapping out of several pieces is there."""
        with self._lock:
            table = self._known(process) or self._look(process)
            part = Part(begin, begin + length, prot, flags)
            keys = frozenset(self._keys_of(owner))
            _clear(table, part.begin, part.end)
            table.become([*table.mappings, Mapping(owner, begin, -1, keys, [part])])

    def forget(self, process: int) -> None:
        """It has ended."""
        with self._lock:
            self._tables.pop(process, None)
            self._relatives.pop(process, None)

    def gone(self, file: OpenFile) -> None:
        """Nobody has it any more."""
        with self._lock:
            for table in self._tables.values():
                table.become(mapping for mapping in table.mappings if mapping.owner is not file)
                table.asked = [asked for asked in table.asked if asked.owner is not file]

    # -- what is asked

    def at(self, process: int, thread: int, address: int, length: int) -> Mapping | None:
        """The first mapping of a buffer that has a byte of *length* from *address* on; *thread* asks."""
        end = address + length
        with self._lock:
            table = self._known(process)
            if table is None:
                table = self._look(process, thread)
            elif table.has(address, end) or (table.asked and self._must_look(table, process, address, length)):
                self._look(process, thread)
            found = [mapping for mapping in table.mappings if mapping.owner is not None and mapping.has(address, end)]
            first = min(found, key=lambda mapping: mapping.begin, default=None)
            return None if first is None else replace(first)  # as it is now: another thread may take it away

    def _must_look(self, table: _Table, process: int, address: int, length: int) -> bool:
        """Whether what was asked for may have come to lie there. A look at all areas takes longer than at these, and is
        worth it when it saves that often.
        """
        table.questions += 1
        if table.questions > _MOST_QUESTIONS:
            return True
        return any(self._files.buffer_of(area.key) is not None for area in areas.areas(process, address, length))

    def count(self, file: OpenFile, of: Iterable[int]) -> int:
        """By how many parts of mappings the processes *of* hold it."""
        return sum(len(mapping.parts) for _, mapping in self.all(of) if mapping.owner is file)

    def all(self, of: Iterable[int]) -> list[tuple[int, Mapping]]:
        """(process, mapping) of all that the processes *of* have by now."""
        with self._lock:
            return [(process, replace(mapping)) for process in of for mapping in self._look(process).mappings]

    def advise(self, process: int, advice: int, begin: int, end: int) -> None:
        """The program has given advice about the pages from *begin* to *end*."""
        with self._lock:
            table = self._known(process)
            for mapping in () if table is None else table.mappings:
                if mapping.owner is not None and mapping.has(begin, end):
                    self._change(mapping, advice, begin, end)

    def _change(self, mapping: Mapping, advice: int, begin: int, end: int) -> None:
        parts = []
        for part in mapping.parts:
            flags = self.change(part.flags, advice)
            low, high = max(part.begin, begin), min(part.end, end)
            if low >= high or flags == part.flags:
                parts.append(part)
                continue
            cut = part._replace(end=low), Part(low, high, part.prot, flags), part._replace(begin=high)
            parts += [piece for piece in cut if piece.begin < piece.end]
        mapping.parts = parts
        self._join(mapping)

    def _join(self, mapping: Mapping) -> None:
        if mapping.owner is None or self.joins(mapping.owner):
            mapping.parts = list(_joined(mapping.parts))

    # -- the look

    def _known(self, process: int) -> _Table | None:
        parent = self._relatives.get(process)
        if parent is not None and not processes.share_memory(process, parent):
            del self._relatives[process], self._tables[process]  # it has become another program
        return self._tables.get(process)

    def _look(self, process: int, thread: int = 0) -> _Table:
        """What *thread* has asked for earlier is there now, or gone again."""
        table = self._known(process)
        before: _Table | None = None
        if table is None:
            parent = processes.parent_of(process)
            before = self._known(parent)
            if before is not None and processes.share_memory(process, parent):
                self._relatives[process] = parent
                table, before = before, None
            else:
                table = _Table()
            self._tables[process] = table
        ours = [area for area in areas.areas(process, 0, _EVERYTHING) if self._is_ours(table, area)]
        begins = [area.begin for area in ours]
        for mapping in table.mappings:
            mapping.parts = list(_kept(mapping, ours, begins))
            self._join(mapping) if mapping.parts else None
        table.become(table.mappings)
        taken = table.spans()
        found = [piece for area in ours for piece in self._explained(table, before, area, taken)]
        table.become([*table.mappings, *found])
        table.asked = [asked for asked in table.asked if asked.thread != thread]
        table.questions = 0
        return table

    def _is_ours(self, table: _Table, area: Area) -> bool:
        return self._files.buffer_of(area.key) is not None and (area.is_shared or area.key in table.buffers)

    def _explained(
        self, table: _Table, before: _Table | None, area: Area, taken: list[tuple[int, int]]
    ) -> Iterator[Mapping]:
        """Of what is not *taken* of *area*."""
        for begin, end in _uncovered(taken, area):
            yield from self._explain(table, before, area, begin, end)

    def _explain(self, table: _Table, before: _Table | None, area: Area, begin: int, end: int) -> Iterator[Mapping]:
        """Find out whose the bytes from *begin* to *end* of *area* are."""
        while begin < end:
            offset = area.offset + begin - area.begin
            asked = [
                asked
                for asked in table.asked
                if asked.key == area.key and asked.offset == offset and asked.address in (0, begin)
                and asked.length <= end - begin
            ]  # fmt: skip
            found = next((one for one in asked if one.length == end - begin), asked[0] if asked else None)
            stop, is_sure, inherited_parts = end, True, None
            if found is not None:
                table.asked.remove(found)
                owner, stop = found.owner, begin + found.length
            elif (inherited := _of(before, area.key, begin)) is not None:
                owner, is_sure, stop = inherited.owner, inherited.is_sure, min(end, inherited.end)
                inherited_parts = inherited.parts
                if owner is not None:
                    table.buffers.add(area.key)
            elif area.key not in table.buffers and area.key in self.own:
                owner = None
            else:
                buffers = [file for file in self._files.all_of(area.key) if file.kind == "dmabuf"]
                owner = buffers[0] if buffers and area.is_shared else None
                is_sure = len(buffers) == 1 and area.key not in self.own
            flags = self.first_flags(owner) if found is None else found.flags
            parts = [Part(begin, stop, area.prot, flags)]
            if inherited_parts is not None:
                parts = [
                    part._replace(begin=max(part.begin, begin), end=min(part.end, stop))
                    for part in inherited_parts
                    if part.begin < stop and begin < part.end
                ]
            yield Mapping(owner, begin, offset, frozenset({area.key}), parts, is_sure, area.is_shared)
            begin = stop


def _clear(table: _Table, begin: int, end: int) -> None:
    for mapping in table.mappings:
        mapping.parts = list(_without(mapping.parts, begin, end))
    table.become(table.mappings)


def _of(table: _Table | None, key: Key, address: int) -> Mapping | None:
    if table is None:
        return None
    return next((one for one in table.mappings if key in one.keys and one.has(address, address + 1)), None)


def _without(parts: Iterable[Part], begin: int, end: int) -> Iterator[Part]:
    for part in parts:
        for piece in (part._replace(end=min(part.end, begin)), part._replace(begin=max(part.begin, end))):
            if piece.begin < piece.end:
                yield piece


def _kept(mapping: Mapping, present: list[Area], begins: list[int]) -> Iterator[Part]:
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


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
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


def _uncovered(taken: list[tuple[int, int]], area: Area) -> Iterator[tuple[int, int]]:
    position = area.begin
    first = max(0, bisect.bisect_right(taken, (area.begin, 0)) - 1)
    for begin, end in taken[first : bisect.bisect_left(taken, (area.end, 0))]:
        if begin > position:
            yield position, begin
        position = max(position, end)
    if position < area.end:
        yield position, area.end
