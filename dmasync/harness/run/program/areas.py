"""What a program has mapped at an address: its kernel's areas, from ``/proc/PID/maps``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from dmasync.harness.run.open_files import Key

_QUERY: Final = struct.Struct("=9Q4I2Q")
"""struct procmap_query: size, flags, address; then begin, end, flags, page size, offset and inode of an area, major,
minor, and room for names, which nobody wants here.
"""
_PROCMAP_QUERY: Final = 0xC0686611
_COVERING_OR_NEXT: Final = 0x10
_SHARED: Final = 8


class Area(NamedTuple):
    """A mapping, or what was left of it when others were laid over parts."""

    begin: int
    end: int
    prot: int
    is_shared: bool
    offset: int
    """Of *begin* in the file."""
    key: Key
    """The file's device and inode."""


def areas(process: int, address: int, length: int) -> Iterator[Area]:
    """The areas of *process* that have a byte of *length* from *address* on, in order; none where it has ended."""
    last = address + length
    with contextlib.suppress(ProcessLookupError, FileNotFoundError), open(f"/proc/{process}/maps", "rb") as maps:
        found = _asked(maps.fileno(), address)
        if found is None:
            yield from (area for area in map(_read, maps) if area.end > address and area.begin < last)
            return
        while isinstance(found, Area) and found.begin < last:
            yield found
            found = _asked(maps.fileno(), found.end)


def _asked(maps: int, address: int) -> Area | bool | None:
    """The area at *address* or the next one; False behind the last, None where the kernel cannot be asked like this,
    which it can since Linux 6.11.
    """
    question = bytearray(_QUERY.pack(_QUERY.size, _COVERING_OR_NEXT, address, *[0] * 12))
    try:
        fcntl.ioctl(maps, _PROCMAP_QUERY, question)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    _, _, _, begin, end, flags, _, offset, inode, major, minor, *_ = _QUERY.unpack(question)
    return Area(begin, end, flags & 7, bool(flags & _SHARED), offset, (os.makedev(major, minor), inode))


def _read(line: bytes) -> Area:
    """From a line such as ``7f0-7f1 rw-s 00001000 00:01 4711  /memfd:frames (deleted)``."""
    addresses, rights, offset, device, inode = line.split(None, 5)[:5]
    begin, end = (int(text, 16) for text in addresses.split(b"-"))
    prot = sum(1 << place for place, letter in enumerate(b"rwx") if rights[place] == letter)
    major, minor = (int(text, 16) for text in device.split(b":"))
    return Area(begin, end, prot, rights[3:4] == b"s", int(offset, 16), (os.makedev(major, minor), int(inode)))
