"""What ``--help`` shows below the options of each command: calls to copy, and what the exit status says."""

from __future__ import annotations

import argparse

EXAMPLES = {
    "probe": ("dmasync probe", "dmasync probe --json"),
    "vm": ("dmasync vm -- uname -r", "dmasync vm --exact --append swiotlb=force -- python3 program.py"),
    "bench": ("dmasync bench", "dmasync bench --exact --quick -o base.json"),
    "gate": (
        "dmasync gate base.json candidate.json",
        "dmasync gate --append-candidate swiotlb=force",
        "dmasync gate --bisect good.json --kernel . --build 'make -s bzImage'",
    ),
    "history": (
        "dmasync history list",
        "dmasync history nightly --report night.html",
        "dmasync history store fleet",
        "dmasync history moved fleet",
    ),
    "report": ("dmasync report base.json candidate.json -o report.html", "dmasync report --fleet fleet -o fleet.html"),
    "model": ("dmasync model run.json --frame 1920x1080 --format NV12 --fps 30",),
    "run": ("dmasync run --check -- ./camera", "dmasync run --fault 'storm(EINTR, 3)' -- ./camera"),
    "record": ("dmasync record -o trace.jsonl -- python camera.py",),
    "replay": ("dmasync replay trace.jsonl",),
}
_USUAL = "0 good; 2 input or arguments cannot be used; 4 what was asked for is not here"
STATUSES = {
    "probe": "0 a provider can be opened, or a virtual machine can be booted; 4 neither",
    "vm": "the command's; 2 unusable arguments, 3 the machine failed, 4 this host lacks a part of it",
    "bench": "0 measured; 1 a row failed; 2 unusable arguments; 3 nothing was measured; 4 the target is not here",
    "gate": (
        "0 good; 1 regressed; 2 unusable input or arguments; 3 cannot judge; 4 this host lacks something. "
        "With --bisect git's: 0 good, 1 bad, 125 skip, 128 stop"
    ),
    "history": f"{_USUAL}; series, board: 3 nothing is known of it; nightly: as dmasync gate",
    "report": "0 the page was written, whatever it says; 2 input or arguments cannot be used; 3 nothing to draw",
    "model": "0 good; 1 off by more than --within; 2 unusable input or arguments; 3 no rows to fit",
    "run": (
        "the program's where that is not 0; 1 a finding, 3 a call that is not modelled, 2 unusable arguments, "
        "4 not possible here, 124 after --timeout"
    ),
    "record": "the program's, 128 + N if signal N ended it; 2 unusable arguments",
    "replay": "0 good; 1 a difference or a finding; 2 unusable input or arguments; 3 no call could be played",
}


class HelpFormatter(argparse.HelpFormatter):
    """Leaves the lines of the text below the options as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            part if part.startswith("examples:") else super(HelpFormatter, self)._fill_text(part, width, indent)
            for part in paragraphs
        )


def epilog(command: str, own: str | None) -> str:
    """The text below the options of *command*, after what it says itself."""
    examples = "examples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[command])
    return "\n\n".join(part for part in (own, examples, f"exit status: {STATUSES[command]}") if part)
