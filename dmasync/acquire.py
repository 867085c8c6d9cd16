"""File descriptors on their way to an owner: none is lost to an exception, not even to a signal handler's."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

from dmasync.backend import Backend
from dmasync.descriptor import Descriptor
from dmasync.interrupts import guarded


class Acquired:
    """The descriptors that a half-done piece of work has opened; :meth:`close` closes those nobody was given.

    Used as ``try: … finally: acquired.close()``.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._fds: list[int] = []

    def get(self, call: Callable[..., Any], *arguments: Any) -> int:
        """The descriptor that ``call(*arguments)`` returns, noted in the same breath; EINTR is tried again."""
        fds = self._fds
        while True:
            try:
                # list.extend appends in C what map fetches in C: no exception can come in between.
                fds.extend(map(call, *((argument,) for argument in arguments)))
                return fds[-1]
            except OSError as error:
                if error.errno != errno.EINTR:
                    raise

    def get_from(self, argument: bytearray, offset: int, call: Callable[..., Any], *arguments: Any) -> int:
        """The descriptor that ``call(*arguments, argument)`` writes at *offset* bytes of *argument*; else as get()."""
        fds = self._fds
        with memoryview(argument)[offset : offset + 4].cast("i") as written:
            while True:
                try:
                    # As in dmasync.interrupts: the body is reached if and only if the call succeeded, and its first
                    # statement is one C call, list.__iadd__.
                    for _ in map(call, *((value,) for value in (*arguments, argument))):
                        fds += written
                    return fds[-1]
                except OSError as error:
                    if error.errno != errno.EINTR:
                        raise

    def give(self, descriptor: Descriptor) -> None:
        """Let *descriptor* own its number from now on."""
        share = descriptor.share
        assert share is not None  # noqa: S101 - new, nobody can have closed it
        # In this order, with no call but the C method between: it never has two owners, nor none.
        share.owned = True
        self._fds.remove(descriptor.fd)

    @guarded
    def close(self) -> None:
        """Close what is left."""
        try:
            if self._fds:
                for _ in map(self._backend.close, _popping(self._fds)):
                    pass
        except BaseException:
            if self._fds:  # pragma: no branch - only a signal gets past
                self.close()
            raise


def _popping(fds: list[int]) -> Iterator[int]:
    """Take the numbers off the list, last first, in C, each at the moment it is used."""
    end = -1
    if fds[0] != end:
        fds.insert(0, end)
    return iter(fds.pop, end)


def retried(call: Callable[..., Any], *arguments: Any) -> Any:
    """``call(*arguments)``, again for as long as a signal interrupts it."""
    while True:
        try:
            return call(*arguments)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
