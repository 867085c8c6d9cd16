"""What the fakes rely on when a signal must not come between a success and its note."""

from __future__ import annotations

import fcntl
import signal
import sys
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from dmasync.fakes.uninterrupted import completed, returns_uninterrupted, stamped


class Tick(BaseException):
    pass


@pytest.fixture
def noted() -> Iterator[list[str]]:
    """What was noted, while a signal handler raises wherever it runs."""
    if sys.gettrace() is not None or (sys.version_info >= (3, 12) and sys.monitoring.get_tool(1)):
        pytest.skip("a coverage tracer runs Python code of its own, where handlers run too")

    def handler(number: int, frame: object) -> None:
        raise Tick

    before = signal.signal(signal.SIGUSR1, handler)
    yield []
    signal.signal(signal.SIGUSR1, before)


def outcome(step: Callable[[], object]) -> type[BaseException] | None:
    """What *step* raised, or what its signal raised right behind it."""
    try:
        step()
        for _ in range(3):
            pass
    except Tick:
        return Tick
    return None


def test_a_signal_that_comes_with_the_success_waits_until_it_is_noted(noted):
    def step() -> None:
        nonlocal noted
        for _ in completed(interrupt_main, ((signal.SIGUSR1,),)):
            noted += ("success",)
            return

    assert outcome(step) is Tick
    assert noted == ["success"]


def test_without_it_the_signal_comes_in_between(noted):
    def step() -> None:
        nonlocal noted
        interrupt_main(signal.SIGUSR1)
        noted += ("success",)

    assert outcome(step) is Tick
    assert noted == []


def test_a_python_function_that_returns_uninterrupted_can_be_called_plainly(noted):
    def inner() -> str | None:
        for _ in completed(interrupt_main, ((signal.SIGUSR1,),)):
            return "success"
        return None

    def step() -> None:
        nonlocal noted
        result = inner()
        noted += (result,)

    assert outcome(step) is Tick
    assert noted == (["success"] if returns_uninterrupted(inner) else [])


def test_only_python_functions_return_uninterrupted_and_in_cpython_310_none():
    class Kernel:
        def ioctl(self) -> int:
            return 0

    expected = sys.version_info >= (3, 11)
    assert returns_uninterrupted(Kernel().ioctl) is expected
    assert returns_uninterrupted(lambda: 0) is expected
    assert returns_uninterrupted(fcntl.ioctl) is False


def test_a_call_that_raised_has_no_turn():
    turns = []
    with pytest.raises(ZeroDivisionError):
        for result in completed(divmod, ((1, 0),)):
            turns.append(result)
    assert turns == []
    assert list(completed(divmod, ((7, 2),))) == [(3, 1)]


def test_stamps_are_taken_when_they_are_fetched_and_never_end():
    first, second, third = islice(stamped(lambda now, value: (now, value), "x"), 3)
    assert first[0] <= second[0] <= third[0]
    assert {first[1], second[1], third[1]} == {"x"}
