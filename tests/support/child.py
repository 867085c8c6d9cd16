"""A forked child of the test's own process, which answers one question."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable


def holds_in_a_child(check: Callable[[], bool]) -> bool:
    """What *check* says in a forked child; False if it raises there."""
    with warnings.catch_warnings():
        # Libraries that other tests have loaded run threads of their own, which a child does not need.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if not pid:  # pragma: no cover - another process
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
