"""What --check adds to a run: stacks, and the pages that the programs touch."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.open_files import Key
from dmasync.harness.run.program.inside import TracedError, is_error
from dmasync.harness.run.program.mapped import Mapping
from dmasync.harness.run.program.pages import PageTables
from dmasync.harness.run.program.processes import name_of
from dmasync.harness.run.program.stacks import Frame, Stacks
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Caller, Handler, Supervisor

if TYPE_CHECKING:
    from dmasync.fakes import Finding
    from dmasync.fakes.foreign.systems import FakeSystem, System

_MADV_DONTNEED: Final = 4


def take_stacks(run: Supervisor) -> None:
    """Have the journal name processes, threads and functions; a Python program's functions are those that it has in
    Python.
    """
    stacks = Stacks()
    threads = run.system.journal.facts.setdefault("threads", {})

    def take(call: Notification) -> tuple[Frame, ...]:
        # At every call: a process may have become another program since its last.
        threads[str(call.thread)] = [call.process, name_of(call.process), name_of(call.thread)]
        told = run.python_stacks.take(call.process, call.thread, run.name_of(call), call.arguments)
        return told or stacks.take(call.process, call.thread, call.ip)

    run.take_stack = take
    if not stacks.is_available:
        sys.stderr.write("dmasync run: findings will name no functions: install libdw1 (elfutils) for that\n")


class Checking:
    """Set up before the program is started; *allow* and *leaks* as a Sanitizer has them.

    ValueError for an *allow* that is no kind of finding.
    """

    def __init__(self, system: System, run: Supervisor, *, allow: list[str], leaks: bool) -> None:
        from dmasync.fakes import Sanitizer

        self._sanitizer = Sanitizer(system.backend, allow=allow, leaks=leaks)
        run.files.hears_of_ends = True
        self._pages = PageTables(run.processes, self._empty)
        if system.is_fake:
            fake: FakeSystem = system  # type: ignore[assignment]  # is_fake says so
            fake.backend.pages = self._pages
            if not fake.kernel.profile.udmabuf_maps_numbers:
                run.watcher.on_closed = _Miscounts(fake, run, self._pages).look

    def findings(self) -> list[Finding]:
        """What is wrong."""
        if self._pages.given_up:
            sys.stderr.write(
                f"dmasync run: {self._pages.given_up} times pages could not be watched, as another process has them"
                " mapped: reads of them may be findings that are none\n"
            )
        return self._sanitizer.findings()

    def _empty(self, process: int, address: int, length: int) -> bool:
        from dmasync.fakes.foreign import caller

        who = caller.current()
        if not isinstance(who, Caller) or who.call.process != process or not who.may_be_stopped:
            return False
        try:
            return not is_error(who.make("madvise", address, length, _MADV_DONTNEED))
        except TracedError:
            return False


class _Miscounts:
    """Memfds that are gone while pages of their udmabufs are mapped, where the release counts such pages.

    The supervisor has each memfd open itself, so it looks whether the programs have.
    """

    def __init__(self, system: FakeSystem, run: Supervisor, pages: PageTables) -> None:
        self._system = system
        self._run = run
        self._pages = pages
        self._told: set[int] = set()

    def look(self, key: Key) -> None:
        """Somebody has closed a file with that inode."""
        inode = self._system.kernel.adopted.get(key)
        holders = [] if inode is None else [buffer for buffer in inode.pinned_by if buffer.ino not in self._told]
        alive = self._run.processes.all()
        if not holders or self._run.files.is_open_elsewhere(key, alive):
            return
        mapped = self._run.mappings.all(alive)
        if any(mapping.owner is None and key in mapping.keys for _, mapping in mapped):
            return
        for process, mapping in mapped:
            buffer: Any = None if mapping.owner is None else mapping.owner.held
            if buffer in holders and self._is_touched(process, mapping):
                holders.remove(buffer)
                self._told.add(buffer.ino)
                self._system.kernel.on_spoiled(buffer.ino)

    def _is_touched(self, process: int, mapping: Mapping) -> bool:
        return any(
            (process, part.begin) in self._pages.emptied
            or self._pages.present(process, part.begin, part.end - part.begin)
            for part in mapping.parts
        )


def _exit_group(run: Supervisor, call: Notification) -> Answer:
    """The process is about to end: the last chance to see what it has touched."""
    settle = getattr(run.system.backend, "settle", None)
    if settle is not None:
        settle()
    for key in list(getattr(getattr(run.system, "kernel", None), "adopted", ())):
        run.watcher.on_closed(key)
    for known in run.files.closed_unseen(call.thread, call.process):
        with contextlib.suppress(OSError):
            run.system.backend.close(known.fd)
    return Said.CARRY_ON


HANDLERS: Final[dict[str, Handler]] = {"exit_group": _exit_group}
