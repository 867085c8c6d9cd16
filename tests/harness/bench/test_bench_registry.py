"""A row is described once: the suites' tests, the operations that are timed and the registry know the same rows."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

import pytest

from dmasync.harness.bench.registry import SUITES, Cell, Suite, function, named_sizes
from dmasync.harness.bench.runner import suites_folder

CELLS = [(name, suite, cell) for name, suite in SUITES.items() for cell in suite.cells({})]


def functions_of_the_suites() -> Iterator[str]:
    for path in suites_folder().glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name.removeprefix("test_")


def test_each_suite_is_one_test_function_and_each_test_function_a_suite() -> None:
    assert sorted(functions_of_the_suites()) == sorted(SUITES)


@pytest.mark.parametrize(("name", "suite", "cell"), CELLS, ids=[f"{name}-{cell.name}" for name, _, cell in CELLS])
def test_the_operation_of_a_row_takes_the_arguments_that_it_is_given(name: str, suite: Suite, cell: Cell) -> None:
    inspect.signature(function(suite.operation)).bind(None, **cell.arguments)
    assert {"api", "step"} <= {*suite.facts, *cell.facts, *cell.arguments}


def test_no_two_rows_of_a_suite_have_the_same_name() -> None:
    names = [(name, cell.name) for name, _, cell in CELLS]
    assert len(set(names)) == len(names)


def test_sizes_that_were_asked_for_take_the_place_of_the_steps_own_and_all_are_in_the_short_suite() -> None:
    for name in ("start", "end", "first_start"):
        cells = list(SUITES[name].cells(named_sizes([12 << 10])))
        assert {cell.arguments["size"] for cell in cells} == {12 << 10}
        assert all(cell.is_quick for cell in cells)
