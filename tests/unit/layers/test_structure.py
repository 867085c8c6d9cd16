"""How the fakes are built: which folder may import which, no circles, and folders that say what they hold."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

import dmasync.fakes

ROOT = Path(dmasync.fakes.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})

# From the ground up: each imports what stands before it, and nothing behind it.
ORDER = ("arguments", "ioctls", "uninterrupted", "journal", "memory", "kernel", "layers", "sanitizer", "backend")
OTHERS = frozenset(
    {"device", "device_tree", "foreign", "markers", "pytest_plugin", "recording", "replay", "run_fixture"}
)
OUTSIDE = {"pytest_plugin.py": {"pytest"}, "device_tree.py": {"pyfakefs"}}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@functools.cache
def imported(path: Path) -> set[str]:
    """The full names that *path* imports, anywhere in it: modules, and what is taken out of them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(path: Path) -> set[str]:
    """The modules of the fakes that *path* imports, by their names below ``dmasync.fakes``."""
    found = set()
    for name in imported(path):
        if name.startswith("dmasync.fakes."):
            rest = name.removeprefix("dmasync.fakes.")
            found.add(rest if rest in MODULES else rest.rpartition(".")[0])
    return found - {module_of(path)}


def rank(module: str) -> int:
    top = module.partition(".")[0]
    return ORDER.index(top) if top in ORDER else len(ORDER)


def test_every_part_has_its_place():
    assert {module.partition(".")[0] for module in MODULES if module} == {*ORDER, *OTHERS}


def test_nothing_imports_what_stands_above_it():
    above = {
        module: {imported for imported in own(path) if rank(imported) > rank(module)}
        for module, path in MODULES.items()
        if module
    }
    assert {module: imported for module, imported in above.items() if imported} == {}


def test_there_is_no_circle():
    imports = {module: own(path) for module, path in MODULES.items() if module}
    while True:
        done = {module for module, needed in imports.items() if not needed & imports.keys()}
        if not done:
            break
        for module in done:
            del imports[module]
    assert imports == {}


def test_the_journal_itself_knows_none_of_its_formats():
    formats = {f"journal.{name}" for name in ("text", "svg", "perfetto", "json_lines")}
    knowing = {module for module, path in MODULES.items() if own(path) & formats}
    assert knowing - {"recording"} == {"journal.journal"}


def test_the_fakes_need_the_library_and_the_standard_library_only():
    for path in FILES:
        roots = {name.partition(".")[0] for name in imported(path)}
        assert roots <= {*sys.stdlib_module_names, "dmasync", *OUTSIDE.get(path.name, ())}, path
        assert not any(name.startswith("dmasync.harness") for name in imported(path)), path


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_is_small_and_its_docstring_names_what_it_holds(folder):
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(files) < 12
    words = docstring.replace("``", " ").split()
    missing = {path.name for path in files} - set(words)
    missing |= {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")} - set(words)
    assert missing == set()


def test_a_file_is_short():
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > 400} == {}
