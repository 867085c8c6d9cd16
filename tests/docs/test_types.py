"""Every Python program of README, the documentation and the examples passes ``mypy --strict``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dmasync
from tests.docs.pages import PAGES, ROOT, WITHOUT_PROGRAMS

pytestmark = pytest.mark.nightly  # mypy takes its time: `tox run -e types` runs these

BLOCK = re.compile(
    r"(?:<!-- file: (\S+?)(?:, which fails)? -->\n\n)?^( *)```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE
)


def programs(folder: Path) -> list[Path]:
    """Write what the pages show into *folder*: each file as one, what has no name together, a page after the other."""
    written = []
    for number, page in enumerate(PAGES):
        loose = []
        for name, indent, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            text = "".join(line.removeprefix(indent) for line in block.splitlines(keepends=True))
            if not name:
                loose.append(text)
            else:
                written.append(folder / f"page{number}_{len(written)}_{name}")
                written[-1].write_text(text, encoding="utf-8")
        if loose and page not in WITHOUT_PROGRAMS:
            written.append(folder / f"page{number}_{page.stem.replace('-', '_')}.py")
            written[-1].write_text("\n".join(loose), encoding="utf-8")
    return written


def refusals(files: list[Path], folder: Path) -> str:
    """What ``mypy --strict`` says about *files*."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={folder}/cache"]
    home = str(Path(dmasync.__file__).parents[1])
    # mypy does not look behind the finder of an editable installation.
    environment = os.environ if "site-packages" in home else {**os.environ, "MYPYPATH": home}
    done = subprocess.run(
        [*command, *map(str, files)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.stdout + done.stderr


def test_what_the_documentation_shows_and_the_examples_are_typed(tmp_path: Path) -> None:
    files = programs(tmp_path)
    names = " ".join(path.name for path in files)
    assert all(word in names for word in ("README", "frame.py", "test_camera.py", "fault_plans"))
    assert refusals([*files, *(ROOT / "examples").glob("*.py")], tmp_path) == ""


def test_what_users_write_most_is_typed_and_a_mistake_in_it_is_seen(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy\n"
        "from dmasync import DmaBuf, DmaBufAllocator, DmaSyncer, FrameBuffer, RetryPolicy, SyncType\n"
        "def use(buffer: DmaBuf, frame: FrameBuffer, allocator: DmaBufAllocator) -> bytes:\n"
        "    with buffer.map() as mapping:\n"
        "        view = memoryview(mapping)\n"
        "        size: int = len(mapping) + view.nbytes\n"
        "    with DmaSyncer(buffer, SyncType.READ, retry=RetryPolicy(deadline=1, wait=0.5)) as syncer:\n"
        "        active: bool = syncer.active\n"
        "    with frame.syncer() as group, buffer.cpu_access(SyncType.WRITE) as bytes_:\n"
        "        part = frame.planes[0].view(bytes_)\n"
        "        numpy.frombuffer(bytes_, numpy.uint8)[0] = len(group) + size + active\n"
        "    path: str = allocator.provider.path\n"
        "    return bytes(part) + path.encode()\n"
    )
    assert refusals([program], tmp_path) == ""
    program.write_text(program.read_text().replace("memoryview(mapping)", "memoryview(mapping.unmap())"))
    assert 'has no attribute "unmap"' in refusals([program], tmp_path)
