"""The fences on a buffer (``drivers/dma-buf/dma-resv.c``)."""

from __future__ import annotations

import enum

from fakes.kernel.fence import Fence, FenceArray, wait_interruptibly


class Usage(enum.IntEnum):
    """What a fence's work does to the buffer; whoever waits for one sees all lower ones too."""

    KERNEL = 0
    WRITE = 1
    READ = 2


def usage_to_wait_for(write: bool) -> Usage:
    """``dma_resv_usage_rw()``: a writer waits for readers and writers, a reader for writers."""
    return Usage.READ if write else Usage.WRITE


class Reservation:
    """``struct dma_resv``: the fences of one buffer."""

    def __init__(self) -> None:
        self._entries: tuple[tuple[Fence, Usage], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, fence: Fence, usage: Usage) -> None:
        """``dma_resv_add_fence()``: takes the place of a signalled fence or of an earlier one of its
        context.
        """
        entries = list(self._entries)
        for index, (old, old_usage) in enumerate(entries):
            supersedes = old.context == fence.context and old_usage >= usage and fence.seqno >= old.seqno
            if supersedes or old.is_signaled():
                entries[index] = (fence, usage)
                break
        else:
            entries.append((fence, usage))
        self._entries = tuple(entries)

    def pending(self, usage: Usage) -> list[Fence]:
        """The fences not yet signalled that *usage* has to wait for, oldest first."""
        return [fence for fence, its_usage in self._entries if its_usage <= usage and not fence.is_signaled()]

    def wait(self, usage: Usage) -> None:
        """Wait for all of :meth:`pending`, as they are now; OSError with EINTR when a signal arrives."""
        for fence in self.pending(usage):
            wait_interruptibly(fence)

    def singleton(self, usage: Usage) -> Fence | None:
        """``dma_resv_get_singleton()``: one fence for all pending ones, None when there is none."""
        pending = self.pending(usage)
        if not pending:
            return None
        return pending[0] if len(pending) == 1 else FenceArray(pending)
