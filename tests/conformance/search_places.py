"""Places in the fake's source that refuse, by names that outlive most edits: function, and the question asked."""

from __future__ import annotations

import errno
import linecache
from pathlib import Path
from types import CodeType

_QUESTIONS = ("if ", "elif ", "else:", "except ", "while ", "for ", "def ")


def place_name(code: CodeType, line: int, error: int) -> str:
    """For instance ``EINVAL udmabuf.py _create: if not pages``; the line itself where nothing is asked above it."""
    text = linecache.getline(code.co_filename, line).strip()
    for above in range(line - 1, code.co_firstlineno, -1):
        before = linecache.getline(code.co_filename, above).strip()
        if before.startswith(_QUESTIONS):
            text = before.rstrip(":") if text.startswith("raise") else text
            break
    return f"{errno.errorcode[error]} {Path(code.co_filename).name} {code.co_name}: {text}"
