"""Time one operation in plain loops: blocks of so many operations a round, less what the loop itself costs.

Everything here runs in the process that is measured, so it imports next to nothing.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from types import FunctionType
from typing import Any, NamedTuple

LEAST_FOR_SLOPE = 8
SPECIALISING_CALLS = 192
LONGEST_PERIOD = 100
PERIOD_LOOKS = 4
UNLIKE_NS = 3
"""Two figures that are nearer to each other are the same: a clock that is a millionth off rounds both."""
PERIOD_SAMPLE = 250
"""Operations among which a period is looked for: their numbers are small integers, which CPython keeps ready."""
MOST_UNUSUAL = 10
"""Of those: a timer tick or a new attempt to specialise falls into one now and then."""
MOST_UNLIKE = 0.03
"""The part of those that may differ from the one a period later. Two long stretches are alike at many distances: at a
distance of 2, one in ten of CPython's turns of 84 differs.
"""
MOST_FOR_PERIOD_NS = 100_000
BETWEEN_TICKS_NS = 1_600_000
"""Of shorter blocks most fall between two ticks of the kernel's timer (4 ms apart, or 10); the others are left out."""
LONGEST_FOR_SLOPE_NS = 3_500_000
"""A longer block holds a tick wherever it begins."""
CLOCK_READINGS = 15
LEAST_ROOM = 256
LOOP_STEPS = 64
"""Twice as many are still small integers, which CPython keeps ready."""


def _nothing(count: int) -> None:
    pass


class Operation(NamedTuple):
    """What a row times. ``run(n)`` does it n times in a plain loop; with n = 0 it does all but the operation.

    ``prepare(n)`` goes before each block of n and ``clean()`` after it, neither of them timed. A block has ``least``
    operations at least, and never more than ``most``, for operations that use something up. ``facts`` are added to the
    row's (the number of system calls where only the operation knows it).
    """

    run: Callable[[int], object]
    prepare: Callable[[int], object] = _nothing
    clean: Callable[[], object] = lambda: None
    least: int = 1
    most: int = 1 << 20
    facts: dict[str, Any] = {}  # noqa: RUF012 - never changed
    counts_loop: bool = False
    """Whether the loop's own step is part of the operation; else it is taken off."""


@dataclass(frozen=True)
class Plan:
    """How often to measure; block times in nanoseconds, which on the exact clock are instructions.

    A block takes at most ``block_ns`` and ``most_operations`` operations (one operation at least), and with what goes
    around it at most ``whole_block_ns``. There are ``rounds`` of them, fewer where they would take more than
    ``budget_ns``, but at least ``least_rounds``; ``floor_rounds`` go into each figure that is taken off. ``exact``
    counts instructions: whole numbers, and no timer tick within a block where one can be avoided.
    """

    exact: bool
    rounds: int
    least_rounds: int
    warmup_operations: int
    block_ns: int
    whole_block_ns: int
    most_operations: int
    budget_ns: int
    floor_rounds: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


EXACT = Plan(
    exact=True,
    rounds=21,
    least_rounds=7,
    warmup_operations=192,
    block_ns=150_000,
    whole_block_ns=8_000_000,
    most_operations=32,
    budget_ns=40_000_000,
    floor_rounds=9,
)
WALL = Plan(
    exact=False,
    rounds=200,
    least_rounds=20,
    warmup_operations=300,
    block_ns=200_000,
    whole_block_ns=50_000_000,
    most_operations=4096,
    budget_ns=300_000_000,
    floor_rounds=15,
)


@dataclass(frozen=True)
class Measured:
    """The rounds of one row: nanoseconds (instructions) per operation, ``operations`` of them in each block.

    What is not the operation was taken off: of each block ``floor`` (the clock, the call, the loop's set-up), of each
    operation ``loop`` (the loop's own step). ``clock`` is what one reading takes of a single operation that is timed
    alone: such a time is the operation's number and ``clock``.
    """

    rounds: list[int] | list[float]
    operations: int
    floor: float
    loop: float
    clock: float
    facts: dict[str, Any] = field(default_factory=dict)


def measure(operation: Operation, plan: Plan, warm: Operation | None = None) -> Measured:
    """Time *operation* as *plan* says, in this process, with the garbage collector off.

    *warm* is a cheap operation that runs the same code: it takes most of the warm-up where *operation* costs much, and
    tells what a block costs beside its operations.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    loop = 0.0 if operation.counts_loop else _loop_cost(plan)
    twin = None if warm is None else _Stopwatch(warm)
    if twin is not None:
        _warm_up(twin, plan)
    stopwatch = _Stopwatch(operation)
    if twin is None:
        _warm_up(stopwatch, plan)
    pilot = min(stopwatch.blocks(1, 3))
    period = _period(stopwatch, pilot, plan)
    operations = period * max(1, _operations(pilot, stopwatch.whole_block(1), plan, operation) // period)
    _warm_up(stopwatch, plan, operations, budget_ns=plan.budget_ns // 8)
    rounds = _rounds(stopwatch.whole_block(operations), plan)
    floor = _slope_floor(stopwatch, operations, pilot, plan)
    if floor is None:
        floor = _short_floor(twin or stopwatch, plan)
    if floor is None:
        floor = stopwatch.middle(0, pilot, plan)
    blocks = stopwatch.placed_blocks(operations, rounds, pilot * operations, plan)
    nets = [max(0.0, (took - floor) / operations - loop) for took in blocks]
    return Measured(
        [round(net) for net in nets] if plan.exact else nets,
        operations,
        float(floor),
        loop,
        _clock_cost(),
        dict(operation.facts),
    )


def _clock_cost() -> float:
    """What reading the clock takes of what it measures: the least time between two readings."""
    clock = time.perf_counter_ns
    if _second_of(clock()) != _second_of(time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE)):
        _await_tick()
    return float(min(-clock() + clock() for _ in range(CLOCK_READINGS)))


def _empty_loop(count: int) -> None:
    for _ in range(count):
        pass


def _loop_cost(plan: Plan) -> float:
    """What a step of an empty loop costs: with it taken off, a pair costs what its START and its END cost."""
    stopwatch = _Stopwatch(Operation(_empty_loop))
    _warm_up(stopwatch, plan)
    pilot = min(stopwatch.blocks(1, 3))
    floor = _slope_floor(stopwatch, LOOP_STEPS, pilot, plan)
    if floor is None:
        floor = stopwatch.middle(0, pilot, plan)
    return max(0.0, (stopwatch.middle(LOOP_STEPS, pilot, plan) - floor) / LOOP_STEPS)


def _slope_floor(stopwatch: _Stopwatch, operations: int, pilot: int, plan: Plan) -> int | None:
    """What a block costs beside its operations, as the longer block of two tells it.

    That is more than a block of nothing costs: where a loop begins, its first step and its end are in it. None where
    operations cost too much, or the clock is noisy: the difference of two long blocks would be noise.
    """
    longer = 2 * operations
    if not plan.exact or operations < LEAST_FOR_SLOPE:
        return None
    if longer > min(stopwatch.operation.most, LONGEST_FOR_SLOPE_NS // pilot):
        return None
    return max(0, 2 * stopwatch.middle(operations, pilot, plan) - stopwatch.middle(longer, pilot, plan))


def _short_floor(twin: _Stopwatch, plan: Plan) -> int | None:
    """The floor that the shortest blocks tell of *twin*, a cheap operation with the same loop; None where none does."""
    pilot = min(twin.blocks(1, 3))
    period = _period(twin, pilot, plan)
    return _slope_floor(twin, period * -(-LEAST_FOR_SLOPE // period), pilot, plan)


def _period(stopwatch: _Stopwatch, pilot: int, plan: Plan) -> int:
    """After how many operations their cost repeats itself; 1 where it is always the same, or never.

    CPython 3.11 does not come to rest at the call that ends a ``with`` block: it specialises it, sees it miss some
    fifty times, waits for some thirty, and specialises it again. A block of whole such turns costs the same wherever
    it begins.
    """
    if not plan.exact or pilot > MOST_FOR_PERIOD_NS or stopwatch.operation.most < LONGEST_PERIOD:
        return 1
    # A look that comes while the code is only about to find its rhythm sees none.
    for _ in range(PERIOD_LOOKS):
        period = _period_of(stopwatch.blocks(1, PERIOD_SAMPLE))
        if period is not None:
            return period
    return 1


def _period_of(costs: Sequence[int]) -> int | None:
    """The period of *costs*: 1 where they are the same, None where they neither are nor repeat themselves."""
    ordered = sorted(costs)
    usual = ordered[len(ordered) // 2]
    if sum(_alike(cost, usual) for cost in costs) >= len(costs) - MOST_UNUSUAL:
        return 1
    # A cost that is seen once is a disturbance: what repeats itself is seen again.
    neighbours = zip([-UNLIKE_NS, *ordered], ordered, [*ordered[1:], ordered[-1] + UNLIKE_NS], strict=False)
    lone = {cost for before, cost, after in neighbours if not _alike(before, cost) and not _alike(cost, after)}
    if len(lone) > MOST_UNUSUAL:
        return None

    def unlike(period: int) -> float:
        pairs = zip(costs, costs[period:], strict=False)
        differ = [not _alike(one, other) and not {one, other} & lone for one, other in pairs]
        return sum(differ) / len(differ)

    best = min(range(2, LONGEST_PERIOD + 1), key=unlike)
    return best if unlike(best) <= MOST_UNLIKE else None


def _alike(one: int, other: int) -> bool:
    return abs(one - other) < UNLIKE_NS


def _operations(pilot: int, whole: int, plan: Plan, operation: Operation) -> int:
    """A power of two, so that a small difference between two machines seldom changes it."""
    most = max(1, min(plan.most_operations, operation.most, plan.block_ns // pilot, plan.whole_block_ns // whole))
    operations = operation.least
    while operations * 2 <= most:
        operations *= 2
    return operations


def _rounds(whole: int, plan: Plan) -> int:
    """Few numbers to choose from, so that a tick in *whole* seldom changes it."""
    affordable = plan.budget_ns // whole
    return max(
        [plan.least_rounds, *(plan.rounds * part // 4 for part in range(1, 5) if plan.rounds * part // 4 <= affordable)]
    )


def _warm_up(stopwatch: _Stopwatch, plan: Plan, operations: int = 8, budget_ns: int | None = None) -> None:
    # CPython specialises the code it runs, step by step; what is counted must be its final form.
    done = spent = 0
    budget_ns = plan.budget_ns if budget_ns is None else budget_ns
    operations = min(operations, stopwatch.operation.most)
    while done < plan.warmup_operations and (spent < budget_ns or done < 3 * operations):
        spent += stopwatch.whole_block(operations)
        done += operations


def _timed(run: Callable[[int], object], count: int, clock: Callable[[], int]) -> int:
    began = clock()
    run(count)
    return clock() - began


class _Stopwatch:
    """Times the blocks of one operation.

    It has a copy of :func:`_timed` to itself: CPython specialises a call to the very function that it calls, and one
    that was specialised to another operation's would miss some fifty times before it gives that up.
    """

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self._timed = FunctionType(_timed.__code__.replace(), globals())
        self.blocks(0, SPECIALISING_CALLS)

    def placed_blocks(self, count: int, rounds: int, length: int, plan: Plan) -> array[int]:
        """As :meth:`blocks`; on the exact clock, without a timer tick in them or with as many in each of them.

        *length* is about how long a block takes.
        """
        if not plan.exact:
            return self.blocks(count, rounds)
        if length > BETWEEN_TICKS_NS:
            return self.blocks(count, rounds, aligned=True)
        return self._blocks_between_ticks(count, rounds)

    def _blocks_between_ticks(self, count: int, rounds: int) -> array[int]:
        taken = _room(rounds)
        operation, timed, read, coarse = self.operation, self._timed, time.clock_gettime_ns, _CLOCK_MONOTONIC_COARSE
        index = 0
        for chance in range(4 * rounds, 0, -1):
            operation.prepare(count)
            began = read(coarse)
            taken[index] = timed(operation.run, count, time.perf_counter_ns)
            carried = _second_of(time.perf_counter_ns()) != _second_of(began)
            # One with a tick in it, or a clock that has to carry, is written over, while there are chances.
            index += (read(coarse) == began and not carried) or chance <= rounds - index
            operation.clean()
            if carried:
                _await_tick()
            if index == rounds:
                break
        return taken[:rounds]

    def blocks(self, count: int, rounds: int, *, aligned: bool = False) -> array[int]:
        """Nanoseconds of each of *rounds* blocks of *count* operations; *aligned*: just after a timer tick.

        The numbers go into memory that is there beforehand: an object more that lives on after a block is a different
        path through the allocator for the next one.
        """
        taken = _room(rounds)
        operation, timed = self.operation, self._timed
        for index in range(rounds):
            operation.prepare(count)
            if aligned:
                _await_tick()
            taken[index] = timed(operation.run, count, time.perf_counter_ns)
            operation.clean()
        return taken[:rounds]

    def middle(self, count: int, pilot: int, plan: Plan) -> int:
        """The median block; *pilot* is what one operation takes."""
        return sorted(self.placed_blocks(count, plan.floor_rounds, count * pilot, plan))[plan.floor_rounds // 2]

    def whole_block(self, count: int) -> int:
        """Nanoseconds of a block with what goes around it."""
        began = time.perf_counter_ns()
        self.blocks(count, 1)
        return max(1, time.perf_counter_ns() - began)


def _room(rounds: int) -> array[int]:
    """Memory for *rounds* numbers, so large that CPython's own allocator, where the operation's objects live, has no
    part in it: how full that one's pools are changes what an object costs.
    """
    return array("q", bytes(8 * max(rounds, LEAST_ROOM)))


_CLOCK_MONOTONIC_COARSE = 6
"""linux/time.h; the time module has no name for it."""


def _second_of(nanoseconds: int) -> int:
    """The whole second that the clock shows.

    Reading the clock adds what has passed since the last timer tick to what it was then, and carries a full second over
    (the vDSO's __iter_div_u64_rem): from there to the next tick each reading costs some six instructions more.
    """
    return nanoseconds // 1_000_000_000


def _await_tick() -> None:
    """Return just after the kernel's timer tick: the coarse clock moves with it."""
    read, coarse = time.clock_gettime_ns, _CLOCK_MONOTONIC_COARSE
    now = read(coarse)
    while read(coarse) == now:
        pass
