"""What does a START+END pair cost, through each way of calling?"""

from __future__ import annotations

from collections.abc import Callable


def test_sync_pair(row: Callable[[], None]) -> None:
    row()
