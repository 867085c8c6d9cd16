"""RetryPolicy and Attempts: what is repeated, how soon, and when it is given up."""

from __future__ import annotations

import dataclasses
import errno
import math

import pytest

from dmasync import DmaSyncError, DmaSyncTimeout, RetryPolicy, Step
from dmasync.retry import DEFAULT_RETRY, Attempts, default_backoff


class Clock:
    """Time that moves only by sleeping; remembers the naps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def refuse(attempts: Attempts, code: int | None) -> DmaSyncError | None:
    return attempts.refused(OSError(code, "no"), 7, 3)


def test_the_default_repeats_eintr_and_eagain_for_ever():
    policy = RetryPolicy()
    assert policy == DEFAULT_RETRY
    assert policy.errnos == {errno.EINTR, errno.EAGAIN}
    assert (policy.max_attempts, policy.deadline) == (None, None)
    attempts = Attempts(policy)
    assert all(refuse(attempts, errno.EINTR) is None for _ in range(10_000))


def test_eintr_is_tried_again_at_once():
    assert {default_backoff(errno.EINTR, attempts) for attempts in range(1, 2000)} == {0.0}


def test_eagain_spins_a_little_then_waits_twice_as_long_each_time_up_to_a_millisecond():
    pauses = [default_backoff(errno.EAGAIN, attempts) for attempts in range(1, 41)]
    assert pauses[:16] == [0.0] * 16
    assert pauses[16:23] == pytest.approx([10e-6, 20e-6, 40e-6, 80e-6, 160e-6, 320e-6, 640e-6])
    assert set(pauses[23:]) == {1e-3}


def test_the_longest_pause_holds_however_long_the_storm_is():
    assert default_backoff(errno.EAGAIN, 10**9) == 1e-3


def test_no_pause_calls_no_sleep():
    clock = Clock()
    attempts = Attempts(RetryPolicy(clock=clock, sleep=clock.sleep))
    for _ in range(16):
        assert refuse(attempts, errno.EAGAIN) is None
    assert clock.naps == []


def test_pauses_are_slept_and_counted_over_both_errnos():
    clock = Clock()
    attempts = Attempts(RetryPolicy(clock=clock, sleep=clock.sleep))
    for _ in range(16):
        refuse(attempts, errno.EINTR)
    refuse(attempts, errno.EAGAIN)
    assert clock.naps == [pytest.approx(10e-6)]
    assert attempts.count == 17


def test_a_backoff_of_the_callers_own_is_asked_with_errno_and_attempts():
    clock = Clock()
    asked: list[tuple[int, int]] = []

    def backoff(code: int, count: int) -> float:
        asked.append((code, count))
        return 0.25

    attempts = Attempts(RetryPolicy(backoff=backoff, clock=clock, sleep=clock.sleep))
    refuse(attempts, errno.EINTR)
    refuse(attempts, errno.EAGAIN)
    assert asked == [(errno.EINTR, 1), (errno.EAGAIN, 2)]
    assert clock.naps == [0.25, 0.25]


def test_an_errno_that_is_not_to_be_repeated_is_a_hard_error():
    refusal = OSError(errno.EIO, "no")
    failure = Attempts(RetryPolicy()).refused(refusal, 7, 6)
    assert type(failure) is DmaSyncError
    assert (failure.errno, failure.fd, failure.flags, failure.step, failure.attempts) == (errno.EIO, 7, 6, Step.END, 1)
    assert failure.__cause__ is refusal


def test_an_oserror_without_errno_is_a_hard_error():
    failure = Attempts(RetryPolicy()).refused(OSError("no number"), 7, 3)
    assert isinstance(failure, DmaSyncError)


def test_errnos_say_what_is_repeated():
    attempts = Attempts(RetryPolicy(errnos=frozenset({errno.EBUSY})))
    assert refuse(attempts, errno.EBUSY) is None
    failure = refuse(attempts, errno.EINTR)
    assert failure is not None
    assert (failure.errno, failure.attempts) == (errno.EINTR, 2)


def test_any_collection_of_errnos_will_do_and_is_kept_as_a_frozenset():
    policy = RetryPolicy(errnos=[errno.EINTR, errno.EBUSY])  # type: ignore[arg-type]
    assert policy.errnos == frozenset({errno.EINTR, errno.EBUSY})
    assert hash(policy) == hash(dataclasses.replace(policy))


def test_max_attempts_counts_the_first_try():
    attempts = Attempts(RetryPolicy(max_attempts=3))
    assert refuse(attempts, errno.EINTR) is None
    assert refuse(attempts, errno.EINTR) is None
    failure = refuse(attempts, errno.EINTR)
    assert failure is not None
    assert (type(failure), failure.errno, failure.attempts) == (DmaSyncError, errno.EINTR, 3)


def test_one_attempt_at_most_repeats_nothing():
    failure = refuse(Attempts(RetryPolicy(max_attempts=1)), errno.EAGAIN)
    assert failure is not None
    assert failure.attempts == 1


def test_a_deadline_raises_a_timeout_that_says_how_often_it_was_tried():
    clock = Clock()
    policy = RetryPolicy(deadline=1.0, backoff=lambda code, count: 0.4, clock=clock, sleep=clock.sleep)
    attempts = Attempts(policy)
    refusal = OSError(errno.EAGAIN, "busy")
    failures = [attempts.refused(refusal, 7, 3) for _ in range(4)]
    assert failures[:3] == [None] * 3
    timeout = failures[3]
    assert type(timeout) is DmaSyncTimeout
    assert (timeout.errno, timeout.attempts, timeout.fd, timeout.flags, timeout.step) == (
        errno.ETIMEDOUT, 4, 7, 3, Step.START,
    )  # fmt: skip
    assert "deadline of 1.0 s passed" in str(timeout)
    assert timeout.__cause__ is refusal


def test_the_last_pause_ends_at_the_deadline():
    clock = Clock()
    policy = RetryPolicy(deadline=1.0, backoff=lambda code, count: 0.4, clock=clock, sleep=clock.sleep)
    attempts = Attempts(policy)
    for _ in range(4):
        refuse(attempts, errno.EAGAIN)
    assert clock.naps == pytest.approx([0.4, 0.4, 0.2])


def test_a_deadline_that_is_reached_exactly_has_passed():
    clock = Clock()
    attempts = Attempts(RetryPolicy(deadline=2.0, clock=clock, sleep=clock.sleep))
    clock.now += 2.0
    assert isinstance(refuse(attempts, errno.EINTR), DmaSyncTimeout)


def test_the_deadline_counts_from_the_first_try():
    clock = Clock()
    policy = RetryPolicy(deadline=1.0, clock=clock, sleep=clock.sleep)
    clock.now += 5.0
    attempts = Attempts(policy)
    clock.now += 0.5
    assert refuse(attempts, errno.EINTR) is None


def test_without_a_deadline_the_clock_is_never_asked():
    def clock() -> float:
        raise AssertionError

    attempts = Attempts(RetryPolicy(clock=clock))
    assert refuse(attempts, errno.EINTR) is None


def test_a_hard_error_wins_over_the_deadline():
    clock = Clock()
    attempts = Attempts(RetryPolicy(deadline=0.0, clock=clock, sleep=clock.sleep))
    failure = refuse(attempts, errno.EIO)
    assert failure is not None
    assert failure.errno == errno.EIO


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"errnos": "EINTR"}, TypeError, "errnos must be"),
        ({"errnos": b"EINTR"}, TypeError, "errnos must be"),
        ({"errnos": {"EINTR"}}, TypeError, "errnos must be"),
        ({"errnos": 4}, TypeError, "errnos must be"),
        ({"errnos": None}, TypeError, "errnos must be"),
        ({"max_attempts": 0}, ValueError, "max_attempts must be at least 1"),
        ({"max_attempts": -1}, ValueError, "max_attempts must be at least 1"),
        ({"max_attempts": True}, TypeError, "max_attempts must be an int"),
        ({"max_attempts": 1.5}, TypeError, "max_attempts must be an int"),
        ({"deadline": -0.1}, ValueError, "deadline must not be negative"),
        ({"deadline": math.nan}, ValueError, "deadline must not be negative"),
        ({"deadline": "1"}, TypeError, "deadline must be seconds"),
        ({"deadline": True}, TypeError, "deadline must be seconds"),
        ({"backoff": 1.0}, TypeError, "backoff must be callable"),
        ({"clock": None}, TypeError, "clock must be callable"),
        ({"sleep": 3}, TypeError, "sleep must be callable"),
    ],
)
def test_an_argument_that_cannot_be_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        RetryPolicy(**arguments)


@pytest.mark.parametrize("arguments", [{"max_attempts": 1}, {"deadline": 0}, {"deadline": math.inf}, {"errnos": ()}])
def test_limits_of_what_can_be_are_taken(arguments):
    policy = RetryPolicy(**arguments)
    assert policy == dataclasses.replace(policy)


def test_a_policy_is_a_value_that_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RetryPolicy().max_attempts = 3  # type: ignore[misc]
