"""The right to an open file, which its owner has and every window that is open on it."""

from __future__ import annotations

import sys

from dmasync.backend import Backend
from dmasync.interrupts import guarded


class Share:
    """The right to the open file: its owner holds one reference, each open window another.

    The number is closed when the last of them lets go, so that the END of a window whose buffer was closed under it
    reaches its own file and never one that got the number next. References are what counts because they cost a
    window nothing: it has to store something to know that it is open. A share that is not ``owned`` closes nothing.
    """

    __slots__ = ("backend", "fd", "owned", "rest")

    def __init__(self, backend: Backend, fd: int) -> None:
        self.owned = False
        self.rest: Share | None = None
        self.backend = backend
        self.fd = fd

    @guarded
    def close(self) -> None:
        """Close the number, if it is owned and was not closed before."""
        try:
            if self.rest is not None:
                self.rest.close()
            if self.owned:
                closing = map(self.backend.close, (self.fd,))
                # Forgotten first: whatever close() raises, the number may be another file's by now.
                self.owned = False
                for _ in closing:  # pragma: no branch - it yields once
                    break
        except BaseException:
            if self.owned:  # only a signal gets here: tests/unit/test_between_calls.py
                self.close()
            raise

    @guarded
    def __del__(self) -> None:
        try:
            if sys.getrefcount(self) > _FINALIZED_ALONE:
                self._leave()
            else:
                self.close()
        except AttributeError:
            pass  # never got through __init__
        except BaseException:
            self._leave()  # in doubt whether it is alone
            raise

    @guarded
    def _leave(self) -> None:
        """Garbage collection finalizes a cycle in any order, and a window of this one may have its END still before it.

        What is closed then is another share, which nobody but this one holds: it goes after all finalizers have run.
        """
        try:
            if self.owned:
                self.rest = Share(self.backend, self.fd)
                # No call in between: it never has two owners, nor none.
                self.rest.owned = True
                self.owned = False
        except BaseException:
            if self.owned:  # pragma: no branch - only a signal gets here: tests/unit/test_between_calls.py
                self._leave()
            raise


class _Finalized:
    """Tells what getrefcount says in ``__del__`` of an object that nobody holds."""

    def __del__(self) -> None:
        global _FINALIZED_ALONE
        _FINALIZED_ALONE = sys.getrefcount(self)


_FINALIZED_ALONE = 0
_Finalized()


def _references_of_a_local() -> int:
    local = object()
    return sys.getrefcount(local)


ALONE = _references_of_a_local()
"""What getrefcount says of an object that one local variable holds."""
