"""mmap of a udmabuf whose pages are not one host file's from its beginning: the program maps them piece by piece."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.open_files import Descriptor
from dmasync.harness.run.program.inside import Inside, is_error
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

if TYPE_CHECKING:
    from dmasync.fakes.foreign.systems import FakeSystem

_PAGE: Final = mmap.PAGESIZE
_MAP_PRIVATE: Final = 0x02
_MAP_FIXED: Final = 0x10
_WHERE: Final = 0x10 | 0x40 | 0x100000
"""MAP_FIXED, MAP_32BIT, MAP_FIXED_NOREPLACE."""
_MAP_ANONYMOUS: Final = 0x20
_MAP_LOCKED: Final = 0x2000
_MREMAP_MAYMOVE_FIXED: Final = 3


@contextlib.contextmanager
def _ours(run: Supervisor, thread: int) -> Iterator[None]:
    run.made_by_us.add(thread)
    try:
        yield
    finally:
        run.made_by_us.discard(thread)


def move_pieces(run: Supervisor, call: Notification, pieces: Sequence[tuple[int, int]]) -> Answer:
    """``mremap`` with MREMAP_FIXED of what is one area to Linux and *pieces* of (address, length) to the host, which
    moves one area at a time.
    """
    address, _, new, _, to, _ = call.arguments
    new = -(-new // _PAGE) * _PAGE
    run.pass_on()  # the calls that it makes are for us to answer
    with Inside(call.thread, lambda: run.listener.answer(call, 0)) as thread, _ours(run, call.thread):
        result = thread.call("munmap", to, new)
        for begin, length in pieces:
            keep = min(length, address + new - begin)
            if is_error(result):
                break
            if keep <= 0:
                result = thread.call("munmap", begin, length)
                continue
            result = thread.call("mremap", begin, length, keep, _MREMAP_MAYMOVE_FIXED, to + begin - address)
        thread.finish(result if is_error(result) else to)
    return Said.SENT


def map_pieces(run: Supervisor, call: Notification, known: Descriptor) -> Answer:
    """Reserve the addresses, lay each piece over its part, and let the program's call return where they begin."""
    system: FakeSystem = run.system  # type: ignore[assignment]
    address, length, prot, flags, _, offset = call.arguments
    length = -(-length // _PAGE) * _PAGE
    runs = system.runs(known.fd)
    numbers: dict[int, int] = {}
    for store, _, _ in runs:
        if store.fd not in numbers:
            numbers[store.fd] = run.listener.give(call, store.fd, None, close_on_exec=True, answer=False)
    run.pass_on()  # the calls that it makes are for us to answer
    # The mark goes before the thread does: its next call may be another of these.
    with Inside(call.thread, lambda: run.listener.answer(call, 0)) as thread, _ours(run, call.thread):
        how = _MAP_PRIVATE | _MAP_ANONYMOUS | flags & _WHERE
        base = result = thread.call("mmap", address, length, 0, how, -1, 0)
        done = begin = 0
        for store, run_offset, run_length in () if is_error(base) else runs:
            skip = max(0, offset - begin)
            part = min(run_length - skip, length - done)
            if part > 0:
                laid = thread.call(
                    "mmap", base + done, part, prot, flags & 0xFFFF & ~_MAP_LOCKED | _MAP_FIXED,
                    numbers[store.fd], run_offset + skip,
                )  # fmt: skip
                if is_error(laid):
                    result = laid
                    break
                done += part
            begin += run_length
        for number in numbers.values():
            thread.call("close", number)
        if not is_error(result):
            first = run.mappings.first_flags(known.file, flags)
            run.mappings.add(call.process, known.file, base, length, prot & 7, flags=first)
        thread.finish(result)
    return Said.SENT
