"""Walks through a page as its reader does: saves files, runs Python, types commands, compares what is printed.

A Python block below ``<!-- file: NAME -->`` is saved under that name; any other is executed, all of a page in one
namespace. A ``console`` block is typed as far as it gives ``python`` or ``pytest`` such a file, and must print what
stands below the command. ``<!-- file: NAME, which fails -->`` is a test that must fail. Such comments show neither on
the site nor where the source is read. Sybil finds the blocks.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from sybil import Document, Example, Sybil
from sybil.parsers.myst import CodeBlockParser

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
# Written from tests/gallery/bugs.py and compared with it there.
WITHOUT_PROGRAMS = {ROOT / "docs/explanation/gallery.md"}
FILE = re.compile(r"<!-- file: (\S+?)(, which fails)? -->\Z")
NEEDS_VM = re.compile(r"^<!-- needs-vm -->\s+^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    """The page's name in a test's id."""
    return str(page.relative_to(ROOT))


def walk(page: Path, folder: Path) -> int:
    """Do what *page* says in *folder*; return how many blocks there were. AssertionError where it is wrong."""
    reader = Reader(folder)
    sybil = Sybil(
        [
            CodeBlockParser("python", reader.read_python),
            CodeBlockParser("console", reader.type_commands),
            CodeBlockParser("text", reader.compare_text),
        ],
        path=str(page.parent),
    )
    document: Document = sybil.parse(page)
    for example in document.examples():
        example.evaluate()
    reader.run_what_nobody_ran()
    return reader.blocks


class Reader:
    """One reader in one folder: what was printed last, and whether the last test was meant to fail."""

    def __init__(self, folder: Path) -> None:
        self.blocks = 0
        self._folder = folder
        self._printed = ""
        self._saved: set[str] = set()
        self._meant_to_fail: set[str] = set()
        self._not_run: list[str] = []

    def read_python(self, example: Example) -> None:
        """Save a file and try it if it is a test, or execute the block."""
        if _before(example).endswith("<!-- needs-vm -->"):
            return
        self.blocks += 1
        file = FILE.search(_before(example))
        if file is None:
            exec(compile(str(example.parsed), str(example.path), "exec"), example.namespace)  # noqa: S102 - our own pages
            return
        name = file[1]
        self._saved.add(name)
        (self._folder / name).write_text(str(example.parsed), encoding="utf-8")
        if file[2]:
            self._meant_to_fail.add(name)
        else:
            self._meant_to_fail.discard(name)
        if name.startswith("test_"):
            self._not_run.append(name)

    def run_what_nobody_ran(self) -> None:
        """Run the tests that the page shows and does not tell its reader to run."""
        if self._not_run:
            self._type(shlex.join(["pytest", "-q", *self._not_run]))

    def type_commands(self, example: Example) -> None:
        """Type the commands that need nothing but Python, and compare what they print with what the page says."""
        for command, printed in commands_of(str(example.parsed)):
            words = command.split()
            if words[0] in ("python", "pytest") and self._saved.intersection(words):
                self.blocks += 1
                self._type(command)
                assert printed in self._printed, self._printed

    def compare_text(self, example: Example) -> None:
        """What the page shows of a report stands in it."""
        if self._printed:
            for line in str(example.parsed).splitlines():
                assert line in self._printed, self._printed

    def _type(self, command: str) -> None:
        words = shlex.split(command)
        self._not_run = [name for name in self._not_run if name not in words]
        words = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
        done = subprocess.run(words, cwd=self._folder, capture_output=True, text=True, timeout=120)
        self._printed = done.stdout + done.stderr
        assert done.returncode == (1 if self._meant_to_fail.intersection(words) else 0), self._printed


def _before(example: Example) -> str:
    return str(example.document.text[: example.region.start]).rstrip()


def commands_of(block: str) -> list[tuple[str, str]]:
    """The commands of a ``console`` block, whole where they go over several lines, each with what it prints."""
    found: list[tuple[str, str]] = []
    continued = False
    for line in block.splitlines():
        if continued:
            command, printed = found[-1]
            found[-1] = (command.removesuffix("\\") + line.strip(), printed)
            continued = line.endswith("\\")
        elif line.startswith("$ "):
            found.append((line[2:], ""))
            continued = line.endswith("\\")
        elif found:
            command, printed = found[-1]
            found[-1] = (command, f"{printed}\n{line}".strip())
    return found
