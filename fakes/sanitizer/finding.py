"""What a finding is, and the sentences for each kind of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from dmasync import Step
from dmasync.fakes.journal import Frame
from dmasync.fakes.sanitizer.frames import is_machinery


class Kind(NamedTuple):
    """One kind of finding: what would happen on a non-coherent machine, and how to fix it, a sentence each."""

    consequence: str
    fix: str


KINDS: Final[dict[str, Kind]] = {
    "end-without-start": Kind(
        "Nothing was handed to the CPU, so what it read before this END may be stale, and an END that belongs to"
        " another window writes back or gives up bytes that are still in use.",
        "Send END exactly once for every START that succeeded, and none for a START that failed.",
    ),
    "start-never-ended": Kind(
        "What the CPU wrote may stay in its cache forever, so the device works on old bytes, and later cache"
        " evictions overwrite what the device writes.",
        "End the window on every path, errors too: a with block does; and repeat an END that was answered EINTR or"
        " EAGAIN.",
    ),
    "end-with-other-access": Kind(
        "START fetches for READ and END writes back for WRITE: without that flag at the step that needs it, the CPU"
        " or the device sees old bytes, and with a flag too many only time is lost.",
        "Give START and END of one window the same access flags.",
    ),
    "window-dropped": Kind(
        "The END comes when Python gets rid of the syncer, at once or much later, and until then the device sees old"
        " bytes.",
        "Open the window in a with block, or call end() on every path; a reference to a syncer is no window.",
    ),
    "write-in-read-window": Kind(
        "A READ window writes nothing back: the device never sees these bytes, and the next START for READ throws"
        " them away.",
        "Open the window for READ_WRITE, or for WRITE if nothing is read.",
    ),
    "stale-read": Kind(
        "A WRITE window need not fetch what the device wrote: the CPU reads old bytes out of its cache.",
        "Open the window for READ_WRITE where the bytes are read as well.",
    ),
    "partial-write": Kind(
        "Caches write whole lines back: beside the bytes that the CPU wrote in a WRITE window, the END wrote stale"
        " ones over what the device had written, and the device has read them now.",
        "Open the window for READ_WRITE where only parts of the device's data are replaced.",
    ),
    "access-outside-window": Kind(
        "Outside a window the CPU may see stale bytes, and what it writes may reach the device late or never.",
        "Do every access between the START and the END of a window over this very buffer.",
    ),
    "device-access-in-window": Kind(
        "While the CPU has the buffer, the device sees bytes that are not written back yet, and what it writes may"
        " be missed by the CPU or overwritten by its cache.",
        "End the window before the device is started, and start the next one when the device has finished.",
    ),
    "sync-on-closed-fd": Kind(
        "The kernel refuses it, or, once the number is used again, syncs another file: this buffer is not synced.",
        "Keep the descriptor open until the window has ended, and pass descriptors between processes over a socket.",
    ),
    "foreign-window": Kind(
        "The window was opened by another process, which will end it as well: one of the two ENDs hands the buffer"
        " back while the other process still uses it.",
        "End a window in the process that opened it; after a fork, open windows anew.",
    ),
    "double-close": Kind(
        "By the time of the second close the number may belong to another file, which is closed instead.",
        "Let one owner close the descriptor, once.",
    ),
    "leaked-fd": Kind(
        "The buffer's memory stays allocated as long as the process lives, and allocation fails some day.",
        "Close it, or use it in a with block.",
    ),
    "leaked-mapping": Kind(
        "The mapping keeps the buffer's memory, and whoever still reads it does so outside any window.",
        "Close the mapping when its last user is done.",
    ),
    "memfd-closed-while-mapped": Kind(
        "On any machine: Linux before 6.11 (in updates of 6.6 before 6.6.87) loses count of such pages"
        ' ("BUG: Bad page cache") and gives them to others'
        " while the mapping still shows them, so wrong bytes are read, and strangers' memory is overwritten.",
        "Close the memfd before the udmabuf is mapped, as DmaBufAllocator does, or after it has been unmapped.",
    ),
    "racing-windows": Kind(
        "A START for READ throws the CPU's cached lines away, and with them what the other window has written but"
        " not ended.",
        "Let windows over one buffer, of which one writes and one reads, follow each other, or use one window.",
    ),
}


_NEVER_WRITTEN = "The END writes nothing back: the device sees old bytes where the CPU wrote in this window."
_SAME = "Give START and END of one window the same access flags"

OTHER_ACCESS: Final[dict[tuple[str, str], Kind]] = {
    ("READ", "WRITE"): Kind(
        "Nothing is lost: the START has fetched, and the END also writes back, which a window for READ need not.",
        f"{_SAME}: READ, or READ_WRITE if it writes as well.",
    ),
    ("READ", "READ_WRITE"): Kind(
        "Nothing is lost: the END also writes back, which a window for READ need not and which takes time.",
        f"{_SAME}: READ, or READ_WRITE if it writes as well.",
    ),
    ("WRITE", "READ"): Kind(_NEVER_WRITTEN, f"{_SAME}: WRITE, or READ_WRITE if it reads as well."),
    ("WRITE", "READ_WRITE"): Kind(
        "Nothing that was written is lost: the END writes all of it back; but the START for WRITE need not fetch, so"
        " what the CPU read in this window may be stale.",
        f"{_SAME}: WRITE, or READ_WRITE if it reads as well.",
    ),
    ("READ_WRITE", "READ"): Kind(_NEVER_WRITTEN, f"{_SAME}: READ_WRITE, or READ if it only reads."),
    ("READ_WRITE", "WRITE"): Kind(
        "Nothing is lost: the START has fetched, and the END writes back all that the CPU wrote.",
        f"{_SAME}: READ_WRITE, or WRITE if it only writes.",
    ),
}
"""Names of START's and END's access, where they differ: START fetches for READ, END writes back for WRITE (6.12, asked
under ``swiotlb=force``)."""

READ_ONLY: Final[dict[str, Kind]] = {
    "start-never-ended": Kind(
        "No byte is lost, as a window for READ has nothing to write back; but what is read in it later on may be stale:"
        " no START fetches what the device has written meanwhile.",
        KINDS["start-never-ended"].fix,
    ),
    "window-dropped": Kind(
        "The END comes when Python gets rid of the syncer, at once or much later. No byte is lost, as a"
        " window for READ has nothing to write back, but what is read meanwhile may be stale.",
        KINDS["window-dropped"].fix,
    ),
}
"""For windows for READ, whose END has nothing to write back."""

KEPT_VIEW: Final = Kind(
    "What was made from a window's view keeps the buffer's memory, and whoever reads it does so outside any window.",
    "Let go of it before the window ends, or keep a copy of the bytes, as bytes(view) is.",
)
"""For a mapping that lives on because of a slice, a cast or an array."""


class Trace(NamedTuple):
    """Where something happened: what, and the call stack, innermost frame first."""

    what: str
    stack: tuple[Frame, ...]

    def __str__(self) -> str:
        lines = [f"  {self.what}"]
        shown = [frame for frame in self.stack if not is_machinery(frame[0])]
        for file, line, function in (shown or list(self.stack))[:6]:
            lines.append(f"    {file}{f':{line}' if line > 0 else ''} in {function}")  # 0: without debugging data
        if not self.stack:
            lines.append("    (no stack was recorded)")
        return "\n".join(lines)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: which buffer, at START or END, where, and which bytes."""

    kind: str
    """One of KINDS."""
    buffer: int | None
    """The dma-buf's identity in the journal; None where it is not about one."""
    step: Step | None
    """The step that is missing, extra or wrong."""
    message: str
    """What happened, in one sentence."""
    traces: tuple[Trace, ...]
    """Both places: of the two steps, or of the window and of the access."""
    ranges: tuple[tuple[int, int], ...] = ()
    """(offset, length) of the bytes concerned, where the memory was watched."""
    times: int = 1
    """How often it happened at this place."""
    told: Kind | None = None
    """The sentences for this case, where those of its kind in KINDS say less."""
    name: str = ""
    """The buffer's, where somebody gave it one."""

    @property
    def consequence(self) -> str:
        """What would happen on a machine whose devices do not see the CPU's caches."""
        return (self.told or KINDS[self.kind]).consequence

    @property
    def fix(self) -> str:
        """How to fix it."""
        return (self.told or KINDS[self.kind]).fix

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        buffer = "" if self.buffer is None else f" [buffer {self.buffer}{name}]"
        again = f" ({self.times} times)" if self.times > 1 else ""
        lines = [f"{self.kind}{buffer}: {self.message}{again}"]
        if self.ranges:
            spans = ", ".join(f"{offset} to {offset + length - 1}" for offset, length in self.ranges[:6])
            more = f" and {len(self.ranges) - 6} more ranges" if len(self.ranges) > 6 else ""
            lines.append(f"  bytes: {spans}{more}")
        lines += [str(trace) for trace in self.traces]
        lines.append(f"  on a non-coherent machine: {self.consequence}")
        lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)
