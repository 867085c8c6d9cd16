"""What a program has got, as far as its generator needs to know: descriptors, mappings, processes and threads.

It need not be true: where it is wrong, a call makes less sense, and both kernels say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

SLOTS = 64
ACTORS = 16
ARENA_PAGES = 512


@dataclass(eq=False)
class File:
    """An open file."""

    kind: str
    """memfd, dmabuf, sync, udmabuf, heap (those two are nodes), place, socket, reader, writer."""
    size: int = 0
    seals: int = 0
    writable: bool = True
    of: list[File] = field(default_factory=list)
    """Of a udmabuf: the memfds whose pages it has."""
    has_holes: bool = False
    """Of a memfd: room was made in it, or holes."""
    is_pinned: bool = False
    """Of a memfd: a udmabuf has pages of it."""
    peer: File | None = None
    """Of a socket: the other end."""
    queue: list[list[File]] = field(default_factory=list)
    """Of a socket: what waits to be received."""


@dataclass
class Held:
    """A descriptor."""

    file: File
    closes: bool
    """At exec."""
    is_low: bool = False
    """Whether its number was chosen by the host's kernel, or by the program, where ``dmasync run`` does not see what
    moves bytes."""


@dataclass(eq=False)
class Memory:
    """What a process has mapped, page by page of the arena."""

    pages: dict[int, Mapped] = field(default_factory=dict)


@dataclass(frozen=True)
class Mapped:
    """A page that is mapped."""

    file: File | None
    area: int
    """Pages with different numbers may be in areas of their own."""
    is_inherited: bool = True
    """Over fork."""


Table = dict[int, Held]


@dataclass(eq=False)
class Actor:
    """A thread of execution."""

    number: int
    process: int
    table: Table
    memory: Memory
    is_leader: bool = True


class State:
    """All of a program."""

    def __init__(self) -> None:
        self.actors: dict[int, Actor] = {0: Actor(0, 0, {}, Memory())}
        self.used = 1
        self.tables = 1
        self.next_number = 100
        self.areas = 0
        self.sockets: list[File] = []

    def is_open(self, file: File | None) -> bool:
        """Whether anybody has a descriptor of it."""
        return any(held.file is file for actor in self.actors.values() for held in actor.table.values())

    def in_flight(self) -> set[File]:
        """What waits to be received."""
        return {file for socket in self.sockets for files in socket.queue for file in files}

    def of_process(self, process: int) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.process == process]

    def fork(self, parent: Actor, *, shares_files: bool) -> Actor:
        """A new process."""
        memory = Memory({page: mapped for page, mapped in parent.memory.pages.items() if mapped.is_inherited})
        table = parent.table if shares_files else self.copied(parent.table)
        child = Actor(self.used, self.used, table, memory)
        self.actors[self.used] = child
        self.used += 1
        return child

    def thread(self, parent: Actor) -> Actor:
        """A new thread."""
        child = Actor(self.used, parent.process, parent.table, parent.memory, is_leader=False)
        self.actors[self.used] = child
        self.used += 1
        return child

    def copied(self, table: Table) -> Table:
        self.tables += 1
        return {slot: replace(held) for slot, held in table.items()}

    def exec(self, actor: Actor) -> None:
        """A new image: what closes is closed, what is mapped is gone, and so are the other threads."""
        for other in self.of_process(actor.process):
            if other is not actor:
                del self.actors[other.number]
        kept = self.copied(actor.table)
        actor.table = {slot: held for slot, held in kept.items() if not held.closes}
        actor.memory = Memory()
        actor.is_leader = True

    def end(self, actor: Actor) -> None:
        """A thread ends, or with its first thread all of a process."""
        for other in self.of_process(actor.process) if actor.is_leader else [actor]:
            del self.actors[other.number]

    def area(self) -> int:
        """A number for an area that is made."""
        self.areas += 1
        return self.areas

    def number(self) -> int:
        """A number for dup2 that nothing has."""
        self.next_number += 1
        return self.next_number
