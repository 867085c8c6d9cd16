"""What a benchmark row says about itself: the contract between the suites that measure and the gate.

A run is one pytest-benchmark JSON file. Each benchmark's ``extra_info`` holds the facts below
(:meth:`RowFacts.as_extra_info` writes them, :meth:`RowFacts.from_extra_info` reads them), and the file's
top level holds one block :data:`RUN_BLOCK` about the run as a whole (:class:`RunFacts`). Files that other
projects made have neither: their rows are wall rows in seconds, matched by full name.

Times in the file are seconds per operation, as pytest-benchmark writes them. On the exact clock a guest
nanosecond is an instruction, so seconds times 1e9 are instructions per operation.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dmasync.harness.old_names import TARGET as OLD_TARGET
from dmasync.harness.old_names import target_of, with_old_target

INSTRUCTIONS = "instructions"
"""Unit of the exact clock (QEMU's instruction counter): judged by comparing integers."""
NANOSECONDS = "ns"
"""Unit of the wall clock: judged with statistics."""
SECONDS = "seconds"
"""Unit of rows that say nothing about themselves: wall clock, other projects' files."""
UNITS = (INSTRUCTIONS, NANOSECONDS, SECONDS)

TARGETS = ("hardware", "vm", "fake")
"""Where a run was measured."""

NULL_STEP = "null"
"""``step`` of the row that makes the same system call without a sync: what is left is Python and the system
call entry. The kernel's part of a row is its cost less ``calls`` times that row's cost of one call."""

PAIR, START, END, FIRST_START = "pair", "start", "end", "first-start"
"""The usual values of ``step``: START and END, one of them alone, the START that builds the page table."""

COARSEST = 30
"""Percent: a row that moves by more where nothing changed is no row."""

COUNTS = "instructions"
"""Beside the facts, where the unit is instructions: the rounds as they were counted, whole numbers per operation."""

BOUNCED = "swiotlb=force"
BOUNCE_LIMIT = f"{BOUNCED}: a bounce buffer holds 256 KiB at most, and the pieces of this buffer are larger"
"""Why vgem cannot import a buffer of a heap, whose pieces are larger, where all is to be bounced."""

RUN_BLOCK = "dmasync"
RUN_SCHEMA = 1


@dataclass(frozen=True)
class RowFacts:
    """What was measured, and where. Rows that differ in one of :data:`COMPARED_FACTS` are never compared.

    ``size`` is in bytes, None where a row has no buffer. ``attached`` tells whether a device has mapped the buffer.
    ``calls`` is the number of system calls in one operation (2 for a pair). ``exact`` says that the unit is
    instructions, and every round took the same number, which every boot will find again. ``compiled`` says that
    dmasync's C extension was in use; files that do not tell are older than it. ``resolution`` is how far a row that
    is not exact moves from boot to boot where nothing changed, in percent of its cost: what the page allocator and
    threads do to it.
    """

    unit: str = SECONDS
    target: str | None = None
    arch: str | None = None
    kernel: str | None = None
    python: str | None = None
    compiled: bool = False
    provider: str | None = None
    size: int | None = None
    access: str | None = None
    api: str | None = None
    step: str | None = None
    attached: bool | None = None
    calls: int = 1
    exact: bool = False
    resolution: float = 0.0

    def as_extra_info(self) -> dict[str, object]:
        """The dictionary to put into ``benchmark.extra_info``."""
        return with_old_target(asdict(self))

    @classmethod
    def from_extra_info(cls, extra_info: Mapping[str, Any]) -> RowFacts:
        """Read what :meth:`as_extra_info` wrote; a row without ``unit`` and ``target`` is another project's.

        Unknown keys are left alone. ValueError names a fact that is wrong.
        """
        if "unit" not in extra_info or not {"target", OLD_TARGET} & extra_info.keys():
            return cls()
        told = {**extra_info, "target": target_of(extra_info)}
        known = {name: told[name] for name in _TYPES if name in told}
        for name, value in known.items():
            if not _fits(value, _TYPES[name]):
                raise ValueError(f"extra_info {name!r} is {_shown(value)}")
        if known.get("unit", SECONDS) not in UNITS:
            raise ValueError(f"extra_info 'unit' is {_shown(known['unit'])}, expected one of {', '.join(UNITS)}")
        if known["target"] is not None and known["target"] not in TARGETS:
            raise ValueError(f"extra_info 'target' is {_shown(known['target'])}, expected one of {', '.join(TARGETS)}")
        if not 0 <= known.get("resolution", 0) <= COARSEST:
            raise ValueError(
                f"extra_info 'resolution' is {_shown(known['resolution'])}, expected 0 to {COARSEST} percent"
            )
        return cls(**known)


COMPARED_FACTS = (
    "unit", "target", "arch", "python", "compiled", "size", "provider", "access", "api", "step", "attached", "calls",
)  # fmt: skip
"""Facts that must be equal for two rows to be compared. Not the kernel: that is what a gate compares."""

_TYPES: dict[str, tuple[type, ...]] = {
    "unit": (str,),
    "target": (str, type(None)),
    "arch": (str, type(None)),
    "kernel": (str, type(None)),
    "python": (str, type(None)),
    "compiled": (bool,),
    "provider": (str, type(None)),
    "size": (int, type(None)),
    "access": (str, type(None)),
    "api": (str, type(None)),
    "step": (str, type(None)),
    "attached": (bool, type(None)),
    "calls": (int,),
    "exact": (bool,),
    "resolution": (int, float),
}
if set(_TYPES) != {one.name for one in fields(RowFacts)}:  # a fact that is written must be read
    raise AssertionError("RowFacts and its types have come apart")


@dataclass(frozen=True)
class NotMeasured:
    """A row that the suite knows and could not measure, with the reason (an errno's text, a missing node)."""

    fullname: str
    reason: str


@dataclass(frozen=True)
class RunFacts:
    """The block :data:`RUN_BLOCK` of a run file: where the run came from, and what it could not measure."""

    kernel: str | None = None
    kernel_config_digest: str | None = None
    kernel_command_line: str | None = None
    target: str | None = None
    not_measured: tuple[NotMeasured, ...] = field(default=())
    kernel_append: tuple[str, ...] | None = None
    """The kernel arguments that whoever measured asked for; None where the file does not tell."""
    kernel_warnings: tuple[str, ...] = ()
    """What the kernel warned of while the suites ran, each with its stack."""

    def as_block(self) -> dict[str, object]:
        """The value for ``output_json["dmasync"]`` in pytest-benchmark's hook for updating its JSON."""
        return {
            "schema": RUN_SCHEMA,
            **with_old_target(asdict(self)),
            "not_measured": [asdict(row) for row in self.not_measured],
            "kernel_warnings": list(self.kernel_warnings),
            "kernel_append": None if self.kernel_append is None else list(self.kernel_append),
        }

    @classmethod
    def from_block(cls, block: Mapping[str, Any]) -> RunFacts:
        """Read what :meth:`as_block` wrote; ValueError names what is wrong."""
        schema = block.get("schema")
        if schema != RUN_SCHEMA:
            raise ValueError(f"block {RUN_BLOCK!r} has schema {_shown(schema)}, this version reads {RUN_SCHEMA}")
        texts = {}
        told = {**block, "target": target_of(block)}
        for name in ("kernel", "kernel_config_digest", "kernel_command_line", "target"):
            texts[name] = told.get(name)
            if not _fits(texts[name], (str, type(None))):
                raise ValueError(f"block {RUN_BLOCK!r} has {name!r} = {_shown(texts[name])}")
        append, warned = block.get("kernel_append"), block.get("kernel_warnings", [])
        for name, words in (("kernel_append", append or []), ("kernel_warnings", warned)):
            if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
                raise ValueError(f"block {RUN_BLOCK!r} has {name!r} = {_shown(words)}, expected a list of texts")
        return cls(
            **texts,
            not_measured=tuple(_not_measured(block.get("not_measured", []))),
            kernel_append=None if append is None else tuple(append),
            kernel_warnings=tuple(warned),
        )


def _not_measured(rows: object) -> Iterable[NotMeasured]:
    if not isinstance(rows, list):
        raise ValueError(f"block {RUN_BLOCK!r} has 'not_measured' = {_shown(rows)}, expected a list")
    for row in rows:
        if not (isinstance(row, dict) and isinstance(row.get("fullname"), str) and isinstance(row.get("reason"), str)):
            raise ValueError(f"block {RUN_BLOCK!r} has {_shown(row)} in 'not_measured'")
        yield NotMeasured(row["fullname"], row["reason"])


def is_named(fullname: str, glob: str) -> bool:
    """Whether *glob* means the row: ``*`` and ``?`` are special; brackets, of which such names are full, are not."""
    return fnmatch.fnmatchcase(fullname, glob.replace("[", "[[]"))


def _fits(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int with more digits than Python prints
        text = "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
