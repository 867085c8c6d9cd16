"""What the guest's kernel said while the command ran: warnings, oopses, taints, whom it killed for want of memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = "dmasync: the command begins"
"""The guest writes it to the kernel's log: what stands before it belongs to the boot."""
_TAINTS = "PFSRMBUDAWCIOELKXTNJ"
"""The kernel's letters of its taint flags, bit 0 first (Documentation/admin-guide/tainted-kernels.rst)."""
_SERIOUS = "MBDWLJ"
"""Those that something going wrong sets; others say what was loaded."""
_SPLAT = re.compile(
    r"WARNING: |\bBUG: |kernel BUG at |Oops|general protection fault|Internal error: |Unable to handle kernel "
    r"|UBSAN: |INFO: task .* blocked|INFO: rcu_|INFO: possible |refcount_t: |KASAN: |KFENCE: "
)
_STAMP = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\] ?(?:\[ *[CT]\d+\] ?)?")
_OUT_OF_MEMORY = re.compile(r"[Oo]ut of memory.*: Killed process \d+ \(([^)]*)\)")
_END = "---[ end trace"
_GOES_ON = re.compile(r"\s|[A-Z][\w ]*:|-{3,}|={3,}|[a-z].*[:,.]$|#\d|->|\d+\.\d+\S* #\d|$")
"""How the lines of a report look that has no end of its own: registers, held locks, calls."""
_BEGINNINGS = ("------------[ cut here", "WARNING: ", "======")
"""What another report begins with: an oops has several lines that could begin one, these are not among them."""
_MOST_LINES = 60
_MOST_SPLATS = 20


@dataclass(frozen=True)
class KernelLog:
    """What the kernel said between the command's start and its end."""

    splats: tuple[str, ...] = ()
    """Each warning with its stack, first line first."""
    tainted: str = ""
    """The letters of the taint flags that were set meanwhile."""
    killed: tuple[str, ...] = ()
    """Names of the processes that the OOM killer ended."""

    @property
    def warning(self) -> str:
        """The first warning's line, or the taint; empty where the kernel had nothing to complain of."""
        if self.splats:
            more = f" and {len(self.splats) - 1} more" if len(self.splats) > 1 else ""
            return self.splats[0].splitlines()[0] + more
        serious = "".join(letter for letter in self.tainted if letter in _SERIOUS)
        return f"tainted {serious}" if serious else ""


def kernel_log(text: str, before: str, after: str) -> KernelLog:
    """Read the kernel's log *text* and its taint flags *before* and *after* the command, as the kernel prints them."""
    lines = text.replace("\r", "").splitlines()
    marks = [at for at, line in enumerate(lines) if MARK in line]
    told = [_STAMP.sub("", line) for line in lines[marks[-1] + 1 if marks else 0 :]]
    killed = [match[1] for line in told if (match := _OUT_OF_MEMORY.search(line))]
    return KernelLog(tuple(_splats(told)), _letters(_flags(after) & ~_flags(before)), tuple(dict.fromkeys(killed)))


def _splats(lines: list[str]) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(lines) and len(found) < _MOST_SPLATS:
        if not _SPLAT.search(lines[at]):
            at += 1
            continue
        rest = lines[at : at + _MOST_LINES]
        next_one = [number for number, line in enumerate(rest) if number and line.startswith(_BEGINNINGS)]
        rest = rest[: next_one[0]] if next_one else rest
        ends = [number for number, line in enumerate(rest) if line.startswith(_END)]
        length = ends[0] + 1 if ends else _unended(rest)
        found.append("\n".join(rest[:length]))
        at += length
    return found


def _unended(lines: list[str]) -> int:
    """How many of *lines* a report takes that has no end of its own."""
    return next((number for number, line in enumerate(lines) if number and not _GOES_ON.match(line)), len(lines))


def _flags(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _letters(flags: int) -> str:
    return "".join(letter for bit, letter in enumerate(_TAINTS) if flags >> bit & 1)
