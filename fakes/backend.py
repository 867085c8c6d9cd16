"""FakeBackend: the three layers in one, ready to be passed as ``backend=``."""

from __future__ import annotations

import inspect
import itertools
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dmasync.fakes.arguments import listed, nearest
from dmasync.fakes.journal import Event
from dmasync.fakes.kernel import FakeKernel
from dmasync.fakes.kernel.profile import DEFAULT_PROFILE
from dmasync.fakes.layers.faults import Fault
from dmasync.fakes.layers.injector import FaultInjector
from dmasync.fakes.layers.recorder import Recorder
from dmasync.fakes.memory.adversary import Adversary
from dmasync.fakes.memory.coherent import BufferMemory
from dmasync.fakes.memory.pages import Run

_KERNEL_OPTIONS = frozenset(inspect.signature(FakeKernel).parameters) - {"providers", "coherent", "profile"}


_OPTIONS = sorted(_KERNEL_OPTIONS | {"providers", "faults", "coherent", "profile", "seed", "watch", "stacks"})


class FakeBackend(Recorder):
    """``Recorder(FaultInjector(FakeKernel()))``.

    Its descriptors are numbers from 2**30 on which nobody else knows: ``select``, ``asyncio`` and ``socket.send_fds``
    answer EBADF for them. :meth:`poll` and :meth:`dup` do that work here; ``dmasync run`` gives a program real ones.

    *providers* are the nodes that exist (default: all), *faults* the plans that are in force from the start, *profile*
    the kernel release that is imitated; other *kernel_options* go to FakeKernel.

    With *coherent* False, CPU and devices see each buffer through views of their own (``memory/noncoherent.py``),
    and *seed* feeds the adversary that moves cache lines where a real cache may; None keeps it still. With *watch* the
    memory tells the journal which bytes were touched where they should not be, and *stacks* are taken for each call, as
    a Sanitizer wants it; both are on where the memory is not coherent, and else off, as they cost time.
    """

    check_plan: Callable[[Fault], object] | None = None
    """Asked about each plan that is injected later on; it raises what it has against one."""

    _kernel_class: type[FakeKernel] = FakeKernel

    def __init__(
        self,
        *,
        providers: Iterable[Any] | None = None,
        faults: Iterable[Fault] = (),
        coherent: bool = True,
        profile: str = DEFAULT_PROFILE,
        seed: int | None = 0,
        watch: bool | None = None,
        stacks: bool | None = None,
        **kernel_options: Any,
    ) -> None:
        unknown = sorted(set(kernel_options) - _KERNEL_OPTIONS)
        if unknown:
            others = f": those of the kernel are {', '.join(sorted(_KERNEL_OPTIONS))}"
            raise TypeError(f"FakeBackend has no option {unknown[0]!r}{nearest(unknown[0], _OPTIONS, others)}")
        plans = listed(faults, "faults", "plans of dmasync.fakes.faults")
        if providers is not None:
            providers = listed(providers, "providers", "paths or Provider objects")
        self.seed = seed
        self._watch = not coherent if watch is None else watch
        self._memories: weakref.WeakSet[Any] = weakref.WeakSet()
        self._numbers = itertools.count(1)
        if self._watch or not coherent:
            kernel_options["memory"] = self._make_memory
        self.kernel = self._kernel_class(providers=providers, coherent=coherent, profile=profile, **kernel_options)
        self.kernel.on_spoiled = self._spoiled
        self.injector = FaultInjector(self.kernel, plans)
        super().__init__(self.injector, stacks=self._watch if stacks is None else stacks)

    def inject(self, *faults: Fault) -> None:
        """Add fault plans after those in force."""
        if self.check_plan is not None:
            for plan in faults:
                self.check_plan(plan)
        self.injector.inject(*faults)

    def settle(self) -> None:
        """Have every watched buffer tell the journal what has been touched and not been told yet."""
        for memory in list(self._memories):
            memory.settle()

    def observe(self, kind: str, buffer: int, ranges: Sequence[tuple[int, int]], note: str) -> None:
        """Write an event down: called by watched memories and by devices."""
        now = time.monotonic_ns()
        journal = self.journal
        stack = self._take_stack() if self._stacks else 0
        journal.events.append(Event(kind, buffer, tuple(ranges), now, self._thread(), len(journal), stack, note, now))

    def _spoiled(self, buffer: int) -> None:
        self.observe("memory-spoiled", buffer, (), "")

    def _make_memory(self, runs: Sequence[Run]) -> BufferMemory:
        observer = self.observe if self._watch else None
        if self.kernel.coherent:
            from dmasync.fakes.memory.watched import WatchedMemory

            memory: BufferMemory = WatchedMemory(runs, observer)
        else:
            from dmasync.fakes.memory.noncoherent import NoncoherentMemory

            memory = NoncoherentMemory(runs, observer, Adversary(self.seed, next(self._numbers)))
        self._memories.add(memory)
        return memory
