"""What a test's markers ask of the fake that its fixture gives, and sentences for those that are wrong."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dmasync.fakes.arguments import nearest
from dmasync.fakes.backend import FakeBackend
from dmasync.fakes.kernel.files.descriptors import FIRST
from dmasync.fakes.layers.faults import Fault, Place, Verdict, never_ends, parse
from dmasync.fakes.sanitizer import KINDS

_NEEDS_DEADLINE = (
    "lets an END be tried for ever, which nothing ends, Ctrl-C neither: say times=, or "
    "dmasync_faults(..., deadline=SECONDS), after which the plan is over and the test fails"
)


class _Marker(Protocol):
    @property
    def args(self) -> tuple[Any, ...]: ...
    @property
    def kwargs(self) -> dict[str, Any]: ...


class Node(Protocol):
    """A test, as far as its markers go."""

    def iter_markers(self, name: str) -> Iterator[_Marker]: ...


@dataclass(frozen=True, repr=False)
class Limited(Fault):
    """*plan*, for *seconds* from its first verdict on."""

    plan: Fault
    seconds: float

    def __repr__(self) -> str:
        return repr(self.plan)

    @property
    def on(self) -> Place:
        return self.plan.on

    @property
    def buffer(self) -> int | None:
        return self.plan.buffer

    def verdicts(self) -> Iterator[Verdict]:
        return _Draws(self)


class _Draws:
    # A class, not a generator: an exception from a signal handler would finish a generator, and with it the plan.
    def __init__(self, limited: Limited) -> None:
        self._verdicts = limited.plan.verdicts()
        self._seconds = limited.seconds
        self._until: float | None = None
        self._first = True

    def __iter__(self) -> Iterator[Verdict]:
        return self

    def __next__(self) -> Verdict:
        if self._first:  # drawn when the plan was made: the time begins with the first refusal
            self._first = False
        elif self._until is None:
            self._until = time.monotonic() + self._seconds
        elif time.monotonic() >= self._until:
            raise StopIteration
        return next(self._verdicts)


@dataclass
class Asked:
    """What the markers of one test say."""

    options: dict[str, Any]
    plans: list[Fault]
    made: list[FakeBackend] = field(default_factory=list)

    def backend(self) -> FakeBackend:
        """A FakeBackend as they say; TypeError, ValueError."""
        try:
            made = FakeBackend(faults=self.plans, **self.options)
        except (TypeError, ValueError) as mistake:
            raise ValueError(f"dmasync_backend: {mistake}") from None
        made.check_plan = _check
        self.made.append(made)
        return made

    def ran_out(self) -> list[Fault]:
        """The plans whose deadline passed."""
        limited = [plan for plan in self.plans if isinstance(plan, Limited)]
        return [plan for made in self.made for plan in limited if plan not in made.injector.pending]

    def complaint(self) -> str:
        """About those."""
        names = ", ".join(map(repr, self.ran_out()))
        return f"the deadline of dmasync_faults passed while an END was still being refused by {names}"


def read(node: Node, coherent: bool, memory: dict[str, Any], seed: Callable[[], int]) -> Asked:
    """The markers of *node*; ValueError with the nearest right form for what they cannot say."""
    options: dict[str, Any] = {"coherent": coherent, "stacks": True}
    _only("dmasync_noncoherent", node, ["seed"])
    if not coherent:
        options["seed"] = memory.get("seed") if "seed" in memory else seed()
    for marker in _outermost_first(node, "dmasync_backend"):
        if marker.args:
            raise ValueError(f"dmasync_backend takes options by name, as profile=..., not {marker.args[0]!r}")
        options.update(marker.kwargs)
    _only("dmasync_faults", node, ["deadline"], positional=True)
    plans = [*_plans("dmasync_backend", options.pop("faults", ()), None)]
    for marker in _outermost_first(node, "dmasync_faults"):
        plans += _plans("dmasync_faults", marker.args, marker.kwargs.get("deadline"))
    for marker in node.iter_markers("dmasync_allow"):
        for kind in marker.args:
            if kind not in KINDS:
                near = nearest(str(kind), KINDS, f": there are {', '.join(KINDS)}")
                raise ValueError(f"dmasync_allow names {kind!r}, which is no finding{near}")
    return Asked(options, plans)


def _outermost_first(node: Node, name: str) -> list[_Marker]:
    return list(reversed(list(node.iter_markers(name))))


def _only(name: str, node: Node, known: Sequence[str], *, positional: bool = False) -> None:
    for marker in node.iter_markers(name):
        if marker.args and not positional:
            raise ValueError(f"{name} takes {known[0]}=..., not {marker.args[0]!r}")
        for word in marker.kwargs:
            if word not in known:
                raise ValueError(f"{name} has no {word!r}{nearest(word, known, f', it has {known[0]}')}")


def _plans(marker: str, given: Iterable[Any], deadline: Any) -> Iterator[Fault]:
    if deadline is not None and (
        isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or not deadline > 0
    ):
        raise ValueError(f"{marker}: deadline must be seconds, more than 0, not {deadline!r}")
    for one in given:
        plan = one
        if isinstance(one, str):
            try:
                plan = parse(one)
            except ValueError as mistake:
                raise ValueError(f"{marker}: {mistake}") from None
        if not isinstance(plan, Fault):
            raise ValueError(
                f'{marker} takes plans of dmasync.fakes.faults or their text, as "storm(EINTR, 3)", not {one!r}'
            )
        if never_ends(plan):
            if deadline is None:
                raise ValueError(f"{marker}: {plan!r} {_NEEDS_DEADLINE}")
            plan = Limited(plan, float(deadline))
        yield plan


def _check(plan: Fault) -> None:
    if isinstance(plan, Fault) and never_ends(plan):
        raise ValueError(f"{plan!r} {_NEEDS_DEADLINE}")


_REFUSALS = ("file descriptor", "filedescriptor", "fds_to_keep")


def explain_descriptors(error: BaseException, backends: list[Any]) -> None:
    """Add a note to *error*, if it may come of giving a number of the fake kernel to something else."""
    code = getattr(error, "errno", None)
    if code != errno.EBADF and not (isinstance(error, ValueError) and any(said in str(error) for said in _REFUSALS)):
        return
    numbers = sorted({call.new_fd for made in backends for call in made.journal.calls if call.new_fd is not None})
    if not numbers:
        return
    shown = ", ".join(map(str, numbers[:4])) + (", ..." if len(numbers) > 4 else "")
    note = (
        f"numbers from {FIRST} on ({shown}) are descriptors of the fake kernel, not of this process: "
        "socket.send_fds, asyncio's add_reader, select, os.fstat, mmap and subprocess cannot use them. "
        "backend.poll(fd, events, timeout_ms) waits for one, backend.dup(fd) and backend.mmap(...) do the rest, "
        "DmaSyncer(fd, backend=backend) and DmaBuf.from_fd(fd, backend=backend) take one; "
        "dmasync run (the fixture dmasync_run) gives a program descriptors that are its own"
    )
    with contextlib.suppress(AttributeError):  # CPython 3.10 has no notes
        error.add_note(note)  # type: ignore[attr-defined, unused-ignore]
