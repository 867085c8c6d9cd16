"""Which kernel the fakes under test imitate: its pages (--dmasync-page-size), its release (--dmasync-profile) and its
processor (--dmasync-machine).

tests/conftest.py sets it before a test module is imported. It is a multiple of the host's: the fake's memory is the
host's.
"""

from __future__ import annotations

import mmap
import platform

PAGE = mmap.PAGESIZE
"""In bytes; the host's by default."""
PROFILE: str | None = None
"""None: the fake's own default."""
MACHINE = platform.machine()
"""The host's by default."""
