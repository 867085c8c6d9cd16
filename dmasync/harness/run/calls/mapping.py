"""Calls about mappings: mmap of what the backend has, and what is asked of a dma-buf's mapping later on."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import platform
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.open_files import Key, OpenFile
from dmasync.harness.run.program import areas, memory, processes
from dmasync.harness.run.program.inside import TracedError
from dmasync.harness.run.program.mapped import Mapping
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import FakeSystem
    from dmasync.fakes.kernel.files.mapped import Area

_WHERE: Final = 0x10 | 0x100000  # MAP_FIXED, MAP_FIXED_NOREPLACE
_MAP_FIXED: Final = 0x10
_MAP_LOCKED: Final = 0x2000
_LONGEST: Final = 1 << (48 if platform.machine() == "aarch64" else 47)
"""No program has room for more."""
_LAST: Final = (1 << 64) - 1
_PAGE: Final = mmap.PAGESIZE
_MOST_VECTORS: Final = 1024
_VECTOR: Final = struct.Struct("=QQ")  # struct iovec of a 64-bit machine
_OF_OTHERS: Final = (3, 20, 21, 25)
"""MADV_WILLNEED, COLD, PAGEOUT and COLLAPSE: what may be advised to another process."""
_ANY_ADVICE_TO_ITSELF: Final = "6.13"
"""Seen in 6.18.44, not in 6.12.117; what lies between was not asked."""
_MS_ASYNC: Final = 1
_MS_FLAGS: Final = 7
_MOVES_SEVERAL: Final = "6.18"
"""6.12.117 was asked and moves one alone; newer ones are said to move several since 6.17, and were not asked."""
_MREMAP_MAYMOVE: Final = 1
_MREMAP_FIXED: Final = 2
_MREMAP_DONTUNMAP: Final = 4
_MREMAP_FLAGS: Final = 7


def _mmap(run: Supervisor, call: Notification) -> Answer:
    _, length, prot, flags, fd, offset = call.arguments
    if length > _LONGEST or offset > (_LAST - length if run.system.is_fake else _LONGEST):
        return Said.CARRY_ON  # ENOMEM or EOVERFLOW, whatever the file is; on a real one, Python's mmap would not ask
    known = run.find(call, fd)
    if known is None:
        _of_its_own(run, call, fd & 0xFFFF_FFFF)
        return Said.CARRY_ON
    # The backend says whether it may be: where it is mapped in the program is the kernel's own business.
    asked = flags & 0xFFFF_FFFF & ~_WHERE & ~_MAP_LOCKED
    run.system.backend.mmap(known.fd, length, prot & 0xFFFF_FFFF, asked, offset).close()
    if known.file.is_plain:
        if run.system.is_fake:
            _expect(run, call, known.file, known.file.key, length, offset)
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
    """A shared mapping of a file of the program's: of its memfd, it looks as that of a udmabuf does."""
    if run.system.is_fake and call.thread not in run.made_by_us:
        key = processes.file_of(call.thread, fd)
        if key is not None:
            _expect(run, call, None, key, call.arguments[1], call.arguments[5])


def _expect(run: Supervisor, call: Notification, file: OpenFile | None, key: Key, length: int, offset: int) -> None:
    address = call.arguments[0] if call.arguments[3] & _WHERE else 0
    place = offset, -(-length // _PAGE) * _PAGE
    flags = call.arguments[3]
    run.mappings.expect(
        call.process, call.thread, file, key, place, address,
        replaces=bool(flags & _MAP_FIXED), flags=run.mappings.first_flags(file, flags),
        is_shared=bool(flags & mmap.MAP_SHARED), hint=call.arguments[0],
    )  # fmt: skip


# -- what is asked of a mapping: that of a dma-buf refuses what the memfd that stands for it would do


def _buffer_at(run: Supervisor, call: Notification, address: int, length: int) -> Mapping | None:
    """The mapping of a dma-buf at *address*; None where none is within *length*.

    UnmodelledCallError where other things come before it: the kernel would do those, and then refuse the rest.
    """
    if call.thread in run.made_by_us or not length or length > _LONGEST or address % _PAGE:
        return None
    if run.files.is_empty:
        return None
    found = run.mappings.at(call.process, call.thread, address, length)
    if found is None:
        return None
    if not found.is_sure:
        run.note(
            f"{run.name_of(call)}(): of memory that is mapped as a memfd's and as its udmabuf's, dmasync run cannot"
            " tell which was meant; the program got the memfd's answer"
        )
        return None
    if found.begin > address:
        from dmasync.fakes.kernel import UnmodelledCallError

        raise UnmodelledCallError("a dma-buf's mapping behind others in one call")
    return found


def _madvise(run: Supervisor, call: Notification) -> Answer:
    address, length, advice = call.arguments[:3]
    found = _buffer_at(run, call, address, length)
    if found is None:
        return Said.CARRY_ON
    advice &= 0xFFFF_FFFF
    with _in_the_fake(found) as mapped:
        asked = mapped.advise(advice, address - found.begin, length)
    run.mappings.advise(call.process, advice, address, address + -(-length // _PAGE) * _PAGE)
    return 0 if asked is None else Said.CARRY_ON


@contextlib.contextmanager
def _in_the_fake(found: Mapping) -> Iterator[Area]:
    """The mapping as the fake kernel keeps it, which has no other of it."""
    from dmasync.fakes.kernel.files.mapped import Area

    assert found.owner is not None  # noqa: S101 - it is a buffer's
    prot = found.parts[0].prot
    flags = mmap.MAP_SHARED if found.is_shared else mmap.MAP_PRIVATE
    mapped = Area(found.owner.held, found.end - found.begin, prot, flags, max(0, found.offset))
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
        with _in_the_fake(found) as mapped:
            mapped.check_flush(address - found.begin, length)
    return Said.CARRY_ON


def _mremap(run: Supervisor, call: Notification) -> Answer:
    """A dma-buf's mapping cannot become longer, nor be had twice."""
    address, old, new, flags = call.arguments[:4]
    known = not flags & ~_MREMAP_FLAGS & 0xFFFF_FFFF
    changes = new > old or flags & _MREMAP_DONTUNMAP
    found = _buffer_at(run, call, address, old or 1) if known and (changes or flags & _MREMAP_FIXED) else None
    if found is None:
        if known and call.thread not in run.made_by_us:
            _moves_its_own(run, call)
        return Said.CARRY_ON
    if not changes:
        return _move(run, call, found)
    code = errno.EINVAL if flags & _MREMAP_DONTUNMAP else errno.EFAULT
    raise OSError(code, os.strerror(code))


def _move(run: Supervisor, call: Notification, found: Mapping) -> Answer:
    """To another place. The host moves one area at a time, and what is one to Linux may be several there."""
    address, old, new, flags, to = call.arguments[:5]
    end, new_end = address + -(-old // _PAGE) * _PAGE, to + -(-new // _PAGE) * _PAGE
    overlaps = to < end and address < new_end
    if overlaps or not new or to % _PAGE or not to < new_end <= _LONGEST or not flags & _MREMAP_MAYMOVE:
        return Said.CARRY_ON  # EINVAL
    if not any(part.begin <= address and end <= part.end for part in found.parts) and not _moves_several(run):
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    of_host = [(max(area.begin, address), min(area.end, end)) for area in areas.areas(call.process, address, old)]
    _moves(run, call, found)
    if len(of_host) == 1:
        return Said.CARRY_ON
    from dmasync.harness.run.calls.piecewise_mmap import move_pieces

    return move_pieces(run, call, [(begin, last - begin) for begin, last in of_host])


def _moves_several(run: Supervisor) -> bool:
    """Whether areas that Linux keeps apart are moved in one call."""
    from dmasync.fakes.kernel.releases import Since

    system: FakeSystem = run.system  # type: ignore[assignment]
    return system.kernel.profile.release in Since.of(_MOVES_SEVERAL)


def _moves_its_own(run: Supervisor, call: Notification) -> None:
    """A shared mapping of a memfd, which looks as that of its udmabuf does, may come to lie elsewhere."""
    address, _, new, flags, to = call.arguments[:5]
    area = next(areas.areas(call.process, address, 1), None)
    if area is None or not area.is_shared or run.files.buffer_of(area.key) is None:
        return
    fixed = bool(flags & _MREMAP_FIXED)
    place = area.offset + address - area.begin, -(-new // _PAGE) * _PAGE
    run.mappings.expect(
        call.process, call.thread, None, area.key, place, to if fixed else 0, replaces=fixed, flags=0, hint=to
    )


def _moves(run: Supervisor, call: Notification, found: Mapping) -> None:
    address, _, new, _, to = call.arguments[:5]
    length = -(-new // _PAGE) * _PAGE
    moved = next((part for part in found.parts if part.begin <= address < part.end), found.parts[0])
    if found.offset < 0 and found.owner is not None:
        run.mappings.add(call.process, found.owner, to, length, moved.prot, flags=moved.flags)
        return
    (key,) = found.keys
    place = found.offset + address - found.begin, length
    run.mappings.expect(
        call.process, call.thread, found.owner, key, place, to,
        replaces=True, flags=moved.flags, is_shared=found.is_shared, hint=to,
    )  # fmt: skip


def _need_no_hole(call: Notification, begin: int, end: int) -> None:
    """ENOMEM where nothing is mapped at some bytes from *begin* to *end*."""
    for area in areas.areas(call.process, begin, end - begin):
        if area.begin > begin:
            break
        begin = area.end
    if begin < end:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def _mincore(run: Supervisor, call: Notification) -> Answer:
    """Linux looks for a dma-buf's pages in the page cache of its file, where they are not."""
    address, length, into = call.arguments[:3]
    found = _buffer_at(run, call, address, length)
    if found is None:
        return Said.CARRY_ON
    if not found.covers(address, address + length):
        _need_no_hole(call, address, address + length)
        from dmasync.fakes.kernel import UnmodelledCallError

        raise UnmodelledCallError("more than a dma-buf's mapping in one call")
    memory.write(call.thread, into, bytes(-(-length // _PAGE)))
    return 0


def _mlock(run: Supervisor, call: Notification) -> Answer:
    """Linux passes over a dma-buf's mapping, whatever it may do; the host fails to fill one that may do nothing."""
    address, length = call.arguments[:2]
    if run.name_of(call) == "mlock2" and call.arguments[2]:
        return Said.CARRY_ON
    begin = address // _PAGE * _PAGE
    end = -(-(address + length) // _PAGE) * _PAGE
    found = _buffer_at(run, call, begin, end - begin)
    if found is None or not found.covers(begin, end) or all(part.prot for part in found.parts):
        return Said.CARRY_ON
    return 0 if processes.may_lock(call.process, end - begin) else Said.CARRY_ON  # the host refuses it as well


def _process_madvise(run: Supervisor, call: Notification) -> Answer:
    """Advice about several ranges, of this process or another's: it ends at the first that is refused."""
    pidfd, vectors, count, advice, flags = call.arguments[:5]
    process = None if flags & 0xFFFF_FFFF else processes.of_pidfd(call.thread, pidfd & 0xFFFF_FFFF)
    if process is None or count > _MOST_VECTORS or run.files.is_empty:
        return Said.CARRY_ON
    ranges = list(_VECTOR.iter_unpack(memory.peek(call.thread, vectors, count * _VECTOR.size)))
    if len(ranges) < count or not any(
        run.mappings.at(process, call.thread, begin, length) for begin, length in ranges if length
    ):
        return Said.CARRY_ON
    advice &= 0xFFFF_FFFF
    if advice not in _OF_OTHERS and not (process == call.process and _may_advise_itself(run)):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    done = 0
    for begin, length in ranges:
        found = run.mappings.at(process, call.thread, begin, length) if length else None
        if found is not None and found.is_sure:
            if found.begin > begin or (done and advice not in _OF_OTHERS):
                from dmasync.fakes.kernel import UnmodelledCallError

                raise UnmodelledCallError("a dma-buf's mapping behind others in one call")
            try:
                with _in_the_fake(found) as mapped:
                    mapped.advise(advice, begin - found.begin, length)
            except OSError:
                if not done:
                    raise
                return done  # what came before were hints, which nobody needs to follow
        done += length
    return Said.CARRY_ON


def _may_advise_itself(run: Supervisor) -> bool:
    from dmasync.fakes.kernel.releases import Since

    system: FakeSystem = run.system  # type: ignore[assignment]
    return system.kernel.profile.release in Since.of(_ANY_ADVICE_TO_ITSELF)


HANDLERS: Final = {
    "mlock": _mlock,
    "mlock2": _mlock,
    "process_madvise": _process_madvise,
    "mmap": _mmap,
    "madvise": _madvise,
    "msync": _msync,
    "mremap": _mremap,
    "mincore": _mincore,
}
