"""The pool of huge pages of one size and what of it is promised (``mm/hugetlb.c``), as ``nr_hugepages`` sets it."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from dmasync.fakes.kernel.errors import UnmodelledCallError
from dmasync.fakes.kernel.machine import Machine


def pools_of(
    huge_pages: int | Mapping[int, int], machine: Machine, page_size: int, lock: AbstractContextManager[Any]
) -> dict[int, HugePool]:
    """The pools of *machine* by the size of their pages in bytes; *huge_pages* as FakeKernel takes them. ValueError."""
    known = [1 << log for log in machine.huge_pages(page_size)]
    possible = [*known, *(1 << log for log in machine.perhaps.get(page_size, ()))]
    counts = {known[0]: huge_pages} if isinstance(huge_pages, int) else dict(huge_pages)
    for size, count in counts.items():
        if size not in possible:
            sizes = ", ".join(map(str, possible))
            raise ValueError(f"huge_pages={huge_pages!r}: {machine.name} has none of {size} bytes, only of {sizes}")
        if count < 0:
            raise ValueError(f"huge_pages={huge_pages!r} must not be negative")
    return {size: HugePool(counts.get(size, 0), lock) for size in {*known, *counts}}


class HugeFile(Protocol):
    """A file of huge pages."""

    def look(self) -> None:
        """See which pages the program has touched since the last time; UnmodelledCallError where there were none."""

    def show(self) -> None:
        """Let the program touch what there is a page for, and nothing else."""


class HugePool:
    """Huge pages of one size: those that are *free*, and how many of them are *promised* to files and mappings.

    Which pages a program touches nobody sees: everybody who asks for the numbers, or changes them, does so within
    :meth:`changing`, which holds the kernel's *lock*.
    """

    def __init__(self, count: int, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self.free = count
        self.promised = 0
        """Below 0 once a release that pins pages without a promise has pinned one that was not promised."""
        self.files: weakref.WeakSet[HugeFile] = weakref.WeakSet()
        self._depth = 0

    @contextlib.contextmanager
    def changing(self, *, quietly: bool = False) -> Iterator[None]:
        """The block sees what was touched before it; after it, the program can touch what is there then.

        *quietly* leaves what should have killed the program to whoever asks next.
        """
        with self._lock:
            if not self._depth:
                for file in list(self.files):
                    with contextlib.suppress(UnmodelledCallError) if quietly else contextlib.nullcontext():
                        file.look()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                self._show()

    def promise(self, pages: int) -> bool:
        """Promise *pages* more (negative: fewer), as ``hugetlb_acct_memory()``; False, and none, if there are not."""
        # The second: also where fewer than none are promised, no more are than there are.
        if pages > 0 and (self.promised + pages > self.free or pages > self.free):
            return False
        self.promised += pages
        return True

    def has(self, *, promised: bool) -> bool:
        """Whether there is a page for whoever has been *promised* one, or has not."""
        return self.free > 0 and (promised or self.free > self.promised)

    def take(self, *, promised: bool) -> HugePage | None:
        """A page for whoever has been *promised* one, or has not; None where there is none."""
        if not self.has(promised=promised):
            return None
        self.free -= 1
        self.promised -= promised
        return HugePage(self)

    def give_back(self) -> None:
        """A page that nobody has any more."""
        with self._lock:
            self.free += 1
            self._show()

    def _show(self) -> None:
        if not self._depth:
            for file in list(self.files):
                file.show()


class HugePage:
    """One page that was taken of *pool*; it is given back once nobody refers to it.

    None: there was no page, and the program should be dead.
    """

    def __init__(self, pool: HugePool | None) -> None:
        if pool is not None:
            weakref.finalize(self, pool.give_back).atexit = False
