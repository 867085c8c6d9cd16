"""FakeBackend: the three layers in one, ready to be passed as ``backend=``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fakes.faults import Fault
from fakes.injector import FaultInjector
from fakes.kernel import FakeKernel
from fakes.recorder import Recorder


class FakeBackend(Recorder):
    """``Recorder(FaultInjector(FakeKernel()))``.

    *providers* are the nodes that exist (default: all), *faults* the plans that are in force from the start,
    *profile* the kernel release that is imitated.
    """

    def __init__(
        self,
        *,
        providers: Iterable[Any] | None = None,
        faults: Iterable[Fault] = (),
        coherent: bool = True,
        profile: str = "6.12",
        stacks: bool = False,
    ) -> None:
        options: dict[str, Any] = {"profile": profile}
        if providers is not None:
            options["providers"] = providers
        self.kernel = FakeKernel(**options)
        self.injector = FaultInjector(self.kernel, faults)
        super().__init__(self.injector, stacks=stacks)

    def inject(self, *faults: Fault) -> None:
        """Add fault plans after those in force."""
        self.injector.inject(*faults)
