"""Where processors differ: how much a process can map, which huge pages there are, which flags ``mmap`` knows, and
what is written of an answer that has no room.

Numbers that programs and their kernel must agree on stay this host's: ``O_DIRECT`` and three other flags of ``open``
are other bits on arm64, and are not translated.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

HOST: Final = "host"
_GAP: Final = 128 << 20
_2_MIB, _32_MIB, _1_GIB, _16_GIB = 21, 25, 30, 34

Logs = Mapping[int, tuple[int, ...]]
"""By the bytes of a page: logarithms of sizes."""


@dataclass(frozen=True)
class Machine:
    """What a kernel's answers owe to the processor that it was built for."""

    name: str
    """As ``uname -m`` says it."""
    address_space: int
    """The first address beyond a process's memory (``asm/processor.h``)."""
    map_flags: int = 0
    """Flags of ``mmap`` that no other machine knows."""
    map_above_4g: int = 0
    """One more, which not all releases know: ``Profile.maps_above_4g``."""
    blocks: Logs = field(default_factory=dict)
    """Huge pages besides the usual ones: so many pages, or usual huge pages, in a row."""
    copies_words: bool = False
    """What a kernel writes to memory that ends within it: not a byte of the word of eight that the end cuts, and of a
    first word the first byte (``lib/copy_template.S``); otherwise all bytes up to the end."""
    perhaps: Logs = field(default_factory=dict)
    """Huge pages that not every such processor has."""

    @property
    def longest_mapping(self) -> int:
        """Bytes that a mapping has room for at most: the stack, and a gap below it, are in every process."""
        return self.address_space - _GAP

    def huge_pages(self, page_size: int) -> tuple[int, ...]:
        """Logarithms of the sizes of huge pages, the usual one first.

        A page of pointers, eight bytes each, is a huge page: 2 MiB of 4 KiB pages, 512 MiB of 64 KiB ones.
        """
        usual = (page_size * (page_size // 8)).bit_length() - 1
        return (usual, *self.blocks.get(page_size, ()))


_LARGE: Final[Logs] = {16384: (_2_MIB, _1_GIB), 65536: (_2_MIB, _16_GIB)}
"""What arm64 alone has, ``CONT_PTE`` and ``CONT_PMD`` in ``asm/pgtable-hwdef.h``."""
MACHINES: Final[Mapping[str, Machine]] = MappingProxyType(
    {
        # MAP_32BIT and MAP_ABOVE4G. Larger pages than an x86-64 has are arm64's.
        "x86_64": Machine("x86_64", 1 << 47, 0x40, 0x80, blocks=_LARGE, perhaps={4096: (_1_GIB,)}),
        "aarch64": Machine("aarch64", 1 << 48, blocks={4096: (16, _32_MIB, _1_GIB), **_LARGE}, copies_words=True),
    }
)


def machine_named(name: str) -> Machine:
    """The machine that ``uname -m`` calls *name*, or ``"host"``, this one. ValueError."""
    if name == HOST:
        own = platform.machine()
        return MACHINES.get(own) or Machine(own, 1 << 47)
    if name not in MACHINES:
        known = ", ".join(map(repr, (*MACHINES, HOST)))
        raise ValueError(f"machine={name!r} is none that the fake knows: use one of {known}")
    return MACHINES[name]
