"""What does the same pair cost the way Python programs do it today?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from grid import BUFFERS, MIB, rows

WAYS = ("ctypes-struct", "ctypes-struct-IntFlag", "bytes")


@pytest.mark.parametrize(
    "arguments",
    rows(
        *(
            (f"{buffer}-1MiB-READ_WRITE-{way}", False, ({"api": way, "size": MIB, "access": "READ_WRITE", **facts},))
            for buffer, facts in BUFFERS.items()
            for way in WAYS
            if not facts["attached"]
        )
    ),
)
def test_other_way(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("sync:pair", arguments, step="pair", calls=2)
