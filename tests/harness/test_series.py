"""A series of nights: levels, steps, creeps, spikes, and what noise hides."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmasync.harness.judge.nights import series
from dmasync.harness.judge.nights.series import FEWEST_NIGHTS, SHORTEST_LEVEL, judge_series


def noisy(levels: Sequence[float], seed: int = 0, noise: float = 0.02, correlation: float = 0.0) -> list[float]:
    """*levels* with relative noise, each night's like the one before it to the *correlation*."""
    source = random.Random(seed)  # noqa: S311  # noise, no secret
    off, nights = source.gauss(0, noise), []
    for level in levels:
        nights.append(level * (1 + off))
        off = correlation * off + source.gauss(0, noise) * (1 - correlation**2) ** 0.5
    return nights


def test_a_step_is_told_with_its_night_and_its_levels() -> None:
    (move,) = judge_series(noisy([100.0] * 60 + [110.0] * 30)).moves
    assert move.begin == move.end == pytest.approx(60, abs=1)
    assert not move.is_creep
    assert (move.before, move.after) == (pytest.approx(100, rel=0.01), pytest.approx(110, rel=0.01))


def test_ten_nights_of_one_percent_are_a_move_although_no_night_is() -> None:
    levels = [100 * 1.01 ** min(max(night - 50, 0), 10) for night in range(100)]
    told = judge_series(noisy(levels, noise=0.01))
    assert told.level / told.first_level == pytest.approx(1.01**10, rel=0.01)
    assert told.moves[0].begin <= 60
    assert told.moves[-1].end >= 50


def test_a_slow_creep_is_one_move_from_its_first_cut_to_its_last() -> None:
    levels = [100 * 1.01 ** min(max(night - 30, 0), 60) for night in range(120)]
    (move,) = judge_series(noisy(levels, noise=0.005)).moves
    assert move.is_creep
    assert 25 <= move.begin < move.end <= 95
    assert move.ratio == pytest.approx(1.01**60, rel=0.05)


def test_one_bad_night_is_a_spike_and_no_move() -> None:
    values = noisy([100.0] * 90)
    values[40] *= 2
    told = judge_series(values)
    assert told.spikes == (40,)
    assert told.moves == ()
    assert told.level == pytest.approx(100, rel=0.01)


def test_the_last_night_may_be_the_first_of_a_new_level_and_is_no_spike_yet() -> None:
    assert judge_series([*noisy([100.0] * 60), 200.0]).spikes == ()
    assert judge_series([*noisy([100.0] * 60), 200.0, 101.0]).spikes == (60,)


def test_a_step_that_went_back_is_two_moves() -> None:
    told = judge_series(noisy([100.0] * 40 + [120.0] * 20 + [100.0] * 40))
    assert [round(move.ratio, 1) for move in told.moves] == [1.2, 0.8]
    assert told.level == pytest.approx(told.first_level, rel=0.02)


def test_moves_below_the_limit_are_not_told() -> None:
    values = noisy([100.0] * 60 + [104.0] * 60, noise=0.002)
    assert judge_series(values).moves == ()
    assert len(judge_series(values, least_percent=2).moves) == 1


def test_halving_and_doubling_are_as_far() -> None:
    values = noisy([100.0] * 40 + [200.0] * 40)
    up, down = judge_series(values), judge_series([1 / value for value in values])
    assert up.visible == pytest.approx(down.visible)
    assert [move.begin for move in up.moves] == [move.begin for move in down.moves]


def false_moves(correlation: float) -> int:
    return sum(bool(judge_series(noisy([100.0] * 200, seed, 0.05, correlation)).moves) for seed in range(100))


def test_nights_that_resemble_their_neighbours_are_no_moves() -> None:
    assert false_moves(0.0) <= 2
    assert false_moves(0.7) <= 6


def test_nights_that_resemble_their_neighbours_are_worth_fewer() -> None:
    free = judge_series(noisy([100.0] * 300, 1, 0.03))
    bound = judge_series(noisy([100.0] * 300, 1, 0.03, 0.7))
    assert free.effective > 180
    assert bound.effective < 150
    assert bound.visible > free.visible
    assert bound.autocorrelation > 0.3
    assert free.noise == pytest.approx(0.03, rel=0.25)


def test_neither_a_step_nor_a_creep_counts_as_noise() -> None:
    calm = judge_series(noisy([100.0] * 120))
    for levels in ([100.0] * 60 + [150.0] * 60, [100 * 1.003**night for night in range(120)]):
        assert judge_series(noisy(levels)).noise == pytest.approx(calm.noise, rel=0.25)


def test_noise_hides_what_is_smaller_and_says_so() -> None:
    told = judge_series(noisy([100.0] * 60 + [108.0] * 7, noise=0.15))
    assert told.moves == ()
    assert told.visible > 1.2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0] * (FEWEST_NIGHTS - 1), "13 nights, at least 14"),
        ([], "0 nights"),
        ([1.0] * 20 + [0.0], "not above 0"),
        ([1.0] * 20 + [float("inf")], "not above 0"),
        ([1.0] * 20 + [float("nan")], "not above 0"),
    ],
)
def test_what_cannot_be_judged_says_why(values: list[float], said: str) -> None:
    assert said in judge_series(values).unjudged


def test_a_row_that_never_moves_is_judged() -> None:
    told = judge_series([5.0] * 40 + [5.5] * 10)
    assert [move.begin for move in told.moves] == [40]
    assert judge_series([5.0] * 50).moves == ()


def cost(values: Sequence[float], cuts: Sequence[int], price: float) -> float:
    bounds = [0, *cuts, len(values)]
    pieces = [numpy.asarray(values[start:end]) for start, end in itertools.pairwise(bounds)]
    return sum(float(((piece - piece.mean()) ** 2).sum()) for piece in pieces) + price * len(cuts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20).map(float), min_size=SHORTEST_LEVEL, max_size=18), st.sampled_from([0.5, 5.0, 50.0]))
def test_no_other_way_to_cut_is_cheaper(values: list[float], price: float) -> None:
    found = series._partition(numpy.asarray(values), price)
    places = range(SHORTEST_LEVEL, len(values) - SHORTEST_LEVEL + 1)
    ways = [
        cuts
        for count in range(len(values) // SHORTEST_LEVEL)
        for cuts in itertools.combinations(places, count)
        if all(later - earlier >= SHORTEST_LEVEL for earlier, later in itertools.pairwise(cuts))
    ]
    assert cost(values, found, price) == pytest.approx(min(cost(values, cuts, price) for cuts in ways))
