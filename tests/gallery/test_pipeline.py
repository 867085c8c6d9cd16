"""The pipeline example is right on a machine without coherent caches, and wrong without any one START or END."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dmasync import Step, SyncType, uapi
from dmasync.fakes import Finding, Sanitizer

pytest.importorskip("numpy", reason="the pipeline debayers with numpy")

FRAMES = int(os.environ.get("DMASYNC_PIPELINE_FRAMES", "24"))
"""The full run has 1000."""

EDGES = [
    (step, access, nth)
    for step in (Step.START, Step.END)
    for access in (SyncType.READ, SyncType.WRITE)
    for nth in (1, 3, 6, 9)
]


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "examples" / "pipeline.py"
    spec = importlib.util.spec_from_file_location("pipeline_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Omitting:
    """A layer that swallows one edge: the program that forgot it."""

    def __init__(self, inner: Any, step: Step, access: SyncType, nth: int) -> None:
        self.inner = inner
        self.left = nth
        self._flags = uapi.dma_buf_sync.pack(step.value | access.value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def ioctl(self, fd: int, request: int, arg: Any = 0) -> Any:
        if request == uapi.DMA_BUF_IOCTL_SYNC and arg == self._flags:
            self.left -= 1
            if not self.left:
                return 0
        return self.inner.ioctl(fd, request, arg)


def outcome(pipeline: ModuleType, backend: Any, machine: Any, frames: int) -> tuple[bool, list[Finding]]:
    """Whether a picture was wrong, and what was found."""
    run = pipeline.Pipeline(backend, jitter=0.0005)
    wrong = False
    try:
        run.run(frames)
    except pipeline.WrongPictureError:
        wrong = True
    finally:
        run.close()
    return wrong, Sanitizer(machine).findings()


def test_every_frame_is_right_under_storms_and_random_device_timing(pipeline: ModuleType) -> None:
    machine = pipeline.machine(seed=5)
    assert outcome(pipeline, machine, machine, FRAMES) == (False, [])
    journal = machine.journal
    assert len(journal.transitions()) == 4 * FRAMES
    assert len(journal.attempts) > len(journal.transitions())


@pytest.mark.parametrize(("step", "access", "nth"), EDGES, ids=lambda value: getattr(value, "name", value))
def test_without_any_one_edge_the_pipeline_fails(pipeline: ModuleType, step: Step, access: SyncType, nth: int) -> None:
    machine = pipeline.machine(seed=0)
    omitting = Omitting(machine, step, access, nth)
    wrong, findings = outcome(pipeline, omitting, machine, 10)
    assert omitting.left <= 0
    assert wrong or findings
