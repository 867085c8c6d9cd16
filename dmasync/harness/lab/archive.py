"""What is carried to a board: the library, the fake, the loops and the plan, as one archive."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dmasync

PLAN, SETUP, FACTS = "plan.jsonl", "setup.json", "board_facts.py"
_LOOPS = ("bench/__init__.py", "bench/measure.py", "bench/registry.py", "bench/worker.py")


def packed(plan: bytes, setup: Mapping[str, Any]) -> bytes:
    """The archive, a gzipped tar: *plan* is what is to be measured, *setup* how the process starts there."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, name in sorted(_sources(), key=lambda pair: pair[1]):
            _add(archive, name, path.read_bytes())
        _add(archive, FACTS, Path(__file__).with_name(FACTS).read_bytes())
        _add(archive, PLAN, plan)
        _add(archive, SETUP, json.dumps(setup).encode())
    return buffer.getvalue()


def _sources() -> Iterator[tuple[Path, str]]:
    """Each file and its name on the board. The compiled core is used where its file's name fits the board's Python."""
    package = Path(dmasync.__file__).parent
    harness = package / "harness"
    found = [*package.glob("*.py"), *package.glob("_window*.so"), *harness.glob("*.py")]
    found += [harness / name for name in _LOOPS] + list((harness / "bench" / "timed").glob("*.py"))
    for path in found:
        yield path, f"dmasync/{path.relative_to(package)}"
    fakes = package / "fakes"  # in a checkout a link, which a search for files would not follow
    for path in fakes.resolve().rglob("*.py"):
        yield path, f"dmasync/fakes/{path.relative_to(fakes.resolve())}"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
