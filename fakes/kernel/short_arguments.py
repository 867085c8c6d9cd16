"""An ioctl's argument in memory of its own, behind which nothing is: what is missing of a structure is EFAULT there."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator

from dmasync.fakes.kernel.usermem import Argument
from dmasync.fakes.memory import host

ZEROS, EFAULT = "zeros", "EFAULT"
CHOICES = (ZEROS, EFAULT)


@contextlib.contextmanager
def before_a_hole(argument: Argument) -> Iterator[int]:
    """The address of a copy of *argument*, a writable buffer, that ends where a page begins which cannot be touched.

    After the block *argument* has what was written there.
    """
    with memoryview(argument).cast("B") as view:
        room = (len(view) // mmap.PAGESIZE + 1) * mmap.PAGESIZE
        with mmap.mmap(-1, room + mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            host.forbid(host.address_of(memory) + room, mmap.PAGESIZE)
            begin = room - len(view)
            memory[begin:room] = view
            try:
                yield host.address_of(memory) + begin
            finally:
                view[:] = memory[begin:room]
