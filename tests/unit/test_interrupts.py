"""guarded: an exception on entry to a function is caught by the try that opens it."""

from __future__ import annotations

import ast
import dis
import importlib
import signal
import sys
import types
from pathlib import Path

import pytest

import dmasync
from dmasync.interrupts import guarded
from tests.support.signal_storm import restore


def make():
    log = []

    def function(value):
        try:
            log.append("body")
            if value:
                raise ValueError
        except BaseException as problem:
            log.append(type(problem).__name__)
            return "caught"
        return "fine"

    return log, function


@pytest.mark.skipif(sys.version_info < (3, 11), reason="CPython 3.10 has no table, and makes no check before a try")
def test_the_first_try_covers_the_functions_entry():
    _, function = make()

    def covers_entry():
        entries = dis._parse_exception_table(function.__code__)
        return any(entry.start == 0 for entry in entries)

    assert not covers_entry()
    before = [
        (entry.end, entry.target, entry.depth, entry.lasti) for entry in dis._parse_exception_table(function.__code__)
    ]
    assert guarded(function) is function
    assert covers_entry()
    after = [
        (entry.end, entry.target, entry.depth, entry.lasti) for entry in dis._parse_exception_table(function.__code__)
    ]
    assert after == before


def test_a_guarded_function_does_what_it_did():
    log, function = make()
    guarded(function)
    assert (function(False), function(True)) == ("fine", "caught")
    assert log == ["body", "body", "ValueError"]


def test_a_function_without_try_stays_as_it_is():
    def plain():
        return 5

    code = plain.__code__
    assert guarded(plain) is plain
    assert plain.__code__ is code
    assert plain() == 5


def test_what_is_no_function_stays_as_it_is():
    assert guarded(len) is len


def test_a_long_function_keeps_its_try_whole():
    """Lengths beyond six bits take several digits in the table."""
    source = "def long(n):\n    try:\n" + "        n = n + 1\n" * 5000 + "        raise ValueError\n"
    source += "    except ValueError:\n        return n\n"
    space: dict[str, object] = {}
    exec(source, space)  # noqa: S102
    long = guarded(space["long"])
    assert long(1) == 5001


class Entered(BaseException):
    pass


@pytest.mark.timeout(method="thread")
def test_a_signal_on_entry_is_caught_inside():
    """Raise in each call as early as CPython can: with the handler pending before the function is entered."""
    caught = []
    armed = False

    def function():
        try:
            return len(caught) * 0
        except Entered:
            caught.append(1)
            return 0

    guarded(function)

    def handler(number, frame):
        nonlocal armed
        if armed and frame is not None and frame.f_code is function.__code__:
            armed = False
            raise Entered

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 20e-6, 20e-6)
        for _ in range(30_000_000):
            armed = True
            assert function() == 0
            armed = False
            if len(caught) > 20:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        restore(signal.SIGALRM, before)
    assert len(caught) > (20 if sys.version_info >= (3, 11) else -1)


def test_a_try_whose_body_cannot_raise_stays_as_it_is():
    """The compiler makes no entry for it; the first entry is its handler's, and must not cover anything else."""

    def function():
        try:
            return 1
        except ValueError:
            return len("2")

    code = function.__code__
    guarded(function)
    assert function.__code__ is code


def guarded_functions():
    for path in sorted(Path(dmasync.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = [d.id for d in node.decorator_list if isinstance(d, ast.Name)]
                if "guarded" in names:
                    yield pytest.param(path.stem, node, id=f"{path.stem}:{node.lineno}:{node.name}")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="CPython 3.10 has no table, and makes no check before a try")
@pytest.mark.parametrize(("module", "node"), list(guarded_functions()))
def test_every_guarded_function_of_the_library_is_covered_from_its_entry_to_the_end_of_its_try(module, node):
    body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    assert isinstance(body[0], ast.Try), "the try has to be the first statement"
    assert any(
        handler.type is None or (isinstance(handler.type, ast.Name) and handler.type.id == "BaseException")
        for handler in body[0].handlers
    ), "what comes on entry may be anything"
    (code,) = [
        code
        for code in _codes(importlib.import_module(f"dmasync.{module}"))
        if code.co_name == node.name and abs(code.co_firstlineno - node.lineno) <= len(node.decorator_list)
    ]
    first = dis._parse_exception_table(code)[0]
    assert (first.start, first.depth) == (0, 0)
    lines = {i.positions.lineno for i in dis.get_instructions(code) if i.offset < first.end and i.positions.lineno}
    assert body[0].body[0].lineno in lines
    everything = list(dis.get_instructions(code))
    protected = range(body[0].body[0].lineno, body[0].body[-1].end_lineno + 1)
    entries = dis._parse_exception_table(code)
    jumps = [i for i in everything if "JUMP_BACKWARD" in i.opname and i.positions.lineno in protected]
    assert [j for j in jumps if not any(e.start <= j.offset < e.end for e in entries)] == []
    handler = next(i for i in dis.get_instructions(code) if i.offset == first.target)
    assert handler.opname == "PUSH_EXC_INFO"


def _codes(module):
    for value in vars(module).values():
        functions = vars(value).values() if isinstance(value, type) else [value]
        for function in functions:
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                yield function.__code__
