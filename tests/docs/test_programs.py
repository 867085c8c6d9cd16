"""Every Python block of the documentation runs, and its tests end as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import NEEDS_VM, PAGES, WITHOUT_PROGRAMS, name_of, walk

WITH_PROGRAMS = [page for page in PAGES if page not in WITHOUT_PROGRAMS and "```" in page.read_text()]


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=name_of)
def test_what_the_page_says_is_so(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = NEEDS_VM.sub("", page.read_text())
    assert walk(page, tmp_path) >= len(re.findall(r"^ *```python$", text, re.MULTILINE))


@pytest.mark.vm
@pytest.mark.parametrize("page", [page for page in PAGES if NEEDS_VM.search(page.read_text())], ids=name_of)
def test_what_needs_a_virtual_machine_runs_in_one(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    for program in NEEDS_VM.findall(page.read_text()):
        names: dict[str, object] = {}
        exec(program, names)  # noqa: S102 - our own pages
        completed = names["completed"]
        assert getattr(completed, "returncode") == 0  # noqa: B009 - whatever its class is
