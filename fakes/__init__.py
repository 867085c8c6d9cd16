"""The fake kernel and the layers that compose over it or over a real one, for tests of dma-buf code.

Names are imported when they are first asked for: the pytest plugin lives in this package and must cost
nothing in a test run that uses none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmasync import Step as Step
    from dmasync.fakes import faults as faults
    from dmasync.fakes.backend import FakeBackend as FakeBackend
    from dmasync.fakes.device import FakeDevice as FakeDevice
    from dmasync.fakes.faults import Fault as Fault
    from dmasync.fakes.injector import FaultInjector as FaultInjector
    from dmasync.fakes.journal import Journal as Journal
    from dmasync.fakes.journal import Transition as Transition
    from dmasync.fakes.kernel import FakeFence as FakeFence
    from dmasync.fakes.kernel import FakeKernel as FakeKernel
    from dmasync.fakes.noncoherent import NoncoherentMemory as NoncoherentMemory
    from dmasync.fakes.recorder import Recorder as Recorder
    from dmasync.fakes.sanitizer import Finding as Finding
    from dmasync.fakes.sanitizer import Sanitizer as Sanitizer

_HOMES = {
    "FakeBackend": "dmasync.fakes.backend",
    "FakeDevice": "dmasync.fakes.device",
    "FakeFence": "dmasync.fakes.kernel",
    "FakeKernel": "dmasync.fakes.kernel",
    "Fault": "dmasync.fakes.faults",
    "FaultInjector": "dmasync.fakes.injector",
    "Finding": "dmasync.fakes.sanitizer",
    "Journal": "dmasync.fakes.journal",
    "NoncoherentMemory": "dmasync.fakes.noncoherent",
    "Recorder": "dmasync.fakes.recorder",
    "Sanitizer": "dmasync.fakes.sanitizer",
    "Step": "dmasync",
    "Transition": "dmasync.fakes.journal",
}

__all__ = [*sorted(_HOMES), "faults"]


def __getattr__(name: str) -> Any:
    if name == "faults":
        return importlib.import_module("dmasync.fakes.faults")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dmasync.fakes' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
