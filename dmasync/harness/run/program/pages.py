"""The programs' page tables: what is filled, and how to empty it without losing a byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from dmasync.harness.run.program.processes import Processes, shared_mappings

_PAGE: Final = os.sysconf("SC_PAGESIZE")
_ENTRY: Final = 8
_MADV_PAGEOUT: Final = 21


class PageTables:
    """Of all processes that have made a call.

    *inside* empties entries by a call that the process itself makes: for the process of the call that is being
    answered, and for none other. It says whether it could.
    """

    def __init__(self, processes: Processes, inside: Callable[[int, int, int], bool]) -> None:
        self._processes = processes
        self._inside = inside
        self._may_advise = True
        self.emptied: set[tuple[int, int]] = set()
        """(process, address) of mappings whose pages had been touched before they were emptied."""
        self.given_up = 0
        """How often entries could not be emptied."""

    def mappings(self, fd: int) -> Iterator[tuple[int, int, int, int]]:
        inode = os.fstat(fd).st_ino
        for process in self._processes.all():
            for address, length, offset in shared_mappings(process, inode):
                yield process, address, length, offset

    def present(self, process: int, address: int, length: int) -> list[tuple[int, int]]:
        from dmasync.fakes.memory.touched import filled_runs

        try:
            with open(f"/proc/{process}/pagemap", "rb", buffering=0) as pagemap:
                pagemap.seek(address // _PAGE * _ENTRY)
                entries = pagemap.read(length // _PAGE * _ENTRY) or b""
        except OSError:
            return []  # it has ended
        return filled_runs(entries)

    def forget(self, process: int, address: int, length: int) -> None:
        if not self.present(process, address, length):
            return
        self.emptied.add((process, address))
        if self._may_advise:
            try:
                self._processes.advise(process, address, length, _MADV_PAGEOUT)
            except PermissionError:
                self._may_advise = False
            except OSError:
                pass
            if not self.present(process, address, length):
                return
        if not self._inside(process, address, length):
            self.given_up += 1
