"""What does a START+END pair cost, through each way of calling?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

KIB, MIB = 1 << 10, 1 << 20
SIZES = {"4KiB": 4 * KIB, "64KiB": 64 * KIB, "1MiB": MIB, "4MiB": 4 * MIB, "16MiB": 16 * MIB, "64MiB": 64 * MIB}
APIS = ("fcntl", "DmaSyncer-fresh", "DmaSyncer-reused", "cpu_access", "group-of-4")
ACCESSES = ("READ", "WRITE", "READ_WRITE")
PROVIDERS = ("udmabuf", "system", "cma")


def _rows() -> list[Any]:
    rows = []
    for provider in PROVIDERS:
        for size in SIZES:
            for access in ACCESSES:
                for api in APIS:
                    if api != "fcntl" and size not in ("4KiB", "1MiB", "64MiB"):
                        continue
                    if api == "group-of-4" and size == "64MiB":
                        continue  # 256 MiB at once
                    quick = size == "1MiB" and (api == "fcntl" or access == "READ_WRITE")
                    marks = [] if quick else [pytest.mark.long]
                    rows.append(
                        pytest.param(provider, size, access, api, id=f"{provider}-{size}-{access}-{api}", marks=marks)
                    )
    return rows


@pytest.mark.parametrize(("provider", "size", "access", "api"), _rows())
def test_sync_pair(row: Callable[..., None], provider: str, size: str, access: str, api: str) -> None:
    arguments = {"api": api, "provider": provider, "size": SIZES[size], "access": access, "attached": False}
    row("sync:pair", arguments, api=api, step="pair", calls=2)
