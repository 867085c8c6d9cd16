"""What does a pair cost that is recorded, on the fake? Hold it against two null ioctls (test_floor.py)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

PLACES = {"first": 0, "behind-a-million": 1_000_000}


@pytest.mark.parametrize("place", PLACES)
def test_recorded_pair(row: Callable[..., None], place: str) -> None:
    # No system call in it: the kernel is the fake one, on every rung. A journal grows where its memory happens to lie.
    row(
        "recording:recorded_pair",
        {"before": PLACES[place]},
        api="FakeBackend",
        step=f"recorded-pair-{place}",
        calls=0,
        resolution=3,
    )
