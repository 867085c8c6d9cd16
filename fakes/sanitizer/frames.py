"""Whose a frame of a stack is: the user's, or the machinery's around it, which no finding spends its lines on.

A trace may come from another machine: paths are told by how they end and by the folders in them, not by where this
installation lies.
"""

from __future__ import annotations

import functools
import os
import re

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_INSTALLED = re.compile(
    r"[/\\](?:site|dist)-packages[/\\](?:dmasync|_pytest|pytest|pluggy|xdist|execnet|pytest_\w+|sybil|hypothesis)(?:[/\\]|\.py)"
)
_STANDARD_LIBRARY = re.compile(r"[/\\]lib(?:64)?[/\\]python3(?:\.\d+)?t?[/\\](?!(?:site|dist)-packages[/\\])")


def is_machinery(file: str) -> bool:
    """Whether *file* is dmasync's own, the standard library's or a test runner's."""
    if file.startswith(("<frozen ", os.path.join(_PACKAGE, ""))):
        return True
    if _INSTALLED.search(file) or _STANDARD_LIBRARY.search(file):
        return True
    _, here, inside = file.replace("\\", "/").rpartition("/dmasync/")
    return bool(here) and inside in _modules()


@functools.lru_cache(maxsize=1)
def _modules() -> frozenset[str]:
    """The paths of this package's modules below it: a checkout elsewhere has the same."""
    found = set()
    for folder, _, names in os.walk(_PACKAGE, followlinks=True):
        inside = os.path.relpath(folder, _PACKAGE)
        found |= {os.path.normpath(os.path.join(inside, name)) for name in names if name.endswith(".py")}
    return frozenset(found)
