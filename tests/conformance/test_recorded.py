"""Random programs whose answers were recorded on a real kernel: the fake still answers the same, on any host."""

from __future__ import annotations

import mmap
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.search_record import FOLDER, first_difference

RECORDINGS = sorted(FOLDER.glob("*.jsonl.xz"))
RECORDED_PAGE = 4096


@pytest.fixture
def ticks() -> Iterator[None]:
    """START under a pending fence is interrupted by a timer, as it was when the answers were recorded."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("ticks")
@pytest.mark.skipif(mmap.PAGESIZE != RECORDED_PAGE, reason=f"recorded with pages of {RECORDED_PAGE} bytes")
@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.name)
def test_the_fake_answers_as_the_recorded_kernel_did(file: Path) -> None:
    steps, difference = first_difference(file)
    assert difference is None, str(difference)
    assert steps > 1000


def test_there_is_a_recording() -> None:
    assert RECORDINGS
