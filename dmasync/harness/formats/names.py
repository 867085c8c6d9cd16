"""A row's name for systems that take few characters: letters, digits, ``_``, ``-`` and dots between the parts."""

from __future__ import annotations

import hashlib
import re

PREFIX = "dmasync"
WHOLE = f"{PREFIX}.gate"
"""The comparison as a whole, beside its rows."""
_OWN = re.compile(r"benchmarks/(?P<file>\w+)\.py::(?P<test>\w+)(?:\[(?P<cell>[\w-]+)\])?", re.ASCII)
_LONGEST = 120


def dotted(fullname: str) -> str:
    """``dmasync.test_sync_pair.test_sync_pair.udmabuf-1MiB-READ-fcntl`` for that row of the suites.

    Another project's name may lose characters here: eight digits of a digest keep it apart from every other, and the
    same in every run, whichever rows are beside it.
    """
    if match := _OWN.fullmatch(fullname):
        return ".".join([PREFIX, *(part for part in match.groups() if part)])
    parts = [re.sub(r"[^A-Za-z0-9_-]+", "_", part).strip("_") for part in re.split(r"[/.\[\]]|::", fullname)]
    told = ".".join(part for part in parts if part)[:_LONGEST].strip(".")
    digest = hashlib.sha256(fullname.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return ".".join([PREFIX, *([told] if told else []), f"row-{digest}"])
