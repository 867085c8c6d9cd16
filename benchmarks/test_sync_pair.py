"""What does a START+END pair cost, through each way of calling?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from grid import ACCESSES, BUFFERS, SIZES, rows

APIS = ("fcntl", "DmaSyncer-fresh", "DmaSyncer-reused", "cpu_access", "group-of-4")
API_SIZES = ("4KiB", "1MiB", "64MiB")


def _cells() -> Iterator[tuple[str, bool, tuple[Any, ...]]]:
    for buffer, facts in BUFFERS.items():
        for size, length in SIZES.items():
            for access in ACCESSES:
                for api in APIS:
                    if api != "fcntl" and (size not in API_SIZES or facts["attached"]):
                        continue  # what the library adds does not depend on the buffer
                    if size == "64MiB" and api != "fcntl" and (buffer != "udmabuf" or access != "READ_WRITE"):
                        continue  # under emulation it takes seconds to make such a buffer
                    if size == "64MiB" and api == "group-of-4":
                        continue  # 256 MiB at once
                    quick = size == "1MiB" and (api == "fcntl" or (buffer == "udmabuf" and access == "READ_WRITE"))
                    arguments = {"api": api, "size": length, "access": access, **facts}
                    yield f"{buffer}-{size}-{access}-{api}", quick, (arguments,)


@pytest.mark.parametrize("arguments", rows(*_cells()))
def test_sync_pair(row: Callable[..., None], arguments: dict[str, Any]) -> None:
    row("sync:pair", arguments, step="pair", calls=2)
