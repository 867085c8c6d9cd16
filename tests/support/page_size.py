"""The page size of the fakes under test, in bytes: the host's, or what --dmasync-page-size says.

tests/conftest.py sets it before a test module is imported. It is a multiple of the host's: the fake's memory is the
host's.
"""

from __future__ import annotations

import mmap

PAGE = mmap.PAGESIZE
