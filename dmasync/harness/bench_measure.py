"""Time one operation in plain loops: blocks of so many operations a round, less what the loop itself costs.

Everything here runs in the process that is measured, so it imports next to nothing.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


def _nothing(count: int) -> None:
    pass


class Operation(NamedTuple):
    """What a row times. ``run(n)`` does it n times in a plain loop; with n = 0 it does all but the operation.

    ``prepare(n)`` goes before each block of n and ``clean()`` after it, neither of them timed. ``most`` limits a
    block, for operations that use something up. ``facts`` are added to the row's (the number of system calls where
    only the operation knows it).
    """

    run: Callable[[int], object]
    prepare: Callable[[int], object] = _nothing
    clean: Callable[[], object] = lambda: None
    most: int = 1 << 20
    facts: dict[str, Any] = {}  # noqa: RUF012 - never changed


@dataclass(frozen=True)
class Plan:
    """How often to measure; block times in nanoseconds, which on the exact clock are instructions.

    A block takes about ``block_ns`` and at most ``most_operations`` operations. Rounds go on until ``rounds`` are
    there, or from ``least_rounds`` on until ``budget_ns`` is spent. ``exact`` counts instructions: whole numbers, and
    rounds that would take a good part of a timer tick begin just after one.
    """

    exact: bool
    rounds: int
    least_rounds: int
    warmup_operations: int
    block_ns: int
    most_operations: int
    budget_ns: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


EXACT = Plan(
    exact=True,
    rounds=31,
    least_rounds=9,
    warmup_operations=192,
    block_ns=300_000,
    most_operations=32,
    budget_ns=60_000_000,
)
WALL = Plan(
    exact=False,
    rounds=200,
    least_rounds=20,
    warmup_operations=300,
    block_ns=200_000,
    most_operations=4096,
    budget_ns=300_000_000,
)


@dataclass(frozen=True)
class Measured:
    """The rounds of one row: nanoseconds (instructions) per operation, ``operations`` of them in each block.

    ``floor`` is what a block of no operations took, already subtracted: the clock, the call, the loop's set-up.
    """

    rounds: list[float]
    operations: int
    floor: float
    facts: dict[str, Any] = field(default_factory=dict)


def measure(operation: Operation, plan: Plan, warm: Operation | None = None) -> Measured:
    """Time *operation* as *plan* says, in this process, with the garbage collector off.

    *warm* is a cheap operation that runs the same code: it takes most of the warm-up where *operation* is dear.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    _warm_up(warm or operation, plan)
    pilot = min(_block(operation, 1)[0] for _ in range(3))
    operations = _operations(pilot, plan, operation)
    _warm_up(operation, plan, operations, budget_ns=plan.budget_ns // 8)
    floors = sorted(_block(operation, 0)[0] for _ in range(max(plan.least_rounds, 21)))
    floor = floors[len(floors) // 2]
    aligned = plan.exact and pilot * operations > plan.block_ns // 2
    rounds: list[float] = []
    spent = 0
    while len(rounds) < plan.rounds and (len(rounds) < plan.least_rounds or spent < plan.budget_ns):
        took, count = _block(operation, operations, aligned)
        spent += took
        net = max(0.0, (took - floor) / count)
        rounds.append(float(round(net)) if plan.exact else net)
    return Measured(rounds, operations, float(floor), dict(operation.facts))


def _operations(pilot: int, plan: Plan, operation: Operation) -> int:
    """A power of two, so that a small difference between two machines seldom changes it."""
    most = max(1, min(plan.most_operations, operation.most))
    operations = 1
    while operations * 2 <= most and operations * 2 * pilot <= plan.block_ns:
        operations *= 2
    return operations


def _warm_up(operation: Operation, plan: Plan, operations: int = 8, budget_ns: int | None = None) -> None:
    # CPython specialises the code it runs, step by step; what is counted must be its final form.
    done = spent = 0
    budget_ns = plan.budget_ns if budget_ns is None else budget_ns
    operations = min(operations, operation.most)
    while done < plan.warmup_operations and (spent < budget_ns or done < 3 * operations):
        spent += _block(operation, operations)[0]
        done += operations


def _block(operation: Operation, count: int, aligned: bool = False) -> tuple[int, int]:
    clock = time.perf_counter_ns
    operation.prepare(count)
    if aligned:
        _await_tick()
    run = operation.run
    began = clock()
    run(count)
    took = clock() - began
    operation.clean()
    return took, count


_CLOCK_MONOTONIC_COARSE = 6
"""linux/time.h; the time module has no name for it."""


def _await_tick() -> None:
    """Return just after the kernel's timer tick: the coarse clock moves with it."""
    read, coarse = time.clock_gettime_ns, _CLOCK_MONOTONIC_COARSE
    now = read(coarse)
    while read(coarse) == now:
        pass
