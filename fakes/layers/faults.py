"""Fault plans as values: what to refuse, where and how often.

A plan is a frozen value. It prints as the call that makes it (:func:`parse` reads that back), compares and
hashes by what it says, and holds no state: the same plans given to two injectors refuse the same calls.

``on`` names where a plan acts: ``Step.START`` or ``Step.END`` for that end of a window, ``None`` for both,
the name of a :class:`dmasync.Backend` method (``"open"``, ``"close"``, ``"mmap"``, …; ``"ioctl"`` is every
ioctl but ``DMA_BUF_IOCTL_SYNC``), or the kernel's name of one ioctl (``"UDMABUF_CREATE"``,
``"DMA_BUF_SET_NAME"``, …). ``buffer`` narrows a step, or any call that takes a descriptor, to one dma-buf:
one of its descriptors (or an object with ``fileno()``), through whichever descriptor the call then comes, or
its identity in the journal.
"""

from __future__ import annotations

import errno
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import chain, repeat
from typing import Protocol

from dmasync import Step
from dmasync.fakes.arguments import listed, nearest, number_of
from dmasync.fakes.ioctls import IOCTLS
from dmasync.fakes.layers.beneath import METHODS

__all__ = ["Delay", "Fault", "HardError", "Mix", "Storm", "error", "latency", "mix", "never_ends", "parse", "storm"]


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


Place = Step | str | None

_TRIED_AGAIN = frozenset({errno.EINTR, errno.EAGAIN})

Verdict = int | float
"""An int is an errno to raise; a float is a number of seconds to wait before the call goes on."""


@dataclass(frozen=True)
class Fault(ABC):
    """What all plans have in common."""

    @abstractmethod
    def verdicts(self) -> Iterator[Verdict]:
        """One item for each matching call: an errno, a delay in seconds, or 0 to let it pass. Ends when
        spent.
        """

    @property
    @abstractmethod
    def on(self) -> Place:
        """Which calls it is about."""

    @property
    @abstractmethod
    def buffer(self) -> int | None:
        """A descriptor of the one dma-buf that it is about; None for all."""


def _described(name: str, plan: Fault, positional: int) -> str:
    parts = []
    for index, field in enumerate(fields(plan)):
        value = getattr(plan, field.name)
        if index >= positional and value == field.default:
            continue
        if field.name == "errnos":
            text = "(" + "".join(f"{_errno_text(code)}, " for code in value).rstrip() + ")"
        elif field.name == "errno":
            text = _errno_text(value)
        elif isinstance(value, Step):
            text = f"Step.{value.name}"
        else:
            text = repr(value)
        parts.append(text if index < positional else f"{field.name}={text}")
    return f"{name}({', '.join(parts)})"


def _errno_text(code: int) -> str:
    return f"errno.{errno.errorcode[code]}" if code in errno.errorcode else str(code)


@dataclass(frozen=True, repr=False)
class Storm(Fault):
    """See :func:`storm`."""

    errno: int
    times: int | None
    on: Place = Step.START
    buffer: int | None = None

    def __repr__(self) -> str:
        return _described("storm", self, 2)

    def verdicts(self) -> Iterator[Verdict]:
        return repeat(self.errno) if self.times is None else repeat(self.errno, self.times)


@dataclass(frozen=True, repr=False)
class HardError(Fault):
    """See :func:`error`."""

    errno: int
    on: Place = Step.START
    nth: int = 1
    buffer: int | None = None

    def __repr__(self) -> str:
        return _described("error", self, 1)

    def verdicts(self) -> Iterator[Verdict]:
        return chain(repeat(0, self.nth - 1), (self.errno,))


@dataclass(frozen=True, repr=False)
class Mix(Fault):
    """See :func:`mix`."""

    seed: int
    errnos: tuple[int, ...] = (errno.EINTR, errno.EAGAIN)
    rate: float = 0.5
    times: int | None = None
    on: Place = None
    buffer: int | None = None

    def __repr__(self) -> str:
        return _described("mix", self, 1)

    def verdicts(self) -> Iterator[Verdict]:
        return _MixDraws(self)


@dataclass(frozen=True, repr=False)
class Delay(Fault):
    """See :func:`latency`."""

    seconds: float
    jitter: float = 0.0
    seed: int = 0
    times: int | None = None
    on: Place = None
    buffer: int | None = None

    def __repr__(self) -> str:
        return _described("latency", self, 1)

    def verdicts(self) -> Iterator[Verdict]:
        return _DelayDraws(self)


# Classes, not generators: an exception from a signal handler would finish a generator, and with it the plan.
class _MixDraws:
    def __init__(self, plan: Mix) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)  # noqa: S311 - must be repeatable, not unpredictable
        self._refused = 0

    def __iter__(self) -> Iterator[Verdict]:
        return self

    def __next__(self) -> Verdict:
        if self._refused == self._plan.times:
            raise StopIteration
        if self._random.random() >= self._plan.rate:
            return 0
        code = self._random.choice(self._plan.errnos)
        self._refused += 1
        return code


class _DelayDraws:
    def __init__(self, plan: Delay) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)  # noqa: S311 - must be repeatable, not unpredictable
        self._delayed = 0

    def __iter__(self) -> Iterator[Verdict]:
        return self

    def __next__(self) -> Verdict:
        if self._delayed == self._plan.times:
            raise StopIteration
        seconds = float(self._plan.seconds + self._plan.jitter * self._random.random())
        self._delayed += 1
        return seconds


def storm(errno: int, times: int | None, on: Place = Step.START, *, buffer: int | _HasFileno | None = None) -> Storm:
    """Refuse the next *times* matching calls with *errno*; ``times=None`` never ends.

    An END that is refused for ever with EINTR or EAGAIN is tried for ever by the default RetryPolicy, and Ctrl-C does
    not stop it, since END must run: give the window's policy a *deadline* or *max_attempts*, or the storm an end.
    """
    return Storm(_errno_value("errno", errno), _times(times), _place(on), _buffer(buffer))


def error(errno: int, on: Place = Step.START, nth: int = 1, *, buffer: int | _HasFileno | None = None) -> HardError:
    """Refuse the *nth* matching call (counted from 1) with *errno*, once.

    Calls that an earlier plan of the same injector refused are not counted: they did not get this far.
    """
    if not isinstance(nth, int) or isinstance(nth, bool) or nth < 1:
        raise ValueError(f"nth counts calls from 1, not {nth!r}")
    return HardError(_errno_value("errno", errno), _place(on), nth, _buffer(buffer))


def mix(
    seed: int,
    errnos: tuple[int, ...] = (errno.EINTR, errno.EAGAIN),
    *,
    rate: float = 0.5,
    times: int | None = None,
    on: Place = None,
    buffer: int | _HasFileno | None = None,
) -> Mix:
    """Refuse each matching call with probability *rate*, by an errno drawn from *errnos*; at most *times* of
    them.

    The draws come from *seed* alone: the same seed refuses the same calls.
    """
    _check_seed(seed)
    codes = tuple(_errno_value("errnos", code) for code in listed(errnos, "errnos", "errnos"))
    if not codes:
        raise ValueError("errnos is empty: name at least one errno")
    if not _is_number(rate) or not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate is a probability from 0 to 1, not {rate!r}")
    return Mix(seed, codes, rate, _times(times), _place(on), _buffer(buffer))


def latency(
    seconds: float,
    *,
    jitter: float = 0.0,
    seed: int = 0,
    times: int | None = None,
    on: Place = None,
    buffer: int | _HasFileno | None = None,
) -> Delay:
    """Let each matching call wait for *seconds*, and up to *jitter* seconds more as *seed* draws, before
    it is made.
    """
    _check_seed(seed)
    if not all(_is_number(duration) and 0 <= duration < float("inf") for duration in (seconds, jitter)):
        raise ValueError(f"seconds and jitter are durations from 0 up, not {seconds!r} and {jitter!r}")
    return Delay(seconds, jitter, seed, _times(times), _place(on), _buffer(buffer))


def never_ends(plan: Fault) -> bool:
    """Whether *plan* lets an END be tried for ever by a policy without a limit, as the default is."""
    if plan.on not in (None, Step.END):
        return False
    if isinstance(plan, Storm):
        return plan.times is None and plan.errno in _TRIED_AGAIN
    return isinstance(plan, Mix) and plan.times is None and plan.rate == 1 and _TRIED_AGAIN.issuperset(plan.errnos)


def parse(text: str) -> Fault:
    """The plan that *text*, a plan's repr, describes; nothing of it is evaluated. ValueError when it is
    none.
    """
    from dmasync.fakes.layers.plan_text import plan_of

    makers: dict[str, Callable[..., Fault]] = {"storm": storm, "error": error, "mix": mix, "latency": latency}
    return plan_of(text, makers)


def _errno_value(argument: str, code: int) -> int:
    if not isinstance(code, int) or isinstance(code, bool) or not 0 < code < 4096:
        raise ValueError(f"{argument} must be an errno from 1 to 4095, not {code!r}")
    return code


def _check_seed(seed: object) -> None:
    if not isinstance(seed, int):
        raise ValueError(f"seed must be an int, not {seed!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _times(times: int | None) -> int | None:
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 0):
        raise ValueError(f"times is a count from 0 up, or None for one that never ends, not {times!r}")
    return times


def _place(on: Place) -> Place:
    if on is None or isinstance(on, Step) or on in METHODS or on in IOCTLS:
        return on
    near = nearest(on, [*METHODS, *IOCTLS]) if isinstance(on, str) else ""
    if near:
        raise ValueError(f"on must be a Step, a backend's method or an ioctl, not {on!r}{near}")
    raise ValueError(
        f"on must be Step.START, Step.END, None for both, a backend's method ({', '.join(METHODS)}) "
        f"or an ioctl ({', '.join(IOCTLS)}), not {on!r}"
    )


def _buffer(buffer: int | _HasFileno | None) -> int | None:
    return None if buffer is None else number_of(buffer, "buffer")
