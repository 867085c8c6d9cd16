"""Runs an operation again and again, each time with an exception at another place, or at two."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType

from tests.support.points.world import World

_SIGNAL = signal.SIGUSR2
_MOST_LOOKS = 5000
_WARM = 20
"""Uninterrupted runs before the first that counts: what the interpreter specializes is specialized by then."""


class Tick(BaseException):
    """What the signal handler raises."""


Step = Callable[[], object]


@dataclass(frozen=True)
class Operation:
    """*prepare* makes what the step needs, outside of what is interrupted. *expects*: what the step raises by itself.

    *block*: when the step has been left, however, its windows are shut, with nothing dropped.
    """

    name: str
    prepare: Callable[[World], Step]
    expects: type[BaseException] | None = None
    block: bool = False
    world: type[World] = World


@dataclass
class Report:
    """How often an operation was interrupted, and what came of it. Also the row of a table."""

    name: str
    looks: int = 0
    singles: int = 0
    pairs: int = 0
    late: Counter[int] = field(default_factory=Counter)
    """How many runs left a block with its window open until it was dropped, by the number of exceptions."""
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def count(self, kind: str) -> int:
        return sum(times for problem, times in self.problems.items() if problem.startswith(kind))

    def __str__(self) -> str:
        lost, doubled = self.count("lost"), self.count("doubled")
        other = self.problems.total() - lost - doubled
        line = (
            f"{self.name:<58} {self.looks:4} places {self.singles:4} singles {self.pairs:5} pairs"
            f" {lost:3} lost {doubled:3} doubled {other:3} other {self.late.total():4} late"
        )
        worst = [f"    {times} x {problem}\n      {self.examples[problem]}" for problem, times in self.problems.items()]
        return "\n".join([line, *worst[:8]])


@contextlib.contextmanager
def explorer(points: ModuleType, *, direct: bool = False) -> Iterator[Explorer]:
    """The one explorer of this process: it has the signal, the collector and the hook for what finalizers raise."""
    hook, handler = sys.unraisablehook, signal.signal(_SIGNAL, points.look)
    collecting = gc.isenabled()
    explorer = Explorer(points, direct=direct)
    # A method in C: nothing can interrupt it.
    sys.unraisablehook = explorer.unraisable.append
    gc.collect()
    gc.freeze()  # it collects after each exception, and need not look through what is here already
    gc.disable()
    try:
        with warnings.catch_warnings():
            # What is dropped half-made says so; here it is dropped on purpose.
            warnings.simplefilter("ignore", ResourceWarning)
            yield explorer
    finally:
        if collecting:
            gc.enable()
        sys.unraisablehook = hook
        signal.signal(_SIGNAL, handler if callable(handler) else signal.SIG_IGN)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the library logs goes nowhere: whoever kept a record would keep the windows of its exception."""
    logger = logging.getLogger("dmasync")
    propagate, handlers = logger.propagate, logger.handlers
    logger.propagate, logger.handlers = False, [logging.NullHandler()]
    try:
        yield
    finally:
        logger.propagate, logger.handlers = propagate, handlers


class Explorer:
    """See :func:`explorer`."""

    def __init__(self, points: ModuleType, *, direct: bool) -> None:
        self._points = points
        self._direct = direct
        self.unraisable: list[sys.UnraisableHookArgs] = []

    def explore(self, operation: Operation, *, span: int = 0, raises: type[BaseException] = Tick) -> Report:
        """An exception at every place; then, with *span*, a second at each of the *span* places behind the first."""
        with _quiet():
            return self._explore(operation, span, raises)

    def _explore(self, operation: Operation, span: int, raises: type[BaseException]) -> Report:
        report = Report(operation.name)
        for _ in range(_WARM):
            report.looks, _ = self._run(operation, (), raises, report)
        assert report.looks, f"{operation.name}: the interpreter looked for signals nowhere"
        for first in range(1, _MOST_LOOKS):
            _, raised = self._run(operation, (first,), raises, report)
            if not raised:
                return report
            report.singles += 1
            for second in range(first + 1, first + 1 + span):
                _, raised = self._run(operation, (first, second), raises, report)
                if raised < 2:
                    break
                report.pairs += 1
        raise AssertionError(f"{operation.name}: interrupted at {_MOST_LOOKS} places and no end")

    def _run(
        self, operation: Operation, places: tuple[int, ...], raises: type[BaseException], report: Report
    ) -> tuple[int, int]:
        world = operation.world(self._points, direct=self._direct)
        step: Step | None = operation.prepare(world)
        looks, where, error = self._points.run(_SIGNAL, step, raises, places)
        raised = len(where)
        problems = world.untruths()
        if operation.block and world.left_open() and raised == len(places):
            report.late[raised] += 1
        # The frames that the exception holds have the windows.
        answer, error, step = _kind(error, operation.expects, raises), None, None
        _collect()
        ignored = [_kind(one.exc_value, None, raises) for one in self.unraisable]
        self.unraisable.clear()
        _collect()
        problems += _judged(answer, ignored, raised, operation.expects)
        problems += world.tidy()
        problems += world.problems()
        for problem in problems:
            kind = problem if problem.startswith("raised") else problem.translate(_NO_DIGITS)
            report.problems[kind] += 1
            report.examples.setdefault(kind, f"{places}: {' and '.join(where) or 'not interrupted'}: {problem}")
        return looks, raised


def _collect() -> None:
    # A finalizer may have revived what it finalized.
    for _ in range(3):
        if not gc.collect():
            return


_NO_DIGITS = str.maketrans("", "", "0123456789")


def _kind(error: BaseException | None, expects: type[BaseException] | None, raises: type[BaseException]) -> str:
    """Nothing, "interrupted", "expected", "both" for an expected one with an interruption as context, or the error."""
    if error is None:
        return ""
    if isinstance(error, raises):
        return "interrupted"
    if expects is not None and isinstance(error, expects):
        context = error.__context__
        while context is not None:
            if isinstance(context, raises):
                return "both"
            context = context.__context__
        return "expected"
    return f"{type(error).__name__}: {error}"


def _judged(answer: str, ignored: list[str], raised: int, expects: type[BaseException] | None) -> list[str]:
    strange = [f"raised in a finalizer {one}" for one in ignored if one != "interrupted"]
    if answer not in ("", "interrupted", "expected", "both"):
        return [*strange, f"raised {answer}"]
    if not raised:
        wanted = "expected" if expects else ""
        return (
            [*strange, f"raised {answer or 'nothing'}, wanted {wanted or 'nothing'}"] if answer != wanted else strange
        )
    if answer in ("", "expected") and not ignored:
        return [*strange, "swallowed the interruption"]
    return strange
