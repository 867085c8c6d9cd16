"""The fake kernel and the layers that compose over it or over a real one, for tests of dma-buf code.

Names are imported when they are first asked for: the pytest plugin lives in this package and must cost
nothing in a test run that uses none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmasync import Step as Step
    from fakes import faults as faults
    from fakes.backend import FakeBackend as FakeBackend
    from fakes.device import FakeDevice as FakeDevice
    from fakes.faults import Fault as Fault
    from fakes.injector import FaultInjector as FaultInjector
    from fakes.journal import Journal as Journal
    from fakes.journal import Transition as Transition
    from fakes.kernel import FakeFence as FakeFence
    from fakes.kernel import FakeKernel as FakeKernel
    from fakes.noncoherent import NoncoherentMemory as NoncoherentMemory
    from fakes.recorder import Recorder as Recorder
    from fakes.sanitizer import Finding as Finding
    from fakes.sanitizer import Sanitizer as Sanitizer

_HOMES = {
    "FakeBackend": "fakes.backend",
    "FakeDevice": "fakes.device",
    "FakeFence": "fakes.kernel",
    "FakeKernel": "fakes.kernel",
    "Fault": "fakes.faults",
    "FaultInjector": "fakes.injector",
    "Finding": "fakes.sanitizer",
    "Journal": "fakes.journal",
    "NoncoherentMemory": "fakes.noncoherent",
    "Recorder": "fakes.recorder",
    "Sanitizer": "fakes.sanitizer",
    "Step": "dmasync",
    "Transition": "fakes.journal",
}

__all__ = [*sorted(_HOMES), "faults"]


def __getattr__(name: str) -> Any:
    if name == "faults":
        return importlib.import_module("fakes.faults")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fakes' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
