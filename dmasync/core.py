"""File and Window, compiled where that was possible: what a signal handler's exception must not tear apart.

``compiled`` says which ones these are. The environment variable ``DMASYNC_COMPILED=0`` asks for the ones in plain
Python, as tests do.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

compiled: Final[bool]
"""Whether dmasync/_window.c is at work; if not, dmasync/_window_py.py is, which says what it cannot promise."""

if TYPE_CHECKING:
    from dmasync._window import File as File
    from dmasync._window import Window as Window
else:
    try:
        if os.environ.get("DMASYNC_COMPILED") == "0":
            raise ModuleNotFoundError(name="dmasync._window")
        from dmasync._window import File, Window

        compiled = True
    except ModuleNotFoundError as error:
        if error.name != "dmasync._window":
            raise
        from dmasync._window_py import Window

        compiled = False

    if compiled and sys.version_info[:2] == (3, 14):
        # CPython 3.14 looks for signals between the return of a compiled __enter__ and the block that __exit__ protects
        # (cpython gh-148874), but not behind an attribute that is read, nor where a Python function returns.
        class Window(Window):
            __slots__ = ()

            def __enter__(self) -> Any:
                return self._entered
