"""Which mappings of the programs are a buffer's, and in how many parts Linux would keep each.

In ``/proc/PID/maps`` a udmabuf looks as the memfd does that it was made of. Every shared mapping of such a file is seen
when it is asked for, though not where it comes to lie: the next look at the process's areas tells that.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from dmasync.harness.run.open_files import Key, OpenFile, OpenFiles
from dmasync.harness.run.program import areas, processes
from dmasync.harness.run.program.areas import Area
from dmasync.harness.run.program.mapped import Asked, Mapping, Part, Table, clear, joined, kept, uncovered

_EVERYTHING: Final = 1 << 48
_MOST_QUESTIONS: Final = 8
_MOST_ASKED: Final = 64
_MOST_ENDED: Final = 32


class Mappings:
    """Of all processes. Safe to use from several threads."""

    def __init__(self, files: OpenFiles, keys_of: Callable[[OpenFile], Iterable[Key]]) -> None:
        self._files = files
        self._keys_of = keys_of
        self._tables: dict[int, Table] = {}
        self._ended: collections.deque[Table] = collections.deque(maxlen=_MOST_ENDED)
        """Of processes that have ended lately: their children may live on."""
        self._relatives: dict[int, int] = {}
        """Processes that have the memory of another, as vfork() makes them, and with it its table."""
        self._lock = files.lock  # it is asked with this one held, and says with its own held what is gone
        self.own: set[Key] = set()
        """Files of the programs' own that they have mapped shared."""
        self.joins: Callable[[OpenFile], bool] = lambda file: True
        """Whether parts of such a mapping that are alike become one again, on the kernel that answers."""
        self.change: Callable[[int, int], int] = lambda flags, advice: flags
        """What advice makes of a part's flags."""
        self.top: Callable[[], int] = os.getpid
        """The process that all of the program's are below."""
        self.flags_of: Callable[[OpenFile, int], int] = lambda file, asked: 0
        """Those of a new mapping; the second argument: the flags that mmap() was asked with."""

    # -- what is heard

    def ask(self, process: int, asked: Asked) -> None:
        """The kernel is about to make a mapping."""
        with self._lock:
            table = self._known(process)
            if table is None or self._matters(table, asked):
                table = self._look(process, asked.thread)
            table.asked = [other for other in table.asked if other != asked]
            if asked.replaces and table.has(asked.address, asked.address + asked.length):
                self._begin_children(process)
                clear(table, asked.address, asked.address + asked.length)
            if asked.owner is not None:
                table.buffers.add(asked.key)
            table.asked.append(asked)

    def _matters(self, table: Table, asked: Asked) -> bool:
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
        *, replaces: bool, flags: int, is_shared: bool = True, hint: int = 0,
    ) -> None:  # fmt: skip
        """As :meth:`ask`; *place* is (offset in the file, length in bytes), *address* 0 for anywhere."""
        offset, length = place
        if owner is None:
            self.own.add(key)
            if self._files.buffer_of(key) is None:
                return  # a file as any other
        self.ask(process, Asked(thread, owner, key, offset, length, address, replaces, flags, is_shared, hint))

    def add(self, process: int, owner: OpenFile, begin: int, length: int, prot: int, *, flags: int) -> None:
        """A mapping out of several pieces is there."""
        with self._lock:
            table = self._known(process) or self._look(process)
            part = Part(begin, begin + length, prot, flags)
            keys = frozenset(self._keys_of(owner))
            clear(table, part.begin, part.end)
            table.become([*table.mappings, Mapping(owner, begin, -1, keys, [part])])

    def forget(self, process: int) -> None:
        """It has ended."""
        with self._lock:
            table = self._tables.pop(process, None)
            if table is not None and (table.mappings or table.asked) and process not in self._relatives:
                self._ended.append(table)
            self._relatives.pop(process, None)

    def gone(self, file: OpenFile) -> None:
        """Nobody has it any more."""
        with self._lock:
            for table in (*self._tables.values(), *self._ended):
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

    def _must_look(self, table: Table, process: int, address: int, length: int) -> bool:
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
            mapping.parts = list(joined(mapping.parts))

    # -- the look

    def _known(self, process: int) -> Table | None:
        parent = self._relatives.get(process)
        if parent is not None and not processes.share_memory(process, parent):
            del self._relatives[process], self._tables[process]  # it has become another program
        return self._tables.get(process)

    def _look(self, process: int, thread: int = 0) -> Table:
        """What *thread* has asked for earlier is there now, or gone again."""
        table = self._known(process)
        if table is None:
            table = self._begin(process)
        self._begin_children(process)
        ours = [area for area in areas.areas(process, 0, _EVERYTHING) if self._is_ours(table, area)]
        begins = [area.begin for area in ours]
        for mapping in table.mappings:
            mapping.parts = list(kept(mapping, ours, begins))
            self._join(mapping) if mapping.parts else None
        table.become(table.mappings)
        taken = table.spans()
        found = [piece for area in ours for piece in self._explained(table, area, taken)]
        table.become([*table.mappings, *found])
        # What its parent had asked for was there when it was made, or never came to be.
        table.asked = [asked for asked in table.asked if asked.thread != thread and not table.is_new]
        table.is_new = False
        table.questions = 0
        return table

    def _begin_children(self, process: int) -> None:
        """Before it is forgotten what *process* had when it made them."""
        for child in processes.children(process):
            if self._known(child) is None:
                self._begin(child)

    def _begin(self, process: int) -> Table:
        """The table of a process that has none: what it had of its parent, or of one that has ended by now."""
        parent = processes.parent_of(process)
        before = self._known(parent)
        if before is None and parent not in (0, 1, self.top()):
            before = self._begin(parent)
        if before is not None and processes.share_memory(process, parent):
            self._relatives[process] = parent
            table = before
        else:
            # Its parent may have ended, and another process have taken it over.
            present = list(areas.areas(process, 0, _EVERYTHING))
            others = ([] if before is None else [before]) + [*self._tables.values(), *self._ended]
            best = max(others, key=lambda other: other.explains(present), default=None)
            table = Table() if best is None else best.copy()
        self._tables[process] = table
        return table

    def _is_ours(self, table: Table, area: Area) -> bool:
        return self._files.buffer_of(area.key) is not None and (area.is_shared or area.key in table.buffers)

    def _explained(self, table: Table, area: Area, taken: list[tuple[int, int]]) -> Iterator[Mapping]:
        """Of what is not *taken* of *area*."""
        for begin, end in uncovered(taken, area):
            yield from self._explain(table, area, begin, end)

    def _explain(self, table: Table, area: Area, begin: int, end: int) -> Iterator[Mapping]:
        """Find out whose the bytes from *begin* to *end* of *area* are."""
        while begin < end:
            offset = area.offset + begin - area.begin
            asked = [one for one in table.asked if one.key == area.key and one.is_shared == area.is_shared]
            whole = [one for one in asked if one.is_whole(begin, end, offset)]
            found = max(whole, key=lambda one: (one.hint == begin, one.length == end - begin), default=None)
            stop, is_sure = end, True
            if found is not None:
                table.asked.remove(found)
                owner, stop = found.owner, begin + found.length
            elif (found := next((one for one in asked if one.has_rest(begin, offset)), None)) is not None:
                owner, stop = found.owner, min(end, found.hint + found.length)
            elif area.key not in table.buffers and area.key in self.own:
                owner = None
            else:
                buffers = [file for file in self._files.all_of(area.key) if file.kind == "dmabuf"]
                owner = buffers[0] if buffers and area.is_shared else None
                is_sure = len(buffers) == 1 and area.key not in self.own
            flags = self.first_flags(owner) if found is None else found.flags
            parts = [Part(begin, stop, area.prot, flags)]
            yield Mapping(owner, begin, offset, frozenset({area.key}), parts, is_sure, area.is_shared)
            begin = stop
