"""The program that times single calls, on the fake."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from dmasync import uapi
from dmasync.fakes import FakeBackend

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "single_calls.py"


@pytest.fixture
def program() -> Any:
    spec = importlib.util.spec_from_file_location("single_calls", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def backend(program: Any, monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """A fake whose ioctl the program calls, too: a plain program has it from fcntl."""
    backend = FakeBackend()
    monkeypatch.setattr(program, "fcntl", backend)
    return backend


def test_every_step_and_access_has_a_figure_for_every_size(
    program: Any, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    program.main(backend)
    head, sizes, *rows, clock = capsys.readouterr().out.splitlines()
    assert "one call" in head
    assert sizes.split("  ")[-1].strip() == "4 MiB"
    steps = [re.fullmatch(r"(first START|START|END) (READ|WRITE|READ_WRITE)(?: +[\d,]+){3}", row) for row in rows]
    assert all(steps)
    assert len(steps) == 9
    assert re.fullmatch(r"two readings of the clock: [\d,]+", clock)
    assert backend.kernel.open_fds() == {}


def test_only_steady_calls_are_counted_as_such(
    program: Any, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each START has its END, on the same buffer, with the same access."""
    program.main(backend)
    backend.journal.assert_balanced()
    flags = {transition.flags for transition in backend.journal.transitions()}
    ends = {flag for flag in flags if flag & uapi.DMA_BUF_SYNC_END}
    assert {flag | uapi.DMA_BUF_SYNC_END for flag in flags - ends} == ends == {5, 6, 7}
