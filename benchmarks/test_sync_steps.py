"""What do START and END cost alone, and the first START of a buffer, from 4 KiB to 64 MiB?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

KIB, MIB = 1 << 10, 1 << 20
SIZES = {"4KiB": 4 * KIB, "64KiB": 64 * KIB, "1MiB": MIB, "4MiB": 4 * MIB, "16MiB": 16 * MIB, "64MiB": 64 * MIB}
QUICK_SIZES = ("64KiB", "1MiB", "4MiB")
ACCESSES = ("READ", "WRITE", "READ_WRITE")
BUFFERS = {
    "udmabuf": ("udmabuf", False),
    "system": ("system", False),
    "system_attached": ("system", True),
    "cma": ("cma", False),
    "cma_attached": ("cma", True),
}
"""Names of rows: a heap syncs for the devices that have mapped the buffer, and for nobody where none has."""


def _rows(buffers: tuple[str, ...] = tuple(BUFFERS)) -> list[Any]:
    rows = []
    for buffer in buffers:
        for size in SIZES:
            for access in ACCESSES:
                quick = size == "1MiB" or (buffer == "udmabuf" and size in QUICK_SIZES and access == "READ")
                marks = [] if quick else [pytest.mark.long]
                rows.append(
                    pytest.param(*BUFFERS[buffer], SIZES[size], access, id=f"{buffer}-{size}-{access}", marks=marks)
                )
    return rows


@pytest.mark.parametrize(("provider", "attached", "size", "access"), _rows())
def test_start(row: Callable[..., None], provider: str, attached: bool, size: int, access: str) -> None:
    arguments = {"provider": provider, "size": size, "access": access, "attached": attached}
    row("sync:start", arguments, api="fcntl", step="start")


@pytest.mark.parametrize(("provider", "attached", "size", "access"), _rows())
def test_end(row: Callable[..., None], provider: str, attached: bool, size: int, access: str) -> None:
    arguments = {"provider": provider, "size": size, "access": access, "attached": attached}
    row("sync:end", arguments, api="fcntl", step="end")


@pytest.mark.parametrize(("provider", "attached", "size", "access"), _rows(("udmabuf", "system", "cma")))
def test_first_start(row: Callable[..., None], provider: str, attached: bool, size: int, access: str) -> None:
    arguments = {"provider": provider, "size": size, "access": access, "attached": attached}
    row("sync:first_start", arguments, api="fcntl", step="first-start")
