"""Keeps a call that succeeded from looking as if it had failed: a signal handler's exception waits until it is noted.

CPython runs signal handlers when a Python function is entered, at backward jumps and after a call of a C function; not
while a ``for`` steps an iterator in C and enters the body. So in ::

    for result in completed(call, (arguments,)):
        note += result
        return result

the body is reached exactly when *call* succeeded, and a body without calls, backward jumps or conditions cannot be
interrupted. Everything in the fakes that needs this takes it from here, and nothing else plays with it: the place for a
compiled helper.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import repeat, starmap
from types import FunctionType, MethodType
from typing import Any, Final

completed: Final = starmap
"""``completed(call, (arguments,))``: one turn with the result of *call*, or none and what it raised."""

NOTHING: Final = repeat(None)
"""Endlessly None: where there is nothing to complete."""

TICKS: Final[Iterator[int]] = starmap(time.monotonic_ns, repeat(()))
"""Endlessly the monotonic clock, in ns."""


def stamped(make: Callable[..., Any], value: Any) -> Iterator[Any]:
    """Endlessly ``make(now, value)``, with the monotonic clock in ns. A loop over it returns in its first turn."""
    return map(make, TICKS, repeat(value))


def returns_uninterrupted(call: object) -> bool:
    """Whether a plain ``result = call(…)`` cannot be interrupted once *call* has returned.

    So it is with a Python function, which the interpreter leaves without looking for signals; CPython 3.10 does look.
    """
    function = call.__func__ if isinstance(call, MethodType) else call
    return sys.version_info >= (3, 11) and isinstance(function, FunctionType)
