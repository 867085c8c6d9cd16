"""What does a pair cost when several threads make one each?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from grid import MIB, rows


@pytest.mark.parametrize(
    "threads", rows(*((f"udmabuf-1MiB-READ_WRITE-{n}_threads", n == 4, (n,)) for n in (1, 2, 3, 4)))
)
def test_pair_in_threads(row: Callable[..., None], threads: int) -> None:
    arguments = {"provider": "udmabuf", "size": MIB, "access": "READ_WRITE", "threads": threads}
    row("threads:pairs", arguments, api="DmaSyncer-reused", step=f"pair-in-{threads}-threads", resolution=2)
