"""What the rows vary: buffers, sizes, accesses, and which of them the short suite has. Names stay as they are."""

from __future__ import annotations

from typing import Any

import pytest

KIB, MIB = 1 << 10, 1 << 20
SIZES = {
    "4KiB": 4 * KIB,
    "64KiB": 64 * KIB,
    "1MiB": MIB,
    "4MiB": 4 * MIB,
    "16MiB": 16 * MIB,
    "64MiB": 64 * MIB,
}
"""64 MiB is udmabuf's limit unless its parameter size_limit_mb says otherwise."""
ACCESSES = ("READ", "WRITE", "READ_WRITE")
PROVIDERS = ("udmabuf", "system", "cma")
BUFFERS = {
    "udmabuf": {"provider": "udmabuf", "attached": False},
    "system": {"provider": "system", "attached": False},
    "system_attached": {"provider": "system", "attached": True},
    "cma": {"provider": "cma", "attached": False},
    "cma_attached": {"provider": "cma", "attached": True},
}
"""A heap syncs for the devices that have mapped a buffer, and for nobody where none has."""


def rows(*cells: tuple[str, bool, tuple[Any, ...]]) -> list[Any]:
    """Parameters from (name, whether the short suite has it, values)."""
    return [pytest.param(*values, id=name, marks=() if quick else (pytest.mark.long,)) for name, quick, values in cells]
