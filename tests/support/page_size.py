"""Which kernel the fakes under test imitate: its pages (--dmasync-page-size) and its release (--dmasync-profile).

tests/conftest.py sets it before a test module is imported. It is a multiple of the host's: the fake's memory is the
host's.
"""

from __future__ import annotations

import mmap

PAGE = mmap.PAGESIZE
"""In bytes; the host's by default."""
PROFILE: str | None = None
"""None: the fake's own default."""
