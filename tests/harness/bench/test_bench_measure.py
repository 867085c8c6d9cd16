"""The arithmetic of a measurement, on a clock that the test moves."""

from __future__ import annotations

import dataclasses
import gc
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from dmasync.harness.bench import measure as measuring
from dmasync.harness.bench.measure import EXACT, WALL, Operation, measure

CLOCK_COST = 490
CALL_COST = 210
TICK = 3_997_000  # no part of a second
TICK_COST = 2_400
SECOND = 1_000_000_000
CARRY_COST = 6


class Machine:
    """A clock that moves by what the operation and reading the clock cost."""

    def __init__(self, cost: int, disturbances: Iterator[int] | None = None, now: int = 0) -> None:
        self._now = now
        self.cost = cost
        self.blocks: list[int] = []
        self._disturbances = disturbances

    @property
    def now(self) -> int:
        return self._now

    @now.setter
    def now(self, now: int) -> None:
        """Time goes on; at each of the kernel's ticks it takes a step more."""
        ticks = now // TICK - self._now // TICK
        self._now = now + ticks * TICK_COST

    def read(self) -> int:
        """Dearer from a full second to the next tick, for then it has to be carried over."""
        self.now += CLOCK_COST
        if self.now // SECOND != self.now // TICK * TICK // SECOND:
            self.now += CARRY_COST
        return self.now

    def read_coarse(self, clock: int) -> int:
        self.now += 500
        return self.now // TICK * TICK

    def run(self, count: int) -> None:
        self.blocks.append(count)
        self.now += CALL_COST + count * self.cost
        if self._disturbances is not None and count:
            self.now += next(self._disturbances)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def made(cost: int, disturbances: Iterator[int] | None = None, now: int = 0) -> Machine:
        machine = Machine(cost, disturbances, now)
        monkeypatch.setattr(measuring.time, "perf_counter_ns", machine.read)
        monkeypatch.setattr(measuring.time, "clock_gettime_ns", machine.read_coarse)
        return machine

    yield made
    monkeypatch.undo()
    gc.enable()


def test_a_round_is_the_cost_of_one_operation_without_clock_and_loop(machine: Any) -> None:
    measured = measure(Operation(machine(3_946).run), EXACT)
    assert set(measured.rounds) == {3_946.0}
    assert measured.floor == CLOCK_COST + CALL_COST


def test_the_loops_own_step_is_taken_off(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = machine(3_946)

    def empty(count: int) -> None:
        clock.now += CALL_COST + 107 * count

    monkeypatch.setattr(measuring, "_empty_loop", empty)
    measured = measure(Operation(clock.run), EXACT)
    assert measured.loop == 107.0
    assert set(measured.rounds) == {3_946.0 - 107.0}
    assert set(measure(Operation(clock.run, counts_loop=True), EXACT).rounds) == {3_946.0}


def test_a_costly_operations_floor_is_a_block_of_nothing(machine: Any) -> None:
    clock = machine(1_000_000)
    measured = measure(Operation(clock.run), EXACT)
    assert set(measured.rounds) == {1_000_000.0}
    assert 0 in clock.blocks


def test_a_cheap_operations_floor_leaves_out_what_the_first_round_costs_more(machine: Any) -> None:
    clock = machine(1_000)

    def run(count: int) -> None:
        clock.run(count)
        clock.now += 64 if count else 0

    measured = measure(Operation(run), EXACT)
    assert set(measured.rounds) == {1_000.0}
    assert measured.floor == CLOCK_COST + CALL_COST + 64


def with_first_step(machine: Machine, cost: int) -> Operation:
    """An operation whose first step in a block costs 64 more than the others."""

    def run(count: int) -> None:
        machine.now += CALL_COST + count * cost + (64 if count else 0)

    return Operation(run)


@pytest.mark.parametrize("cost", [100_000, 1_000_000, 100_000_000])
def test_a_costly_operations_floor_is_that_of_its_cheap_twin(machine: Any, cost: int) -> None:
    clock = machine(0)
    measured = measure(with_first_step(clock, cost), EXACT, with_first_step(clock, 1_000))
    assert measured.floor == CLOCK_COST + CALL_COST + 64
    assert measured.rounds[0] == cost + (cost // TICK * TICK_COST if cost > TICK else 0)


def test_a_twin_whose_cost_repeats_itself_tells_the_floor_over_whole_periods(machine: Any) -> None:
    clock = machine(0)
    made = 0

    def run(count: int) -> None:
        nonlocal made
        clock.now += CALL_COST + (64 if count else 0)
        for _ in range(count):
            clock.now += 6_400 + (18 if made % 85 < 53 else 0)
            made += 1

    measured = measure(with_first_step(clock, 1_000_000), EXACT, Operation(run))
    assert measured.floor == CLOCK_COST + CALL_COST + 64


def test_an_operation_that_fills_its_blocks_tells_its_floor_by_shorter_ones(machine: Any) -> None:
    measured = measure(with_first_step(machine(0), 1_000)._replace(most=16), EXACT)
    assert measured.operations == 16
    assert measured.floor == CLOCK_COST + CALL_COST + 64
    assert set(measured.rounds) == {1_000.0}


def test_a_twin_that_may_not_be_called_often_enough_tells_nothing(machine: Any) -> None:
    clock = machine(0)
    twin = with_first_step(clock, 1_000)._replace(most=8)
    assert measure(with_first_step(clock, 1_000_000), EXACT, twin).floor == CLOCK_COST + CALL_COST


def test_the_wall_clock_asks_no_twin(machine: Any) -> None:
    clock = machine(0)
    measured = measure(with_first_step(clock, 1_000_000), WALL, with_first_step(clock, 1_000))
    assert measured.floor == CLOCK_COST + CALL_COST


def test_the_wall_clocks_floor_is_a_block_of_nothing(machine: Any) -> None:
    clock = machine(1_000)
    measured = measure(Operation(clock.run), WALL)
    assert measured.floor == CLOCK_COST + CALL_COST
    assert max(clock.blocks) == measured.operations


def test_a_cost_that_repeats_itself_is_measured_over_whole_periods(machine: Any) -> None:
    clock = machine(6_400)
    made = 0

    def run(count: int) -> None:
        nonlocal made
        clock.now += CALL_COST
        for _ in range(count):
            clock.now += 6_400 + (18 if made % 85 < 53 else 0)
            made += 1

    measured = measure(Operation(run), EXACT)
    assert measured.operations == 85
    assert set(measured.rounds) == {6_400.0 + round(18 * 53 / 85)}


TURN = [18] * 51 + [23] + [0] * 31 + [67]
"""What the call that ends a ``with`` block costs more from one time to the next, as CPython 3.11 was seen to do."""


@pytest.mark.parametrize("begin", range(0, 84, 7))
@pytest.mark.parametrize("rounding", [(0,), (0, 1, 0, 0, -1)], ids=["exact", "rounded"])
def test_long_stretches_are_not_taken_for_a_short_period(begin: int, rounding: tuple[int, ...]) -> None:
    off = itertools.cycle(rounding)
    costs = [8_654 + TURN[(begin + index) % 84] + next(off) for index in range(measuring.PERIOD_SAMPLE)]
    for place, more in ((38, 95), (55, 146), (101, 2_447), (227, 2_397)):
        costs[place] += more
    assert measuring._period_of(costs) == 84


def test_a_period_that_begins_late_is_found(machine: Any) -> None:
    clock = machine(6_400)
    made = 0

    def run(count: int) -> None:
        nonlocal made
        clock.now += CALL_COST
        for _ in range(count):
            unsettled = made < 500 and (made * 2_654_435_761 >> 9) % 5 < 2
            clock.now += 6_400 + (300 if unsettled else 18 if made % 85 < 53 else 0)
            made += 1

    assert measure(Operation(run), EXACT).operations == 85


def test_a_cost_that_never_repeats_itself_is_measured_in_plain_blocks(machine: Any) -> None:
    clock = machine(6_400)
    made = 0

    def run(count: int) -> None:
        nonlocal made
        clock.now += CALL_COST
        for _ in range(count):
            clock.now += 6_400 + 2 * made
            made += 1

    assert measure(Operation(run), EXACT).operations == 16


def test_a_period_is_found_although_ticks_disturb_it(machine: Any) -> None:
    def ticks() -> Iterator[int]:
        while True:
            yield from (0,) * 300
            yield 2_400

    clock = machine(6_400, ticks())
    made = 0

    def run(count: int) -> None:
        nonlocal made
        clock.run(count)
        for _ in range(count):
            clock.now += 18 if made % 85 < 53 else 0
            made += 1

    assert measure(Operation(run), EXACT).operations == 85


def test_exact_rounds_are_whole_instructions(machine: Any) -> None:
    def a_few() -> Iterator[int]:
        while True:
            yield from (0, 3, 7)

    measured = measure(Operation(machine(5_000, a_few()).run), EXACT)
    assert set(measured.rounds) == {5_000.0}


def test_wall_rounds_keep_their_fractions(machine: Any) -> None:
    def one() -> Iterator[int]:
        while True:
            yield 1

    measured = measure(Operation(machine(5_000, one()).run, most=4), WALL)
    assert measured.rounds[0] == 5_000 + 1 / measured.operations


def test_a_block_is_a_power_of_two_that_fits_the_plan(machine: Any) -> None:
    measured = measure(Operation(machine(20_000).run), EXACT)
    assert measured.operations == 4  # 80 us; 8 would take more than the plan's 150


def test_an_operation_that_uses_something_up_is_never_called_for_more(machine: Any) -> None:
    clock = machine(100)
    measured = measure(Operation(clock.run, most=4), EXACT)
    assert measured.operations == 4
    assert max(clock.blocks) == 4


def test_a_costly_operation_gets_the_least_rounds_only(machine: Any) -> None:
    measured = measure(Operation(machine(100_000_000).run), EXACT)
    assert len(measured.rounds) == EXACT.least_rounds
    assert measured.operations == 1


def test_a_cheap_operation_gets_all_rounds(machine: Any) -> None:
    assert len(measure(Operation(machine(1_000).run), EXACT).rounds) == EXACT.rounds


@pytest.mark.parametrize("cost", [400_000, 1_500_000, 3_000_000])
def test_no_timer_tick_is_in_an_exact_round_that_fits_between_two(machine: Any, cost: int) -> None:
    assert set(measure(Operation(machine(cost).run), EXACT).rounds) == {cost}


@pytest.mark.parametrize("early", range(0, 60_000_000, 2_500_000))
def test_a_full_second_that_the_clock_has_to_carry_is_in_no_exact_round(machine: Any, early: int) -> None:
    measured = measure(Operation(machine(4_000, now=SECOND - early).run), EXACT)
    assert set(measured.rounds) == {4_000}
    assert (measured.floor, measured.clock) == (CLOCK_COST + CALL_COST, CLOCK_COST)


def test_every_exact_round_that_is_longer_holds_as_many_ticks(machine: Any) -> None:
    assert set(measure(Operation(machine(6_000_000).run), EXACT).rounds) == {6_000_000.0 + TICK_COST}


def test_rounds_in_which_there_is_always_a_tick_are_taken_as_they_are(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = machine(5_000)
    moments = itertools.count()
    monkeypatch.setattr(measuring.time, "clock_gettime_ns", lambda coarse: next(moments))
    measured = measure(Operation(clock.run), EXACT)
    assert len(measured.rounds) == EXACT.rounds
    assert min(measured.rounds) == 5_000


def test_the_wall_clocks_rounds_keep_what_fell_into_them(machine: Any) -> None:
    measured = measure(Operation(machine(100_000).run), WALL)
    assert len(set(measured.rounds)) > 1


def test_preparing_and_cleaning_are_not_counted_and_go_around_every_block(machine: Any) -> None:
    clock = machine(2_000)
    order: list[str] = []

    def prepare(count: int) -> None:
        order.append("prepare")
        clock.now += 1_000_000

    def run(count: int) -> None:
        order.append("run")
        clock.run(count)

    def clean() -> None:
        order.append("clean")
        clock.now += 1_000_000

    assert set(measure(Operation(run, prepare, clean), EXACT).rounds) == {2_000.0}
    assert order == ["prepare", "run", "clean"] * (len(order) // 3)


def test_a_costly_operation_is_warmed_up_by_its_cheap_twin(machine: Any) -> None:
    clock = machine(50_000_000)
    warmed: list[int] = []
    plan = dataclasses.replace(EXACT, warmup_operations=192)
    measure(Operation(clock.run), plan, Operation(warmed.append))
    assert sum(warmed) >= 192
    assert sum(clock.blocks) < 40


def test_the_garbage_collector_is_off_while_measuring(machine: Any) -> None:
    clock = machine(1_000)
    states: list[bool] = []

    def run(count: int) -> None:
        states.append(gc.isenabled())
        clock.run(count)

    gc.enable()
    measure(Operation(run), EXACT)
    assert not any(states)


def test_each_operation_is_timed_by_code_of_its_own() -> None:
    # What CPython specialised for one operation would cost the next one more.
    first, second = (measuring._Stopwatch(Operation(lambda count: None)) for _ in range(2))
    assert first._timed.__code__ is not second._timed.__code__
