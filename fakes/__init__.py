"""The fake kernel and the layers that compose over it or over a real one, for tests of dma-buf code.

===================== ========================================================================
``kernel/``           answers as Linux does
``memory/``           what lies behind the kernel's buffers: coherent, watched or non-coherent bytes
``layers/``           inject faults, record calls
``journal/``          what was recorded, which END ended which START, and the formats
``sanitizer/``        says what in a journal is wrong
``backend.py``        FakeBackend: kernel, injector and recorder in one
``device.py``         a device that does DMA
``device_tree.py``    device nodes on pyfakefs
``foreign/``          what programs outside this process need, to be its callers
``pytest_plugin.py``  fixtures
``markers.py``        what a test's markers ask of them
``run_fixture.py``    one of them: runs a program in any language
``recording.py``      runs a program and records it
``replay.py``         plays a trace to the fake kernel
``arguments.py``      what arguments are refused with
``ioctls.py``         the kernel's names of ioctls
``uninterrupted.py``  keeps a success from being turned into an exception by a signal handler
===================== ========================================================================

The library never imports this package; this package imports the library, never the harness.

Names are imported when they are first asked for: the pytest plugin lives in this package and must cost
nothing in a test run that uses none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmasync import Step as Step
    from dmasync.fakes.backend import FakeBackend as FakeBackend
    from dmasync.fakes.device import FakeDevice as FakeDevice
    from dmasync.fakes.journal import Journal as Journal
    from dmasync.fakes.journal import Transition as Transition
    from dmasync.fakes.kernel import FakeFence as FakeFence
    from dmasync.fakes.kernel import FakeKernel as FakeKernel
    from dmasync.fakes.layers import faults as faults
    from dmasync.fakes.layers.faults import Fault as Fault
    from dmasync.fakes.layers.injector import FaultInjector as FaultInjector
    from dmasync.fakes.layers.recorder import Recorder as Recorder
    from dmasync.fakes.memory.noncoherent import NoncoherentMemory as NoncoherentMemory
    from dmasync.fakes.sanitizer import Finding as Finding
    from dmasync.fakes.sanitizer import Sanitizer as Sanitizer

_HOMES = {
    "FakeBackend": "dmasync.fakes.backend",
    "FakeDevice": "dmasync.fakes.device",
    "FakeFence": "dmasync.fakes.kernel",
    "FakeKernel": "dmasync.fakes.kernel",
    "Fault": "dmasync.fakes.layers.faults",
    "FaultInjector": "dmasync.fakes.layers.injector",
    "Finding": "dmasync.fakes.sanitizer",
    "Journal": "dmasync.fakes.journal",
    "NoncoherentMemory": "dmasync.fakes.memory.noncoherent",
    "Recorder": "dmasync.fakes.layers.recorder",
    "Sanitizer": "dmasync.fakes.sanitizer",
    "Step": "dmasync",
    "Transition": "dmasync.fakes.journal",
}

__all__ = [*sorted(_HOMES), "faults"]


def __getattr__(name: str) -> Any:
    if name == "faults":
        return importlib.import_module("dmasync.fakes.layers.faults")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dmasync.fakes' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
