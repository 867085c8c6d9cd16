"""What does a storm of interrupted STARTs cost?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from grid import MIB, rows

STORMS = (0, 1, 10, 100)


@pytest.mark.parametrize("times", rows(*((f"udmabuf-1MiB-READ_WRITE-{n}_EINTR", n == 10, (n,)) for n in STORMS)))
def test_interrupted_pair(row: Callable[..., None], times: int) -> None:
    arguments = {"provider": "udmabuf", "size": MIB, "access": "READ_WRITE", "times": times}
    # Those that are interrupted never reach the kernel: the injector answers them.
    row(
        "retries:interrupted_pair",
        arguments,
        api="DmaSyncer-reused",
        step=f"pair-after-{times}-EINTR",
        calls=2,
        resolution=3,
    )
