"""The programs' tables of descriptors: threads share one, processes may (CLONE_FILES), and either may part from it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from dmasync.harness.run.program import processes


def owners(of: Iterable[int]) -> list[int]:
    """Threads of the processes *of*, one for each table that they have."""
    found: list[int] = []
    for process in of:
        threads = [process]
        with contextlib.suppress(OSError):
            threads += [thread for thread in map(int, os.listdir(f"/proc/{process}/task")) if thread != process]
        own: list[int] = []
        for thread in threads:
            # Where the host does not tell, processes have tables of their own, and threads their process's.
            if not any(_are_one(thread, other, unknown=True) for other in own):
                own.append(thread)
        found += [thread for thread in own if not any(_are_one(thread, other, unknown=False) for other in found)]
    return found


def numbers_of(key: tuple[int, int], of: Iterable[int], below: int | None) -> Iterator[tuple[int, int]]:
    """(thread, number) of the descriptors, one for each in every table of the processes *of*, of files with the device
    and inode *key*; only of numbers that are lower than *below*.
    """
    for thread in owners(of):
        numbers: list[str] = []
        with contextlib.suppress(OSError):  # it has ended
            numbers = os.listdir(f"/proc/{thread}/fd")
        wanted = (number for number in map(int, numbers) if below is None or number < below)
        yield from ((thread, number) for number in wanted if processes.file_of(thread, number) == key)


def _are_one(thread: int, other: int, *, unknown: bool) -> bool:
    same = processes.same_table(thread, other)
    return unknown if same is None else same
