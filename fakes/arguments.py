"""What arguments of this package are refused with: a sentence that names the argument and says what it takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def listed(values: Iterable[Any], argument: str, what: str) -> tuple[Any, ...]:
    """*values* as a tuple. TypeError for one that cannot be iterated over, and for text: its letters are not meant."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{argument} must be a list of {what}, not {values!r}")
    return tuple(values)


def nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Behind a sentence that refuses *word*: which of *known* may have been meant; *otherwise* if none is near."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, 1)
    return f": did you mean {names[near[0]]}?" if near else otherwise


def number_of(buffer: Any, argument: str) -> int:
    """*buffer* itself where it is a number, else its descriptor."""
    if isinstance(buffer, int) and not isinstance(buffer, bool):
        return buffer
    if not hasattr(buffer, "fileno"):
        raise TypeError(f"{argument} must be a dma-buf's number or an object with fileno(), not {buffer!r}")
    return int(buffer.fileno())


def check_layer(inner: Any, argument: str) -> None:
    """TypeError unless *inner* can be called as a backend is."""
    if not callable(getattr(inner, "ioctl", None)):
        raise TypeError(f"{argument} must have the methods of dmasync.Backend, {inner!r} has no ioctl")
