"""Who is behind the call that this thread makes for another process."""

from __future__ import annotations

import threading
from typing import Protocol

from dmasync.fakes.journal import Frame
from dmasync.fakes.kernel.waiting import ask_for_interruptions

_current = threading.local()


class Caller(Protocol):
    """A thread of another process that waits for its answer."""

    @property
    def thread(self) -> int:
        """Its number, as gettid() returns it."""

    def stack(self) -> tuple[Frame, ...]:
        """Where it is, innermost frame first; empty where nobody can tell."""

    def interrupted(self) -> bool:
        """Whether a signal waits for it, or it has gone."""

    def need_number(self) -> None:
        """EMFILE where its process can have no descriptor more."""


def serve(caller: Caller | None) -> None:
    """What this thread does from now on it does for *caller*."""
    _current.caller = caller
    ask_for_interruptions(None if caller is None else caller.interrupted)


def current() -> Caller | None:
    """Whom this thread serves."""
    return getattr(_current, "caller", None)


def thread() -> int:
    """The calling thread's number; this one's where it serves nobody."""
    caller = current()
    return threading.get_native_id() if caller is None else caller.thread


def stack() -> tuple[Frame, ...]:
    """The caller's stack; empty where this thread serves nobody."""
    caller = current()
    return () if caller is None else caller.stack()
