"""What does a pair cost when several threads make one each?"""

from __future__ import annotations

from collections.abc import Callable


def test_pair_in_threads(row: Callable[[], None]) -> None:
    row()
