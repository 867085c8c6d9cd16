"""File and Window, compiled where that was possible: what a signal handler's exception must not tear apart.

The environment variable ``DMASYNC_COMPILED=0`` asks for the ones in plain Python, as tests do.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

__all__ = ["File", "Window", "compiled", "quicken"]

if TYPE_CHECKING:
    from dmasync._window import File, Window, quicken


def _implementation() -> Any:
    try:
        if os.environ.get("DMASYNC_COMPILED") != "0":
            return import_module("dmasync._window")
    except ModuleNotFoundError as error:
        if error.name != "dmasync._window":
            raise
    except ImportError as error:
        # A second interpreter in one process, or a library that was built for something else.
        warnings.warn(f"plain Python is used in place of the compiled core: {error}", ImportWarning, stacklevel=2)
    return import_module("dmasync._window_py")


_found = _implementation()

compiled: Final[bool] = _found.__name__ == "dmasync._window"
"""Whether dmasync/_window.c is at work; if not, dmasync/_window_py.py is, which says what it cannot promise."""

if not TYPE_CHECKING:
    File, Window, quicken = _found.File, _found.Window, _found.quicken

    if compiled and sys.version_info[:2] == (3, 14):
        # CPython 3.14 looks for signals between the return of a compiled __enter__ and the block that __exit__ protects
        # (cpython gh-148874), but not behind an attribute that is read, nor where a Python function returns.
        class Window(Window):
            __slots__ = ()

            def __enter__(self):
                self._entering = True
                return self._entered
