"""Calls about mappings: mmap of what the backend has, and what is asked of a dma-buf's mapping later on."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.program import areas, memory, processes
from dmasync.harness.run.program.inside import TracedError
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

if TYPE_CHECKING:
    from dmasync.fakes.kernel.files.file import File
    from dmasync.fakes.kernel.files.mapped import Area

_WHERE: Final = 0x10 | 0x100000  # MAP_FIXED, MAP_FIXED_NOREPLACE
_MAP_LOCKED: Final = 0x2000
_LONGEST: Final = 1 << 47
"""No program has room for more."""
_PAGE: Final = mmap.PAGESIZE
_MS_ASYNC: Final = 1
_MS_FLAGS: Final = 7
_MREMAP_DONTUNMAP: Final = 4
_MREMAP_FLAGS: Final = 7


def _mmap(run: Supervisor, call: Notification) -> Answer:
    _, length, prot, flags, fd, offset = call.arguments
    if length > _LONGEST or offset > _LONGEST:
        return Said.CARRY_ON  # ENOMEM or EOVERFLOW, whatever the file is
    known = run.find(call, fd)
    if known is None:
        _of_its_own(run, call, fd & 0xFFFF_FFFF)
        return Said.CARRY_ON
    # The backend says whether it may be: where it is mapped in the program is the kernel's own business.
    asked = flags & 0xFFFF_FFFF & ~_WHERE & ~_MAP_LOCKED
    run.system.backend.mmap(known.fd, length, prot & 0xFFFF_FFFF, asked, offset).close()
    if known.file.is_plain:
        return Said.CARRY_ON
    from dmasync.harness.run.calls.piecewise_mmap import map_pieces

    try:
        if processes.is_traced(call.thread):
            raise TracedError
        return map_pieces(run, call, known)
    except TracedError:
        from dmasync.fakes.kernel import UnmodelledCallError

        raise UnmodelledCallError(
            "a buffer out of several ranges, while a debugger or strace has the program"
        ) from None


def _of_its_own(run: Supervisor, call: Notification, fd: int) -> None:
    """A shared mapping of a file of the program's: later it cannot be told from one of a udmabuf of that memfd."""
    if run.system.is_fake and call.thread not in run.made_by_us:
        key = processes.file_of(call.thread, fd)
        if key is not None:
            run.files.mapped_by_programs.add(key)


# -- what is asked of a mapping: that of a dma-buf refuses what the memfd that stands for it would do


def _buffer_at(run: Supervisor, call: Notification, address: int, length: int) -> tuple[areas.Area, File] | None:
    """The dma-buf that is mapped at *address*, with its area; None where none is within *length*.

    UnmodelledCallError where other things come before it: the kernel would do those, and then refuse the rest.
    """
    if call.thread in run.made_by_us or not length or length > _LONGEST or address % _PAGE:
        return None
    if run.files.is_empty:
        return None
    for place, area in enumerate(areas.areas(call.process, address, length)):
        file = run.files.buffer_of(area.key) if area.is_shared else None
        if file is None:
            continue
        if area.key in run.files.mapped_by_programs:
            run.note(
                f"{run.name_of(call)}(): of memory that is mapped as a memfd's and as its udmabuf's, dmasync run cannot"
                " tell which was meant; the program got the memfd's answer"
            )
            return None
        if place or area.begin > address:
            from dmasync.fakes.kernel import UnmodelledCallError

            raise UnmodelledCallError("a dma-buf's mapping behind others in one call")
        return area, file
    return None


def _madvise(run: Supervisor, call: Notification) -> Answer:
    address, length, advice = call.arguments[:3]
    found = _buffer_at(run, call, address, length)
    if found is None:
        return Said.CARRY_ON
    with _in_the_fake(*found) as mapped:
        asked = mapped.advise(advice & 0xFFFF_FFFF, address - found[0].begin, length)
    return 0 if asked is None else Said.CARRY_ON


@contextlib.contextmanager
def _in_the_fake(area: areas.Area, file: File) -> Iterator[Area]:
    """The mapping as the fake kernel keeps it, which has no other of it."""
    from dmasync.fakes.kernel.files.mapped import Area

    mapped = Area(file, area.end - area.begin, area.prot, mmap.MAP_SHARED, area.offset)
    try:
        yield mapped
    finally:
        mapped.unmapped()


def _msync(run: Supervisor, call: Notification) -> Answer:
    address, length, flags = call.arguments[:3]
    found = None
    if not flags & ~_MS_FLAGS & 0xFFFF_FFFF and not flags & _MS_ASYNC:
        found = _buffer_at(run, call, address, length)
    if found is not None:
        with _in_the_fake(*found) as mapped:
            mapped.check_flush(address - found[0].begin, length)
    return Said.CARRY_ON


def _mremap(run: Supervisor, call: Notification) -> Answer:
    """A dma-buf's mapping cannot become longer, nor be had twice."""
    address, old, new, flags = call.arguments[:4]
    known = not flags & ~_MREMAP_FLAGS & 0xFFFF_FFFF
    changes = new > old or flags & _MREMAP_DONTUNMAP
    if not known or not changes or not _buffer_at(run, call, address, old or 1):
        return Said.CARRY_ON
    code = errno.EINVAL if flags & _MREMAP_DONTUNMAP else errno.EFAULT
    raise OSError(code, os.strerror(code))


def _mincore(run: Supervisor, call: Notification) -> Answer:
    """Linux looks for a dma-buf's pages in the page cache of its file, where they are not."""
    address, length, into = call.arguments[:3]
    found = _buffer_at(run, call, address, length)
    if found is None:
        return Said.CARRY_ON
    if address + length > found[0].end:
        from dmasync.fakes.kernel import UnmodelledCallError

        raise UnmodelledCallError("more than a dma-buf's mapping in one call")
    memory.write(call.thread, into, bytes(-(-length // _PAGE)))
    return 0


HANDLERS: Final = {"mmap": _mmap, "madvise": _madvise, "msync": _msync, "mremap": _mremap, "mincore": _mincore}
