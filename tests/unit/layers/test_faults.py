"""Fault plans are values: printed, parsed, compared, hashed, replayed to the same calls."""

from __future__ import annotations

import errno
from itertools import islice

import pytest

from dmasync import Step
from dmasync.fakes import faults

PLANS = [
    faults.storm(errno.EINTR, 3),
    faults.storm(errno.EAGAIN, None, on=Step.END, buffer=7),
    faults.storm(errno.EMFILE, 1, on="open"),
    faults.error(errno.EIO, on=Step.END, nth=4),
    faults.error(errno.ENOMEM, on="UDMABUF_CREATE"),
    faults.mix(42),
    faults.mix(1, (errno.EINTR,), rate=0.25, times=9, on=Step.START, buffer=2),
    faults.latency(0.5),
    faults.latency(0.001, jitter=0.5, seed=3, times=2, on=Step.START),
    faults.error(4000),
]


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_a_plan_prints_as_the_call_that_makes_it(plan):
    assert faults.parse(repr(plan)) == plan
    assert eval(repr(plan), vars(faults)) == plan  # noqa: S307 - that a repr can be evaluated is the point


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_equal_plans_hash_equal_and_are_frozen(plan):
    assert hash(faults.parse(repr(plan))) == hash(plan)
    assert len({*PLANS}) == len(PLANS)
    with pytest.raises(AttributeError):
        plan.buffer = 1


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_a_plan_gives_the_same_verdicts_every_time(plan):
    assert list(islice(plan.verdicts(), 200)) == list(islice(plan.verdicts(), 200))


def test_plans_with_other_seeds_differ():
    verdicts = {tuple(islice(faults.mix(seed).verdicts(), 64)) for seed in range(20)}
    assert len(verdicts) == 20


def test_a_plan_ends_when_it_is_spent():
    assert list(faults.storm(errno.EINTR, 2).verdicts()) == [errno.EINTR] * 2
    assert list(faults.error(errno.EIO, nth=3).verdicts()) == [0, 0, errno.EIO]
    assert sum(1 for code in faults.mix(5, times=4).verdicts() if code) == 4
    assert len(list(faults.latency(0.1, times=3).verdicts())) == 3


def test_latency_stays_within_its_jitter():
    waits = list(faults.latency(1.0, jitter=0.5, times=100).verdicts())
    assert min(waits) >= 1.0
    assert max(waits) <= 1.5
    assert len(set(waits)) > 50


def test_a_buffer_may_be_anything_with_a_descriptor():
    class Buffer:
        def fileno(self):
            return 12

    assert faults.storm(errno.EINTR, 1, buffer=Buffer()) == faults.storm(errno.EINTR, 1, buffer=12)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: faults.storm(0, 1), "errno"),
        (lambda: faults.storm(4096, 1), "errno"),
        (lambda: faults.storm(True, 1), "errno"),
        (lambda: faults.storm(errno.EINTR, -1), "times"),
        (lambda: faults.storm(errno.EINTR, 1, on="start"), "on"),
        (lambda: faults.error(errno.EIO, nth=0), "nth"),
        (lambda: faults.mix(1, ()), "errnos"),
        (lambda: faults.mix(1, rate=1.5), "rate"),
        (lambda: faults.mix(1, rate="half"), "rate"),
        (lambda: faults.mix(1, rate=float("nan")), "rate"),
        (lambda: faults.mix("one"), "seed"),
        (lambda: faults.latency(-1), "seconds"),
        (lambda: faults.latency("1"), "seconds"),
        (lambda: faults.latency(float("nan")), "seconds"),
        (lambda: faults.latency(float("inf")), "seconds"),
        (lambda: faults.latency(1, jitter=-1), "jitter"),
        (lambda: faults.latency(1, seed=None), "seed"),
    ],
)
def test_an_impossible_plan_is_refused_by_the_name_of_its_argument(make, argument):
    with pytest.raises(ValueError, match=argument):
        make()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "storm",
        "storm(",
        "storm()",
        "storm(EINTR, 1",
        "open('/etc/passwd')",
        "__import__('os').system('true')",
        "storm(errno.EINTR, 1, on=Step.MIDDLE)",
        "storm(errno.NOTHING, 1)",
        "storm(lambda: 1, 1)",
        "error(5, nth=0)",
    ],
)
def test_other_text_is_no_plan_and_is_never_evaluated(text):
    with pytest.raises(ValueError, match="no fault plan"):
        faults.parse(text)


def test_a_plan_of_ones_own_says_what_all_plans_say():
    with pytest.raises(TypeError, match="abstract"):
        faults.Fault()


def test_errnos_may_be_written_by_name_alone():
    assert faults.parse("storm(EINTR, 2)") == faults.storm(errno.EINTR, 2)
    assert faults.parse("mix(3, (EINTR, EAGAIN,))") == faults.mix(3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("storm(EINTR, 3", "was never closed; write it as storm"),
        ("storm", "it is not a call of storm, error, mix or latency; write it as"),
        ("strom(EINTR, 3)", "did you mean storm?"),
        ("storm(EINTR, time=3)", "storm() has no 'time': did you mean times?"),
        ("storm(EINTR, 3, on=Step.STRT)", "there is no Step.STRT: did you mean START?"),
        ("storm(EINTR, 3, on=END)", "END is no errno: did you mean Step.END?"),
        ("storm(EINTRR, 3)", "there is no errno EINTRR: did you mean EINTR?"),
        ("storm(EIN)", "there is no errno EIN: did you mean EINTR?"),
        ("storm(-EIN, 3)", "-EIN is no number, text, errno or Step"),
        ("storm(EINTR, **{'times': 3})", "**{'times': 3} names no argument"),
        ("storm(os.EINTR, 3)", "os.EINTR is no number, text, errno or Step"),
        ("storm(2 * 2, 3)", "2 * 2 is no number, text, errno or Step"),
    ],
)
def test_a_text_that_is_no_plan_is_refused_with_the_nearest_right_form(text, told):
    with pytest.raises(ValueError, match="is no fault plan") as caught:
        faults.parse(text)
    assert told in str(caught.value)
