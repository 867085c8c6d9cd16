"""Random programs whose answers were recorded on a real kernel: the kernel under test still answers the same."""

from __future__ import annotations

import mmap
import platform
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.search_record import FOLDER, first_difference
from tests.conformance.search_world import RealMachine, RealWorld

RECORDINGS = sorted(FOLDER.glob("*.jsonl.xz"))
RECORDED_MACHINE, RECORDED_PAGE = "x86_64", 4096
PROGRAMS_FOR_AN_EMULATOR = 16
"""Of 400 steps each: what an emulated processor gets through in some ten seconds. The search asks it the rest."""


@pytest.fixture
def ticks() -> Iterator[None]:
    """START under a pending fence is interrupted by a timer, as it was when the answers were recorded."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[RealMachine | None]:
    """The real kernel, None for the fake."""
    if request.config.getoption("--dmasync-backend", default="fake") == "fake":
        yield None
        return
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    real = RealMachine()
    yield real
    real.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("ticks")
@pytest.mark.skipif(
    (platform.machine(), mmap.PAGESIZE) != (RECORDED_MACHINE, RECORDED_PAGE),
    reason=f"recorded on {RECORDED_MACHINE}, with pages of {RECORDED_PAGE} bytes",
)
@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.name)
@pytest.mark.parametrize("most", [100, pytest.param(None, marks=pytest.mark.nightly, id="all")])
def test_the_kernel_answers_as_the_recorded_one_did(file: Path, most: int | None, machine: RealMachine | None) -> None:
    if machine is None:
        steps, difference = first_difference(file, most=most)
    else:
        steps, difference = first_difference(file, lambda: RealWorld(machine), PROGRAMS_FOR_AN_EMULATOR)
    assert difference is None, str(difference)
    assert steps > 1000


def test_there_is_a_recording() -> None:
    assert RECORDINGS
