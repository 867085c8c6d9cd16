"""How the harness is built: which package imports which, how large its files and folders are, one name a module."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from pathlib import Path

import pytest

import dmasync

PACKAGE = Path(dmasync.__file__).parent
HARNESS = PACKAGE / "harness"
FOLDERS = [HARNESS, *(path.parent for path in HARNESS.rglob("__init__.py") if path.parent != HARNESS)]
MODULES = sorted(HARNESS.rglob("*.py"))
SUITES = sorted((PACKAGE / "benchmarks").glob("*.py"))
MAY_IMPORT = {
    "runs": set(),
    "vm": {"runs"},
    "lab": set(),
    "bench": {"lab", "runs", "vm"},
    "judge": {"runs"},
    "model": {"runs"},
    "report": {"judge", "runs", "store"},
    "formats": {"judge", "runs"},
    "gate": {"bench", "formats", "judge", "report", "runs", "vm"},
    "store": {"judge", "runs"},
    "history": {"bench", "formats", "gate", "judge", "report", "runs", "store"},
    "probe": {"vm"},
    "trace": {"formats", "run", "runs"},
    "run": {"formats", "runs", "vm"},
}
"""Packages of the harness, and which others each of them may import; all may import the modules beside them."""
MOST_LINES = 400
MOST_FILES = 12


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """``vm`` for ``dmasync.harness.vm.guest.scripts``; empty for a module that lies beside the packages."""
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and (HARNESS / parts[2]).is_dir() else ""


KNOWN = {name_of(module) for module in MODULES}


@functools.cache
def imports_of(path: Path) -> set[str]:
    """The modules of the harness that *path* imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in KNOWN else str(node.module) for name in inside}
    return found & KNOWN


def test_a_package_imports_only_those_below_it() -> None:
    wrong = {}
    for path in MODULES:
        own = package_of(name_of(path))
        imported = {package_of(module) for module in imports_of(path)} - {own, ""}
        wrong[name_of(path)] = imported - (MAY_IMPORT[own] if own else set())
    assert {name: imported for name, imported in wrong.items() if imported} == {}


def test_every_package_has_its_place_in_the_layers() -> None:
    packages = {folder.name for folder in FOLDERS if folder.parent == HARNESS}
    assert packages <= MAY_IMPORT.keys()
    assert packages >= MAY_IMPORT.keys() - {"run"}


def test_nothing_imports_itself_by_way_of_others() -> None:
    waiting = {name_of(path): imports_of(path) - {name_of(path)} for path in MODULES}
    while free := {name for name, needs in waiting.items() if not needs}:
        waiting = {name: needs - free for name, needs in waiting.items() if name not in free}
    assert waiting == {}


def test_a_file_can_be_read_in_one_sitting() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (*MODULES, *SUITES)}
    assert {name_of(path): count for path, count in lines.items() if count > MOST_LINES} == {}


@pytest.mark.parametrize("folder", [*FOLDERS, PACKAGE / "benchmarks"], ids=lambda folder: folder.name)
def test_a_folder_has_few_files_and_says_what_they_are_and_who_may_import_them(folder: Path) -> None:
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".pyc"]
    assert len(files) <= MOST_FILES
    told = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert told
    assert "import" in told


def test_no_two_modules_have_the_same_name() -> None:
    names = Counter(path.stem for path in MODULES if path.stem not in ("__init__", "command"))
    assert [name for name, count in names.items() if count > 1] == []
