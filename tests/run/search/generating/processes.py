"""Productions of descriptors, processes and threads: how descriptors come to others, and who ends when."""

from __future__ import annotations

import fcntl
import os
import socket

from tests.run.search.generating.generator import Generator
from tests.run.search.generating.model import ACTORS, File, Held

CLONE_FILES, CLONE_THREAD = 0x400, 0x10000
_MOST_TABLES = 200
_MSG_CMSG_CLOEXEC = 0x40000000
_UNSHARE, _CLOEXEC = 2, 4
_F_DUPFD_QUERY = 1027


def close(g: Generator) -> None:
    slot = g.slot_of()
    if slot is not None:
        g.do("close", slot)
        g.actor.table.pop(slot, None)


def dup(g: Generator) -> None:
    slot, to = g.slot_of(), g.free_slot()
    if slot is None:
        return
    how = g.random.randrange(5)
    file = g.file_of(slot)
    closes = g.chance(0.5)
    if how == 0:
        g.do("dup", slot, to)
        closes = False
    elif how == 1:
        g.do("fcntl_dup", slot, fcntl.F_DUPFD_CLOEXEC if closes else fcntl.F_DUPFD, 0 if g.chance(0.9) else -1, to)
    elif how == 2:
        g.do("dup2", slot, g.state.number(), to)
        closes = False
    elif how == 3:
        g.do("dup3", slot, g.state.number(), os.O_CLOEXEC if closes else 0, to)
    else:
        other = g.slot_of()
        if other is None:
            return
        g.do("dup_to_slot", slot, other, os.O_CLOEXEC if closes else 0)
        if file is not None and other != slot and other in g.actor.table:
            g.put(other, file, closes=closes, is_low=g.actor.table[other].is_low)
        return
    if file is not None:
        is_hosts = file.kind in ("memfd", "socket", "reader", "writer")
        g.put(to, file, closes=closes, is_low=is_hosts or how in (2, 3))


def flags_of_descriptor(g: Generator) -> None:
    slot = g.slot_of()
    if slot is None:
        return
    how = g.random.randrange(4)
    if how == 0:
        closes = g.chance(0.5)
        g.do("fcntl", slot, fcntl.F_SETFD, int(closes))
        if slot in g.actor.table:
            g.actor.table[slot].closes = closes
    elif how == 1:
        g.do("fcntl", slot, fcntl.F_GETFD, 0)
    elif how == 2:
        g.do("fcntl", slot, fcntl.F_GETFL, 0)
    else:
        g.do("fcntl", slot, fcntl.F_SETFL, g.pick((0, os.O_NONBLOCK, os.O_APPEND)))


def look(g: Generator) -> None:
    slot = g.slot_of()
    if slot is not None:
        if g.chance(0.7):
            g.do("fdinfo", slot, int(g.is_in_flight(g.file_of(slot))))
        else:
            g.do("link", slot, g.actor.number)


def reopen(g: Generator) -> None:
    """By /proc: the own descriptor, or one of another process."""
    actor, table, how = g.actor, g.actor.table, g.pick((-1, -1, -2, -3))
    others = [other for other in g.state.actors.values() if other.is_leader]
    if g.chance(0.4) and others:
        actor = g.pick(others)
        how, table = actor.number, actor.table
    if not table:
        return
    slot, to = g.pick(list(table)), g.free_slot()
    flags = g.pick((os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CLOEXEC, os.O_WRONLY))
    g.do("reopen", slot, how, flags, to)
    file = table[slot].file
    if file.kind in ("memfd", "udmabuf", "heap"):
        g.put(to, file, closes=bool(flags & os.O_CLOEXEC), is_low=file.kind == "memfd")


def socketpair(g: Generator) -> None:
    slots = g.free_slots(2)
    if len(slots) < 2:
        return
    closes = g.chance(0.3)
    kind = g.pick((socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM))
    g.do("socketpair", kind | (os.O_CLOEXEC if closes else 0), *slots)
    one, two = File("socket"), File("socket")
    one.peer, two.peer = two, one
    g.state.sockets += (one, two)
    for slot, file in zip(slots, (one, two), strict=True):
        g.put(slot, file, closes=closes, is_low=True)


def send(g: Generator) -> None:
    sockets = [slot for slot, _ in g.held("socket")]
    if not sockets:
        socketpair(g)
        return
    by = g.pick(sockets)
    # A socket within a socket may make a ring, which Linux breaks up at a time of its own.
    sendable = [slot for slot, held in g.held() if held.file.kind != "socket"]
    if not sendable:
        return
    what = [g.pick(sendable) for _ in range(g.pick((1, 1, 1, 2, 3)))]
    g.do("send", by, 0, data=what)
    file = g.file_of(by)
    if file is not None and file.peer is not None:
        file.peer.queue.append([g.actor.table[slot].file for slot in what])
    if g.chance(0.3):
        slot = g.pick(what)  # in flight while its sender has it no more
        g.do("close", slot)
        g.actor.table.pop(slot, None)


def receive(g: Generator) -> None:
    sockets = [slot for slot, held in g.held("socket") if held.file.queue]
    if not sockets and g.chance(0.9):
        return
    by = g.pick(sockets) if sockets else g.slot_of("socket")
    if by is None:
        return
    closes, peeks = g.chance(0.4), g.chance(0.15)
    room = g.pick((3, 3, 3, 8, 1, 0))
    slots = g.free_slots(room)
    g.do("receive", by, (_MSG_CMSG_CLOEXEC if closes else 0) | (socket.MSG_PEEK if peeks else 0), data=slots)
    file = g.file_of(by)
    if file is None or not file.queue:
        return
    # Where the other end is closed, with something in it that nobody received, the first try is refused.
    waits = peeks or not g.state.is_open(file.peer)
    files = file.queue[0] if waits else file.queue.pop(0)
    for slot, got in zip(slots, files, strict=False):
        g.put(slot, got, closes=closes, is_low=True)


def take(g: Generator) -> None:
    """Another process's descriptor, by pidfd_getfd."""
    others = [actor for actor in g.state.actors.values() if actor.is_leader and actor.table]
    if not others:
        return
    other = g.pick(others)
    slot, to = g.pick(list(other.table)), g.free_slot()
    g.do("take", other.number, slot, to)
    g.put(to, other.table[slot].file, closes=True, is_low=True)


def fork(g: Generator) -> None:
    if g.state.used >= ACTORS or len(g.state.actors) > 5 or g.state.tables > _MOST_TABLES:
        return
    shares = g.chance(0.15)
    child = g.state.fork(g.actor, shares_files=shares)
    g.do("fork", child.number, CLONE_FILES if shares else 0)


def spawn(g: Generator) -> None:
    """A process that is another image at once, as posix_spawn() makes it."""
    if g.state.used >= ACTORS or len(g.state.actors) > 5 or g.state.tables > _MOST_TABLES:
        return
    child = g.state.fork(g.actor, shares_files=False)
    g.do("spawn", child.number)
    g.state.exec(child)


def thread(g: Generator) -> None:
    if g.state.used >= ACTORS or len(g.state.actors) > 5:
        return
    child = g.state.thread(g.actor)
    g.do("thread", child.number, CLONE_THREAD)


def unshare(g: Generator) -> None:
    if g.state.tables > _MOST_TABLES or (len(g.state.actors) < 2 and g.chance(0.8)):
        return
    g.do("unshare")
    g.actor.table = g.state.copied(g.actor.table)


def close_many(g: Generator) -> None:
    flags = g.pick((0, _CLOEXEC, _CLOEXEC, _UNSHARE, _UNSHARE | _CLOEXEC))
    if flags & _UNSHARE and g.state.tables > _MOST_TABLES:
        return
    slot = g.slot_of() if g.chance(0.8) or not flags & _CLOEXEC else -1
    if slot is None:
        return
    g.do("close_all", flags, slot)
    if flags & _UNSHARE:
        g.actor.table = g.state.copied(g.actor.table)
    for which in list(g.actor.table) if slot < 0 else [slot]:
        held: Held | None = g.actor.table.get(which)
        if held is not None and flags & _CLOEXEC:
            held.closes = True
        elif held is not None:
            del g.actor.table[which]


def exec_(g: Generator) -> None:
    if g.state.tables > _MOST_TABLES:
        return
    g.do("exec")
    g.state.exec(g.actor)


def end(g: Generator) -> None:
    """The present actor ends by itself, or another one kills its process."""
    if len(g.state.actors) < 2:
        return
    if g.chance(0.6):
        g.do("exit")
        g.state.end(g.actor)
    else:
        g.do("kill")
        for other in g.state.of_process(g.actor.process):
            del g.state.actors[other.number]


PRODUCTIONS = (
    (6, close), (7, dup), (4, flags_of_descriptor), (5, look), (3, reopen), (2, socketpair), (7, send), (9, receive),
    (3, take), (5, fork), (1, spawn), (3, thread), (1, unshare), (2, close_many), (2, exec_), (2, end),
)  # fmt: skip
