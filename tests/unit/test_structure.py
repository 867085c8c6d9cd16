"""How the library is built: who imports what, and which doors are public."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import dmasync

PACKAGE = Path(dmasync.__file__).parent
LIBRARY = sorted(path for path in PACKAGE.glob("*.py") if path.name not in ("cli.py", "__main__.py"))
ALL = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def imported(path: Path) -> set[str]:
    """The modules that *path* imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_there_is_something_to_look_at():
    assert {"syncer.py", "allocator.py", "backend.py"} <= {path.name for path in LIBRARY}
    assert len(ALL) > len(LIBRARY)


TIMED = PACKAGE / "harness" / "bench" / "timed"
"""Operations that are timed, some of them on the fake: a process of their own imports them, and nothing else does."""


def test_production_code_of_the_library_never_imports_the_fakes():
    names = {path: imported_by_production(path) for path in ALL if TIMED not in path.parents}
    fakes = {path: {name for name in names[path] if f"{name}.".startswith("dmasync.fakes.")} for path in names}
    assert {str(path): found for path, found in fakes.items() if found} == {}


def imported_by_production(path: Path) -> set[str]:
    if PACKAGE / "harness" in path.parents:
        # The harness runs fakes for its users (dmasync replay), but only when asked to: not while it is imported.
        top_level = ast.Module([n for n in ast.parse(path.read_text()).body if not isinstance(n, ast.If)], [])
        return {
            name
            for node in top_level.body
            for name in (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
    return imported(path)


def test_the_library_imports_itself_and_the_standard_library_only():
    for path in LIBRARY:
        roots = {name.partition(".")[0] for name in imported(path)}
        assert roots <= sys.stdlib_module_names | {"dmasync"}, path


def test_the_library_imports_nothing_of_the_harness():
    for path in LIBRARY:
        assert not {name for name in imported(path) if name.startswith(("dmasync.harness", "dmasync.cli"))}, path


def imported_at_run_time(path: Path) -> set[str]:
    """The modules of the library that *path* imports when it is imported itself."""
    found: set[str] = set()
    statements = list(ast.parse(path.read_text()).body)
    while statements:
        node = statements.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            statements += node.orelse
            continue
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        for block in ("body", "orelse", "handlers", "finalbody"):
            statements += getattr(node, block, [])
    names = {name.removeprefix("dmasync.") for name in found if name.startswith("dmasync.")}
    if path.name == "core.py":
        names.add("_window_py")  # by import_module, where the compiled core is not
    return names & {other.stem for other in LIBRARY} - {"__init__"}


def test_the_library_has_few_levels_and_no_circle():
    imports = {path.stem: imported_at_run_time(path) for path in LIBRARY if path.stem != "__init__"}
    levels: list[set[str]] = []
    while imports:
        level = {name for name, wanted in imports.items() if not wanted & imports.keys()}
        assert level, f"these import each other: {sorted(imports)}"
        levels.append(level)
        imports = {name: wanted for name, wanted in imports.items() if name not in level}
    assert len(levels) <= 8, levels


def test_one_module_alone_makes_system_calls_on_descriptors():
    importing = {path.name for path in LIBRARY if imported(path) & {"fcntl", "ctypes", "termios"}}
    assert importing == {"backend.py"}


def test_the_library_prints_nothing():
    calls = {
        (path.name, node.lineno)
        for path in LIBRARY
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input")
    }
    assert calls == set()


def test_the_public_doors_are_these():
    assert dmasync.__all__ == [
        "DEFAULT_PROVIDERS",
        "AllocationError",
        "Backend",
        "CpuAccess",
        "DmaBuf",
        "DmaBufAllocator",
        "DmaBufAllocatorFlag",
        "DmaSyncError",
        "DmaSyncTimeout",
        "DmaSyncer",
        "DmaSyncerGroup",
        "FrameBuffer",
        "LinuxBackend",
        "Mapping",
        "NoProviderError",
        "Plane",
        "Provider",
        "RetryPolicy",
        "Step",
        "SyncFile",
        "SyncType",
        "compiled",
    ]
    assert all(hasattr(dmasync, name) for name in dmasync.__all__)


def test_what_is_public_and_no_submodule_is_a_door():
    submodules = {path.stem for path in LIBRARY} | {"harness", "cli", "fakes"}
    names = {name for name in vars(dmasync) if name.isidentifier() and not name.startswith("_")}
    public = names - submodules - {"annotations"}
    assert public == set(dmasync.__all__)


def test_importing_the_library_loads_neither_harness_nor_fakes_nor_what_they_need():
    program = (
        "import sys, dmasync; "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('numpy', 'rich', 'scipy', 'jinja2', 'matplotlib', 'pytest') "
        "or m.startswith(('dmasync.harness', 'dmasync.fakes'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "[]"


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_logging_goes_to_one_logger_that_is_silent_unless_asked():
    program = (
        "import dmasync\n"
        "class B(dmasync.LinuxBackend):\n"
        "    @staticmethod\n"
        "    def ioctl(fd, request, arg): raise OSError(5, 'no')\n"
        "import logging; logging.getLogger('dmasync').addHandler(logging.NullHandler())\n"
        "try:\n"
        "    dmasync.DmaSyncer(1, backend=B()).start()\n"
        "except dmasync.DmaSyncError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert (done.stdout, done.stderr) == ("", "")
