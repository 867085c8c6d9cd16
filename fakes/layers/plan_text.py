"""Fault plans as text: read as Python writes calls, evaluated by nobody."""

from __future__ import annotations

import ast
import errno
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dmasync import Step
from dmasync.fakes.arguments import nearest

Plan = TypeVar("Plan")

_EXAMPLE = "write it as storm(EINTR, 3, on=Step.END)"


def plan_of(text: str, makers: Mapping[str, Callable[..., Plan]]) -> Plan:
    """The plan that *text* calls one of *makers* for; ValueError, with the nearest right form, when it is none."""
    try:
        name, arguments, keywords = _call(text, makers)
        return makers[name](*arguments, **keywords)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{text!r} is no fault plan: {problem}") from None


def _call(text: str, makers: Mapping[str, Callable[..., object]]) -> tuple[str, list[Any], dict[str, Any]]:
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as problem:
        raise ValueError(f"{problem.msg}; {_EXAMPLE}") from None
    if not isinstance(call, ast.Call):
        raise ValueError(f"it is not a call of storm, error, mix or latency; {_EXAMPLE}")
    name = ast.unparse(call.func).removeprefix("faults.")
    if name not in makers:
        raise ValueError(f"it is not a call of storm, error, mix or latency{nearest(name, makers, f'; {_EXAMPLE}')}")
    known = list(inspect.signature(makers[name]).parameters)
    keywords = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ValueError(f"**{ast.unparse(keyword.value)} names no argument; {_EXAMPLE}")
        if keyword.arg not in known:
            there = f", it has {', '.join(known)}"
            raise ValueError(f"{name}() has no {keyword.arg!r}{nearest(keyword.arg, known, there)}")
        keywords[keyword.arg] = _constant(keyword.value)
    return name, [_constant(node) for node in call.args], keywords


def _constant(node: ast.expr) -> object:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id == "Step":
            if node.attr not in Step.__members__:
                raise ValueError(
                    f"there is no Step.{node.attr}{nearest(node.attr, Step.__members__, ': there are START and END')}"
                )
            return Step[node.attr]
        if node.value.id == "errno":
            return _errno(node.attr)
    if isinstance(node, ast.Name):
        if node.id in Step.__members__:
            raise ValueError(f"{node.id} is no errno: did you mean Step.{node.id}?")
        return _errno(node.id)
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_constant(item) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)} is no number, text, errno or Step; {_EXAMPLE}") from None


def _errno(name: str) -> int:
    code = getattr(errno, name, None)
    if not isinstance(code, int):
        near = nearest(name, [known for known in dir(errno) if known.startswith("E")])
        raise ValueError(f"there is no errno {name}{near}")
    return code
