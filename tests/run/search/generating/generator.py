"""Random programs of several processes and threads: mostly sensible, with one thing wrong every so often."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tests.run.search.generating.model import ARENA_PAGES, SLOTS, Actor, File, Held, State
from tests.run.search.ops import Command, Program

T = TypeVar("T")
PAGE = 4096
CHECKPOINT_EVERY = 40

_OF_A_BUFFER = ("sync", "set_name", "export", "import", "file_info", "merge", "udmabuf", "udmabuf_list")
_BY_DESCRIPTOR = (*_OF_A_BUFFER, "poll")

Production = Callable[["Generator"], None]


class Generator:
    """Makes one program. Productions add commands by :meth:`do`, and change :attr:`state` as these will."""

    def __init__(self, seed: str, productions: Sequence[tuple[int, Production]]) -> None:
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.state = State()
        self.actor = self.state.actors[0]
        self.program: Program = []
        self.left_out: collections.Counter[str] = collections.Counter()
        """What was not asked since ``dmasync run`` is documented to answer it otherwise."""
        self._weights = [weight for weight, _ in productions]
        self._productions = [production for _, production in productions]

    def make(self, steps: int) -> Program:
        """A program of at least *steps* commands, beside those that look at everything."""
        looked = 0
        while len(self.program) < steps + looked and self.state.actors:
            self._choose_actor()
            (production,) = self.random.choices(self._productions, self._weights)
            production(self)
            if len(self.program) >= (looked + 1) * CHECKPOINT_EVERY:
                looked = len(self.program) // CHECKPOINT_EVERY
                self._look_at_all()
        self._look_at_all()
        return self.program

    def _choose_actor(self) -> None:
        actors = list(self.state.actors.values())
        if self.actor not in actors or self.chance(0.3):
            self.actor = self.random.choice(actors)

    def _look_at_all(self) -> None:
        seen: list[object] = []
        for actor in list(self.state.actors.values()):
            if not any(actor.table is table for table in seen):
                seen.append(actor.table)
                table = actor.table
                files = (table[slot].file if slot in table else None for slot in range(SLOTS))
                hidden = sum(1 << slot for slot, file in enumerate(files) if self.is_in_flight(file))
                self.program.append(Command("look", actor.number, (hidden,)))
            if not any(actor.memory is memory for memory in seen):
                seen.append(actor.memory)
                self.program += [Command("peek", actor.number, area) for area in self.areas(actor)]

    # -- helpers of the productions

    def do(self, op: str, *arguments: int, data: str | Sequence[int] = ()) -> None:
        """The present actor makes a call, unless it is one that is left out."""
        if op in _BY_DESCRIPTOR and self.is_unmodelled(op, arguments[0]):
            return
        self.program.append(Command(op, self.actor.number, arguments, data if isinstance(data, str) else tuple(data)))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        return self.random.choice(choices)

    def free_slot(self) -> int:
        """One that the present table does not use; the last one when all are used."""
        table = self.actor.table
        return next((slot for slot in range(SLOTS) if slot not in table), SLOTS - 1)

    def free_slots(self, count: int) -> list[int]:
        return [slot for slot in range(SLOTS) if slot not in self.actor.table][:count]

    def held(self, *kinds: str) -> Iterator[tuple[int, Held]]:
        """The present table's descriptors of *kinds*, of all without any."""
        return ((slot, held) for slot, held in self.actor.table.items() if not kinds or held.file.kind in kinds)

    def slot_of(self, *kinds: str) -> int | None:
        """One of *kinds*; now and then another, or one that is not open; None where there is none."""
        if self.chance(0.03):
            return self.random.randrange(SLOTS)
        if self.chance(0.03) and self.actor.table:
            return self.pick(list(self.actor.table))
        found = [slot for slot, _ in self.held(*kinds)]
        return self.pick(found) if found else None

    def file_of(self, slot: int) -> File | None:
        held = self.actor.table.get(slot)
        return None if held is None else held.file

    def is_hidden(self, slot: int) -> bool:
        """Whether ``dmasync run`` does not see calls that move bytes of this descriptor; then it is noted."""
        held = self.actor.table.get(slot)
        hidden = held is not None and held.is_low and held.file.kind not in ("memfd", "socket", "reader", "writer")
        if hidden:
            self.left_out["bytes of a buffer whose number is low"] += 1
        return hidden

    def is_unmodelled(self, op: str, slot: int) -> bool:
        """Whether ``dmasync run`` refuses a request with a line that says so; then it is noted."""
        file = self.file_of(slot)
        kind = None if file is None else file.kind
        if kind == "heap" and op in _OF_A_BUFFER:
            self.left_out["a dma-buf's request to a heap, which takes it for an allocation"] += 1
            return True
        if kind == "place" and op == "poll":
            self.left_out["poll of what was opened with O_PATH"] += 1
            return True
        return False

    def is_in_flight(self, file: File | None) -> bool:
        """Whether *file* waits to be received, where ``dmasync run`` does not count it; then it is noted."""
        waiting = self.state.in_flight()
        waits = file in waiting if file is not None else bool(waiting)  # what is not known of may wait as well
        if waits and file is not None:
            self.left_out["the count in fdinfo of a buffer that waits in a socket"] += 1
        return waits

    def put(self, slot: int, file: File, *, closes: bool, is_low: bool = False) -> None:
        self.actor.table[slot] = Held(file, closes, is_low)

    def areas(self, actor: Actor) -> list[tuple[int, int]]:
        """(offset, length) of what is mapped, neighbours in one."""
        found: list[tuple[int, int]] = []
        for page in sorted(actor.memory.pages):
            if found and found[-1][0] + found[-1][1] == page * PAGE:
                found[-1] = (found[-1][0], found[-1][1] + PAGE)
            else:
                found.append((page * PAGE, PAGE))
        return found

    def free_pages(self, count: int) -> int:
        """The first of *count* pages of the arena that are free, with one free before and behind."""
        pages = self.actor.memory.pages
        for _ in range(50 if count < ARENA_PAGES // 4 else 0):
            first = self.random.randrange(1, ARENA_PAGES - count - 1)
            if not any(page in pages for page in range(first - 1, first + count + 1)):
                return first
        return ARENA_PAGES
