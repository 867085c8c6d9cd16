"""What a window can be opened on: a dmasync buffer, or a borrowed file descriptor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from dmasync.backend import LINUX, Backend
from dmasync.descriptor import Descriptor

Item = TypeVar("Item")


class HasDescriptor(Protocol):
    """A buffer of this package: DmaBuf, or a Plane's buffer."""

    @property
    def _descriptor(self) -> Descriptor: ...


def descriptor_of(source: Any, backend: Backend | None, argument: str) -> Descriptor:
    """The descriptor behind *source*, named *argument* in errors.

    A buffer's own is shared; a bare number, or an object with ``fileno()``, is wrapped and stays its owner's.
    Raises TypeError for anything else and ValueError for a closed buffer or a negative number; makes no system call.
    """
    descriptor = getattr(source, "_descriptor", None)
    if descriptor.__class__ is Descriptor:
        assert isinstance(descriptor, Descriptor)  # noqa: S101 - for the type checker
        if descriptor.closed:
            raise ValueError(f"{argument} was closed: allocate or import it again")
        return descriptor
    number = file_number(source, argument)
    if backend is not None and backend is not LINUX:
        return Descriptor(backend, number)
    return _borrowed(number)


def _borrowed(number: int) -> Descriptor:
    """The descriptor for a number of the real kernel's that its owner keeps: it has no state, one will do for all."""
    descriptor = BORROWED.get(number)
    if descriptor is None:
        if len(BORROWED) >= _MOST_BORROWED:
            BORROWED.clear()
        descriptor = BORROWED[number] = Descriptor(LINUX, number)
    return descriptor


BORROWED: dict[int, Descriptor] = {}
"""What :func:`descriptor_of` has made for bare numbers of the real kernel's."""
_MOST_BORROWED = 1024


def file_number(source: Any, argument: str) -> int:
    """*source* as the number of an open file: an int, or what its ``fileno()`` says."""
    number = source
    if not isinstance(source, int):
        try:
            number = source.fileno()
        except AttributeError:
            number = None
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{argument} must be a DmaBuf, a file descriptor or an object with fileno(), not {source!r}")
    if number < 0:
        raise ValueError(f"{argument} must be an open file descriptor, not {number}")
    if number > 0x7FFFFFFF:
        raise ValueError(f"{argument} must be a file descriptor, a C int, not {number}")
    return number


def listed(values: Iterable[Item], argument: str, what: str) -> tuple[Item, ...]:
    """*values* as a tuple; TypeError that names *argument* for what cannot be iterated over."""
    try:
        return tuple(values)
    except TypeError:
        raise TypeError(f"{argument} must be {what}, not {values!r}") from None
