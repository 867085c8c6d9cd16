"""Take one thing out of the library at a time, and see whether the tests notice.

    python tools/mutate.py [--per-module N] [--seed S] [--jobs J] [--storms] [MODULE…]

Each mutant is one change to the syntax tree of one module of dmasync/: a statement removed, a condition negated, a
comparison, a constant or an operator changed, ``and`` for ``or``. It runs in a copy of the tree, so that the checkout
is never touched, and nothing is wrapped around the functions whose bytecode matters (dmasync.interrupts). A mutant is
killed when the unit tests fail or take too long. With --storms those that survive must also pass the storms of real
signals. Prints the survivors and the score.
"""

# ruff: noqa: T201 - a command: its results go to standard output
from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).parents[1]
MODULES = ("syncer", "group", "window", "descriptor", "allocator", "buffer", "acquire")
TESTS = ("syncer", "group", "descriptor", "acquire", "buffer", "allocator", "frame", "sync_file", "interrupts")
SECONDS = 120
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


class Mutant:
    """One change: which module, where, what, and the source that results."""

    def __init__(self, module: str, line: int, what: str, source: str) -> None:
        self.module, self.line, self.what, self.source = module, line, what, source

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line}: {self.what}"


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its text."""
    tree = ast.parse((ROOT / "dmasync" / f"{module}.py").read_text())
    _hide(tree)
    for number, node in enumerate(_seen(tree)):
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            if change(changed, _seen(changed)[number]):
                yield Mutant(module, node.lineno, what, ast.unparse(ast.fix_missing_locations(changed)))


def _hide(tree: ast.AST) -> None:
    """Mark what no test can see: type hints, docstrings, texts of messages, imports, TYPE_CHECKING, slots, asserts."""
    for outer in ast.walk(tree):
        hidden: list[ast.AST] = []
        if isinstance(outer, ast.FunctionDef):
            hidden += [outer.args, *outer.decorator_list]
            hidden += [outer.returns] if outer.returns else []
        elif isinstance(outer, ast.AnnAssign):
            hidden += [outer.annotation]
        elif isinstance(outer, (ast.Import, ast.ImportFrom, ast.Assert, ast.JoinedStr)) or (
            isinstance(outer, ast.Expr) and isinstance(outer.value, ast.Constant)
        ):
            hidden.append(outer)
        elif isinstance(outer, ast.If) and isinstance(outer.test, ast.Name) and outer.test.id == "TYPE_CHECKING":
            hidden += [outer.test, *outer.body]
        elif isinstance(outer, ast.Assign) and getattr(outer.targets[0], "id", "") == "__slots__":
            hidden.append(outer)
        for part in hidden:
            for inner in ast.walk(part):
                inner.hidden = True  # type: ignore[attr-defined]


def _seen(tree: ast.AST) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if hasattr(node, "lineno") and not hasattr(node, "hidden")]


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any, Any], bool]]]:
    text = ast.unparse(node).splitlines()[0][:70]
    if isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.Delete, ast.Raise, ast.Break, ast.Continue)):
        yield f"removed: {text}", _removed
    elif isinstance(node, ast.Return) and node.value is not None:
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
            shutil.copytree(source, where / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, where / name)
    return where


def _passes(tree: Path, tests: list[str]) -> bool:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    try:
        done = subprocess.run(
            line, cwd=tree, env=environment, capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> int:
    """Make the mutants, run the tests, print who survived. Exit status 1 below nine tenths."""
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", default=list(MODULES))
    parser.add_argument("--per-module", type=int, default=None, help="a sample of that many from each (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--storms", action="store_true", help="let survivors also face the storms of signals")
    options = parser.parse_args()
    chosen: list[Mutant] = []
    draw = random.Random(options.seed)  # noqa: S311 - must be repeatable, not unpredictable
    for module in options.modules:
        found = list(mutants(module))
        if options.per_module is not None and len(found) > options.per_module:
            found = sorted(draw.sample(found, options.per_module), key=lambda mutant: mutant.line)
        chosen += found
    with tempfile.TemporaryDirectory(prefix="dmasync-mutants-") as scratch:
        trees: SimpleQueue[Path] = SimpleQueue()
        for job in range(options.jobs):
            trees.put(_tree(Path(scratch, str(job))))

        whole = trees.get()
        if not _passes(whole, [f"tests/unit/test_{name}.py" for name in TESTS]):
            print("the tests fail without any mutation: mend that first", file=sys.stderr)
            return 2
        trees.put(whole)

        def survives(mutant: Mutant) -> bool:
            own = f"tests/unit/test_{mutant.module}.py"
            tests = [f"tests/unit/test_{name}.py" for name in TESTS]
            tests.sort(key=lambda test: test != own)
            tree = trees.get()
            target = tree / "dmasync" / f"{mutant.module}.py"
            before = target.read_text()
            try:
                target.write_text(mutant.source)
                alive = _passes(tree, tests)
                return alive and (not options.storms or _passes(tree, ["tests/unit/test_signals.py"]))
            finally:
                target.write_text(before)
                trees.put(tree)

        with ThreadPoolExecutor(options.jobs) as pool:
            fates = list(zip(chosen, pool.map(survives, chosen), strict=True))
    killed: dict[str, list[bool]] = {}
    for mutant, alive in fates:
        killed.setdefault(mutant.module, []).append(not alive)
        if alive:
            print(f"survived {mutant}")
    for module, hits in killed.items():
        print(f"{module}: {sum(hits)} of {len(hits)} killed")
    everyone = [hit for hits in killed.values() for hit in hits]
    score = sum(everyone) / len(everyone)
    print(f"all: {sum(everyone)} of {len(everyone)} killed, {score:.1%}")
    return 0 if score >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
