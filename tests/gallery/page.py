"""Writes docs/explanation/gallery.md: the programs as they stand in bugs.py, the findings as the sanitizer words them.

``python -m tests.gallery.page`` writes it; a test compares.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

from tests.gallery.bugs import BUGS, Bug, NaiveSyncer
from tests.gallery.lab import Lab, Outcome, run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "gallery.md"

_HEAD = """# A gallery of sync bugs

Bugs as they are written in real programs. Each runs on any machine, over `FakeBackend(coherent=False)`: the CPU and a
device see a buffer through two views, and cache lines move between them as START and END say, and whenever a seeded
adversary likes. The sanitizer names what is wrong; the fixed program below it gets no finding.

On a coherent machine, such as a PC, the bytes of those marked *cache only* come out right: no test there can see them.

In the programs `lab.sync` is the bare ioctl, `lab.view` maps a buffer, `lab.device` does DMA. They stand in
`tests/gallery/bugs.py`, and this page is written by `python -m tests.gallery.page`.
"""


def page() -> str:
    """The whole text."""
    return "\n".join([_HEAD, *(_picture(number, bug) for number, bug in enumerate(BUGS, 1))])


def _picture(number: int, bug: Bug) -> str:
    mark = ", cache only" if bug.cache_only else ""
    return (
        f"## {number}. {bug.title}\n\n{bug.story} Finding: `{bug.finding}`{mark}.\n\n"
        f"```python\n{_source(bug.buggy)}```\n\n```text\n{_finding(bug)}\n```\n\n"
        f"Fixed:\n\n```python\n{_source(bug.mended)}```\n"
    )


def _source(program: Callable[[Lab], Outcome]) -> str:
    text = inspect.getsource(program)
    return inspect.getsource(NaiveSyncer) + "\n\n" + text if "NaiveSyncer" in text else text


def _finding(bug: Bug) -> str:
    _, findings = run(bug.buggy)
    text = str(next(finding for finding in findings if finding.kind == bug.finding))
    # Line numbers of other files, and paths of this machine, are not the picture's.
    lines = [line for line in text.splitlines() if not re.match(r"    .*\d+ in ", line) or "bugs.py" in line]
    return re.sub(r"    /.*/bugs\.py:\d+ in", "    bugs.py in", "\n".join(lines))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
