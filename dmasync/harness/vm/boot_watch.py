"""Whether a guest that has not started yet still gets on: by what it printed and the processor time that it used.

The clock alone would not do. On a busy machine a guest gets a small part of a processor, and a boot that takes ten
seconds on an idle one takes minutes.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path

LOOK_SECONDS = 1.0
PROC = Path("/proc")


class BootWatch:
    """Watches the process *pid*, with all that it started, and the file *console*.

    The boot is overdue when it used *limit* seconds of processor time since it last printed something, and also when
    for *limit* seconds of the clock it neither printed nor used any.
    """

    def __init__(self, pid: int, console: Path, limit: float, now: float) -> None:
        self._pid, self._console, self._limit = pid, console, limit
        self._looked = self._moved = now
        self._printed = 0
        self._used = self._used_at_print = 0.0

    def is_overdue(self, now: float) -> bool:
        """Tell, at *now* (of ``time.monotonic()``), whether the boot has stopped getting on."""
        if now - self._looked >= LOOK_SECONDS or now - self._moved > self._limit:
            self._look(now)
        return now - self._moved > self._limit or self._used - self._used_at_print > self._limit

    def _look(self, now: float) -> None:
        self._looked = now
        printed = self._console.stat().st_size
        used = max(self._used, processor_seconds(self._pid))
        if printed != self._printed or used > self._used:
            self._moved = now
        self._used = used
        if printed != self._printed:
            self._printed, self._used_at_print = printed, used


def processor_seconds(pid: int) -> float:
    """Return the processor time, in seconds, that the process *pid* and its descendants have used so far."""
    used: dict[int, int] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            # proc_pid_stat(5): the name, in parentheses, may hold anything; then state, parent and so on.
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children[int(fields[1])].append(int(folder.name))
            used[int(folder.name)] = sum(int(field) for field in fields[11:15])
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        total += used.get(one, 0)
        waiting += children[one]
    return total / os.sysconf("SC_CLK_TCK")
