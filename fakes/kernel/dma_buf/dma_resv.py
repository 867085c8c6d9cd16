"""The fences on a buffer (``drivers/dma-buf/dma-resv.c``)."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from dmasync.fakes.kernel.dma_buf.dma_fence import Fence, FenceArray, wait_interruptibly


class Usage(enum.IntEnum):
    """What a fence's work does to the buffer; whoever waits for one sees all lower ones too."""

    KERNEL = 0
    WRITE = 1
    READ = 2


def usage_to_wait_for(write: bool) -> Usage:
    """``dma_resv_usage_rw()``: a writer waits for readers and writers, a reader for writers."""
    return Usage.READ if write else Usage.WRITE


_LIST_HEADER, _POINTER = 24, 8
_SMALL_ALLOCATIONS = (8, 16, 32, 64, 96, 128, 192)
_FEWEST = 4


def _with_room_for(fences: int) -> int:
    """``dma_resv_list_alloc()``: how many fences a list for *fences* has room for, as ``kmalloc()`` rounds it up."""
    size = _LIST_HEADER + _POINTER * fences
    rounded = next((small for small in _SMALL_ALLOCATIONS if small >= size), _power_of_two(size))
    return (rounded - _LIST_HEADER) // _POINTER


def _power_of_two(number: int) -> int:
    """The first one that is not smaller."""
    return 1 << (number - 1).bit_length()


class Reservation:
    """``struct dma_resv``: the fences of one buffer."""

    def __init__(self) -> None:
        self.entries: list[tuple[Fence, Usage]] = []
        """Another object once it had to grow, and only then: who walks it goes by that."""
        self._room = 0

    def add(self, fence: Fence, usage: Usage) -> None:
        """What a driver does with its fence: :meth:`add_all` of one."""
        self.add_all((fence,), usage)

    def add_all(self, fences: Sequence[Fence], usage: Usage) -> None:
        """``dma_resv_reserve_fences()`` for all of them, then ``dma_resv_add_fence()`` for each.

        A fence takes the place of a signalled one or of an earlier one of its context. Only a list that has to grow
        drops what has signalled: in one that does not, a fence may come to stand twice.
        """
        self._reserve(len(fences))
        entries = self.entries
        for fence in fences:
            for index, (old, old_usage) in enumerate(entries):
                is_later = fence is old or fence.seqno > old.seqno
                if (old.context == fence.context and old_usage >= usage and is_later) or old.is_signaled():
                    entries[index] = (fence, usage)
                    break
            else:
                entries.append((fence, usage))

    def _reserve(self, count: int) -> None:
        needed = len(self.entries) + count
        if needed > self._room:
            most = max(needed, 2 * self._room) if self._room else max(_FEWEST, _power_of_two(count))
            self._room = _with_room_for(most)
            self.entries = [entry for entry in self.entries if not entry[0].is_signaled()]

    def pending(self, usage: Usage) -> list[Fence]:
        """The fences not yet signalled that *usage* has to wait for, in the order of the list."""
        return [fence for fence, its_usage in list(self.entries) if its_usage <= usage and not fence.is_signaled()]

    def wait(self, usage: Usage) -> None:
        """``dma_resv_wait_timeout()``: wait for what *usage* has to wait for; OSError with EINTR when a signal arrives.

        Meanwhile others may add fences. One that takes a place still to come is waited for, one behind the last place
        that there was at the beginning is not; and once the list has grown it is walked anew.
        """
        entries: list[tuple[Fence, Usage]] | None = None
        while entries is not self.entries:
            entries = self.entries
            for index in range(len(entries)):
                fence, its_usage = entries[index]
                if its_usage <= usage and not fence.is_signaled():
                    wait_interruptibly(fence)
                    if entries is not self.entries:
                        break

    def singleton(self, usage: Usage) -> Fence | None:
        """``dma_resv_get_singleton()``: one fence for all pending ones, None when there is none."""
        pending = self.pending(usage)
        if not pending:
            return None
        return pending[0] if len(pending) == 1 else FenceArray(pending)
