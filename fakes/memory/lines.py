"""Bytes by cache line: stores with an address, sets of byte ranges, which lines of two stores differ."""

from __future__ import annotations

import ctypes
import mmap
import operator
import re
import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Final

from dmasync.fakes.memory import host

LINE: Final = 64
"""Bytes of a cache line: what Arm's big cores and x86 have."""
_BLOCK: Final = 1 << 16

Span = tuple[int, int]
"""(begin, end) in bytes, end not included."""

_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_unpack_lines = struct.Struct(f"{LINE}s").iter_unpack
_MARKED = re.compile(b"\x01+")


class Bytes:
    """A mapping as a view and an address; keeps it alive."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self.mapping = mapping
        self.view: memoryview[Any] = memoryview(mapping)
        self.address = host.address_of(mapping)

    @classmethod
    def zeroed(cls, size: int) -> Bytes:
        """*size* bytes of zeros, which take memory once they are written."""
        return cls(mmap.mmap(-1, size))

    def same(self, other: Bytes, begin: int, end: int) -> bool:
        """Whether both hold the same bytes there; copies nothing."""
        return not _libc.memcmp(self.address + begin, other.address + begin, end - begin)

    def copy_to(self, other: Bytes, begin: int, end: int) -> None:
        other.view[begin:end] = self.view[begin:end]


class Spans:
    """A set of bytes, kept as spans in order that neither touch nor overlap."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def __iter__(self) -> Iterator[Span]:
        return iter(tuple(self._spans))

    def __bool__(self) -> bool:
        return bool(self._spans)

    def add(self, begin: int, end: int) -> None:
        if begin >= end:
            return
        spans = self._spans
        # Those that touch [begin, end] are merged with it.
        first = bisect_left(spans, (begin, begin))
        if first and spans[first - 1][1] >= begin:
            first -= 1
        last = first
        while last < len(spans) and spans[last][0] <= end:
            begin, end = min(begin, spans[last][0]), max(end, spans[last][1])
            last += 1
        spans[first:last] = [(begin, end)]

    def remove(self, begin: int, end: int) -> None:
        left: list[Span] = []
        for low, high in self._spans:
            if low < begin:
                left.append((low, min(high, begin)))
            if high > end:
                left.append((max(low, end), high))
        self._spans = left

    def clear(self) -> None:
        self._spans = []

    def within(self, begin: int, end: int) -> list[Span]:
        """The parts that lie in [begin, end)."""
        return [(max(low, begin), min(high, end)) for low, high in self._spans if low < end and high > begin]

    def gaps(self, begin: int, end: int) -> list[Span]:
        """What of [begin, end) is not in the set."""
        found = []
        for low, high in self.within(begin, end):
            if begin < low:
                found.append((begin, low))
            begin = high
        if begin < end:
            found.append((begin, end))
        return found


def whole_lines(begin: int, end: int) -> Span:
    """The lines that [begin, end) touches."""
    return begin // LINE * LINE, -(-end // LINE) * LINE


def differing_blocks(one: Bytes, other: Bytes, begin: int, end: int) -> list[Span]:
    """Blocks of up to 64 KiB of [begin, end) in which the two differ."""
    blocks = [(block, min(block + _BLOCK, end)) for block in range(begin, end, _BLOCK)]
    return [(low, high) for low, high in blocks if not one.same(other, low, high)]


def differing_lines(one: Bytes, other: Bytes, begin: int, end: int) -> list[Span]:
    """Runs of lines in [begin, end), both multiples of LINE, in which the two differ."""
    runs: list[Span] = []
    for block in range(begin, end, _BLOCK):
        stop = min(block + _BLOCK, end)
        if one.same(other, block, stop):
            continue
        # Views, not copies: the bytes may change while they are looked at, and then are seen the next time.
        marks = bytes(map(operator.ne, _unpack_lines(one.view[block:stop]), _unpack_lines(other.view[block:stop])))
        for match in _MARKED.finditer(marks):
            low, high = block + match.start() * LINE, block + match.end() * LINE
            if runs and runs[-1][1] == low:
                runs[-1] = (runs[-1][0], high)
            else:
                runs.append((low, high))
    return runs


def differing_bytes(one: Bytes, other: Bytes, runs: list[Span], most: int = 16) -> tuple[tuple[int, int], ...]:
    """(offset, length) of what differs, from the first to the last such byte of each of the first *most*
    runs.
    """
    found = []
    for low, high in runs[:most]:
        mine, theirs = bytes(one.view[low:high]), bytes(other.view[low:high])
        first = next((i for i in range(len(mine)) if mine[i] != theirs[i]), None)
        if first is None:
            continue
        last = next(i for i in range(len(mine) - 1, -1, -1) if mine[i] != theirs[i])
        found.append((low + first, last - first + 1))
    return tuple(found)
