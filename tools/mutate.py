"""Take one thing out of the library at a time, and see whether the tests notice.

    python tools/mutate.py [--per-module N] [--seed S] [--jobs J] [--lifelines] [--storms] [MODULE…]

Each mutant is one change to the syntax tree of one module of dmasync/: a statement or a loop removed, a condition
negated, a comparison, a constant or an operator changed, ``and`` for ``or``. It runs in a copy of the tree, so that the
checkout is never touched, and nothing is wrapped around functions whose bytecode matters. A mutant is killed when the
unit tests fail, or take far more time or memory than they do without it. The module's own tests run first, and the
first failure ends the run. _window_py.py is mutated where the compiled core is switched off; mutate_c.py does the same
to the compiled core.

With --lifelines only the mutants that take out a retry, an END or a close. With --storms those that survive must also
pass the storms of real signals. Mutants that change nothing that anybody could see are listed in EQUIVALENT, with the
reason, and are not run. Prints the survivors, and the score of each module.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).parents[1]
MODULES = (
    "access", "allocator", "arguments", "backend", "buffer", "errors", "frame", "providers", "retry", "sync_file",
    "syncer", "udmabuf", "uapi", "_window_py",
)  # fmt: skip
TESTS = (
    "syncer", "group", "core", "buffer", "allocator", "frame", "retry", "sync_file", "view", "cycles", "access",
    "backend", "errors", "uapi", "udmabuf", "fences", "owners", "kept_views",
)  # fmt: skip
OWN_TESTS = {
    "arguments": ("syncer", "allocator", "buffer"), "buffer": ("buffer", "view", "kept_views"),
    "providers": ("allocator",), "retry": ("retry", "fences", "syncer"), "sync_file": ("sync_file", "owners"),
    "syncer": ("syncer", "core", "group"), "udmabuf": ("udmabuf", "allocator"),
    "_window_py": ("core", "syncer", "group", "cycles", "view", "buffer"),
}  # fmt: skip
"""Whose tests run first, where it is not the file of the module's own name."""
ENVIRONMENTS = {"_window_py": {"DMASYNC_COMPILED": "0"}}
"""What a module needs to be at work."""
LIFELINE = re.compile(
    r"\b(refused|continue|_starts?|_ends?|starmap|map|extend|_make_ends|_make_step"
    r"|_only_\w*|end|conclude|dropped|\w*close\w*|_?release\w*|_unmap|_stop_using_files|windows)\b"
)
"""What a mutant takes out when it takes out a retry, an END or a close."""
LEAST_SECONDS = 10
MEMORY = 2 << 30
"""Bytes of address space: a retry that never ends, and a journal of it, would take all there is."""
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
NOT_HERE = "that part runs in newer CPythons only, where tests/unit/test_backend.py notices"
EQUIVALENT = {
    "arguments.module: removed: Item = TypeVar('Item')": "it is for the type checker alone",
    "syncer.module: removed: Self = TypeVar('Self', bound=Window)": "it is for the type checker alone",
    "backend.module: compares otherwise: sys.version_info >= (3, 12)": "it is for the type checker alone",
    "backend.LinuxBackend.mmap: compares otherwise: sys.version_info >= (3, 13)": "the version has more than two parts",
    "backend.LinuxBackend.mmap: returns None: return mmap.mmap(fd, length, flags, prot, offset=offset, trackfd=False": (
        NOT_HERE
    ),
    "backend.LinuxBackend.mmap: constant changed: False": NOT_HERE,
    "buffer.CpuAccess.move: removed: self._bytes = None": "the buffer releases the same view when it is closed",
    "sync_file.SyncFile.wait: compares otherwise: status < 0": "where poll() says POLLIN no status is nought",
    "sync_file.SyncFile.wait: constant changed: 0 (3)": "the kernel writes the status, and never reads it",
    "sync_file.SyncFile.wait: constant changed: 0 (7)": "without room for infos of fences the kernel ignores where",
    "sync_file.SyncFile.wait: constant changed: 0 (8)": "where poll() says POLLIN no status is nought",
}
"""Mutants that change nothing that anybody could see, as they print without the line's number, and why."""


class Mutant:
    """One change: which module, where, what, and the source that results."""

    def __init__(self, module: str, function: str, line: int, what: str, source: str) -> None:
        self.module, self.function, self.line, self.what, self.source = module, function, line, what, source

    @property
    def name(self) -> str:
        """The same whatever stands around its function; the second that reads the same in one function has a number."""
        return f"{self.module}.{self.function}: {self.what}"

    @property
    def is_lifeline(self) -> bool:
        return self.what.startswith("removed") and bool(LIFELINE.search(self.what))

    def __str__(self) -> str:
        return f"dmasync/{self.module}.py:{self.line}: {self.name}"


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its text."""
    tree = ast.parse((ROOT / "dmasync" / f"{module}.py").read_text())
    _hide(tree)
    _name(tree)
    again: Counter[tuple[str, str]] = Counter()
    places = sorted(enumerate(_seen(tree)), key=lambda place: (place[1].lineno, place[1].col_offset))  # type: ignore[attr-defined]
    for number, node in places:
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            if change(changed, _seen(changed)[number]):
                again[node.function, what] += 1  # type: ignore[attr-defined]
                nth = again[node.function, what]  # type: ignore[attr-defined]
                named = what if nth == 1 else f"{what} ({nth})"
                source = ast.unparse(ast.fix_missing_locations(changed))
                yield Mutant(module, node.function, node.lineno, named, source)  # type: ignore[attr-defined]


def _hide(tree: ast.AST) -> None:
    """Mark what no test can see: type hints, docstrings, texts of messages, imports, TYPE_CHECKING, slots, asserts."""
    for outer in ast.walk(tree):
        hidden: list[ast.AST] = [outer] if _is_invisible(outer) else []
        if isinstance(outer, ast.FunctionDef):
            hidden += [outer.args, *outer.decorator_list]
            hidden += [outer.returns] if outer.returns else []
        elif isinstance(outer, ast.AnnAssign):
            hidden += [outer.annotation]
        elif isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING":
            outer.hidden = True  # type: ignore[attr-defined]  # not its else, which runs
            hidden += [outer.test, *outer.body]
        for part in hidden:
            for inner in ast.walk(part):
                inner.hidden = True  # type: ignore[attr-defined]


def _is_invisible(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.JoinedStr() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__")]):
            return True
    return False


def _name(tree: ast.AST, function: str = "") -> None:
    """Note in every node the function that it is in."""
    for node in ast.iter_child_nodes(tree):
        node.function = function or "module"  # type: ignore[attr-defined]
        inside = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        _name(node, f"{function}.{node.name}".lstrip(".") if inside else function)  # type: ignore[attr-defined]


def _seen(tree: ast.AST) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if hasattr(node, "lineno") and not hasattr(node, "hidden")]


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any, Any], bool]]]:
    text = ast.unparse(node).splitlines()[0][:70]
    if isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.Delete, ast.Raise, ast.Break, ast.Continue, ast.For)):
        yield f"removed: {text}", _removed
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield f"returns None: {text}", _returns_none
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield f"negated: {text}", _negated
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield f"compares otherwise: {text}", _compared
    elif isinstance(node, ast.BoolOp):
        yield f"and/or swapped: {text}", _swapped
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield f"operator changed: {text}", _operated
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, bool)):
        yield f"constant changed: {text}", _other_constant


def _removed(tree: ast.AST, node: ast.AST) -> bool:
    for outer in ast.walk(tree):
        for _, body in ast.iter_fields(outer):
            if isinstance(body, list) and any(item is node for item in body):
                body[[item is node for item in body].index(True)] = ast.copy_location(ast.Pass(), node)
                return True
    return False


def _returns_none(tree: ast.AST, node: ast.Return) -> bool:
    node.value = ast.Constant(None)
    return True


def _negated(tree: ast.AST, node: ast.If) -> bool:
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return True


def _compared(tree: ast.AST, node: ast.Compare) -> bool:
    node.ops[0] = COMPARISONS[type(node.ops[0])]()
    return True


def _swapped(tree: ast.AST, node: ast.BoolOp) -> bool:
    node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    return True


def _operated(tree: ast.AST, node: ast.BinOp) -> bool:
    node.op = OPERATORS[type(node.op)]()
    return True


def _other_constant(tree: ast.AST, node: ast.Constant) -> bool:
    node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    return True


def _tree(where: Path) -> Path:
    for name in ("dmasync", "fakes", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, where / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, where / name)
    return where


class Suite:
    """Runs the tests in a copy of the tree, within limits that follow from what they take without any mutation."""

    # Only the plugins that the tests use: loading the others takes as long as many a module's tests.
    PLUGINS = ("pytest_timeout", "pyfakefs.pytest_plugin", "dmasync.fakes.pytest_plugin")
    LIMITED = (
        "import resource, sys, pytest; resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}));"
        "resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds})); sys.exit(pytest.main(sys.argv[1:]))"
    )

    def __init__(self) -> None:
        self.seconds = 600

    def passes(self, tree: Path, tests: Sequence[str], variables: Mapping[str, str] = MappingProxyType({})) -> bool:
        environment = {
            **os.environ,
            **variables,
            "PYTHONPATH": str(tree),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        limited = self.LIMITED.format(memory=MEMORY, seconds=self.seconds)
        line = [sys.executable, "-c", limited, "-q", "-x", "-p", "no:cacheprovider", "--no-header"]
        line += [word for plugin in self.PLUGINS for word in ("-p", plugin)]
        line += [f"tests/unit/test_{test}.py" for test in tests]
        try:
            done = subprocess.run(
                line,
                cwd=tree,
                env=environment,
                capture_output=True,
                # A test that waits uses no processor time.
                timeout=6 * self.seconds,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return False
        self.output = done.stdout.decode(errors="replace")
        return done.returncode == 0

    def limit(self, used: float) -> None:
        """Allow a mutant's run five times the *used* seconds of processor time."""
        self.seconds = LEAST_SECONDS + int(5 * used)


def _wanted(options: argparse.Namespace) -> list[Mutant]:
    chosen: list[Mutant] = []
    draw = random.Random(options.seed)  # noqa: S311 - must be repeatable, not unpredictable
    for module in options.modules:
        every = list(mutants(module))
        names = {mutant.name for mutant in every}
        for name in EQUIVALENT:
            if name.startswith(f"{module}.") and name not in names:
                print(f"EQUIVALENT names what is no mutant: {name}", file=sys.stderr)
                raise SystemExit(2)
        found = [each for each in every if each.name not in EQUIVALENT and (each.is_lifeline or not options.lifelines)]
        if options.per_module is not None and len(found) > options.per_module:
            found = sorted(draw.sample(found, options.per_module), key=lambda mutant: mutant.line)
        chosen += found
    return chosen


def main() -> int:
    """Make the mutants, run the tests, print who survived. Exit status 1 below nine tenths."""
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", default=list(MODULES))
    parser.add_argument("--per-module", type=int, default=None, help="a sample of that many from each (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--lifelines", action="store_true", help="only what takes out a retry, an END or a close")
    parser.add_argument("--storms", action="store_true", help="let survivors also face the storms of signals")
    options = parser.parse_args()
    chosen = _wanted(options)
    suite = Suite()
    with tempfile.TemporaryDirectory(prefix="dmasync-mutants-") as scratch:
        trees: SimpleQueue[Path] = SimpleQueue()
        for job in range(options.jobs):
            trees.put(_tree(Path(scratch, str(job))))

        whole = trees.get()
        # As the mutants are written: without comments and line breaks.
        originals = {module: (whole / "dmasync" / f"{module}.py").read_text() for module in options.modules}
        for module, text in originals.items():
            (whole / "dmasync" / f"{module}.py").write_text(ast.unparse(ast.parse(text)))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if not suite.passes(whole, TESTS):
            print(f"the tests fail without any mutation, repair that first:\n{suite.output[-2000:]}", file=sys.stderr)
            return 2
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        suite.limit(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        for module, text in originals.items():
            (whole / "dmasync" / f"{module}.py").write_text(text)
        trees.put(whole)

        def survives(mutant: Mutant) -> bool:
            own = OWN_TESTS.get(mutant.module, (mutant.module,))
            tests = sorted(TESTS, key=lambda test: test not in own)
            tree = trees.get()
            target = tree / "dmasync" / f"{mutant.module}.py"
            try:
                target.write_text(mutant.source)
                variables = ENVIRONMENTS.get(mutant.module, {})
                alive = suite.passes(tree, tests, variables)
                if alive and options.storms:
                    alive = suite.passes(tree, ("signals",), variables)
            finally:
                target.write_text(originals[mutant.module])
                trees.put(tree)
            if alive:
                print(f"survived {mutant}", flush=True)
            return alive

        with ThreadPoolExecutor(options.jobs) as pool:
            fates = list(zip(chosen, pool.map(survives, chosen), strict=True))
    return _score(fates)


def _score(fates: list[tuple[Mutant, bool]]) -> int:
    killed: dict[str, list[bool]] = {}
    for mutant, alive in fates:
        killed.setdefault(mutant.module, []).append(not alive)
        if mutant.is_lifeline:
            killed.setdefault("retries, ENDs and closes", []).append(not alive)
    killed["all"] = [not alive for _, alive in fates]
    for what, hits in killed.items():
        print(f"{what}: {sum(hits)} of {len(hits)} killed, {sum(hits) / len(hits):.1%}")
    return 0 if all(sum(hits) >= 0.9 * len(hits) for hits in killed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
