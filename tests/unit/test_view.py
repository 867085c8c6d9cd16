"""The view of a window: dead when the window is over, whatever became of the window, and in nobody's way later."""

from __future__ import annotations

import ctypes
import errno
import gc

import pytest

from dmasync import SyncType
from dmasync.fakes import faults


def test_the_view_is_dead_though_the_start_was_refused_and_that_only_logged(buffer, backend):
    backend.inject(faults.error(errno.EIO))
    with buffer.cpu_access(SyncType.READ, on_error="log") as view:
        assert view[0] == 0
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_the_view_is_dead_though_the_window_was_moved_away(buffer):
    access = buffer.cpu_access(SyncType.READ)
    with access as view:
        heir = access.move()
    with pytest.raises(ValueError, match="released"):
        view[0]
    heir.end()


def test_an_access_that_is_kept_keeps_no_bytes_that_were_looked_at_beyond_its_end(buffer, backend):
    access = buffer.cpu_access(SyncType.WRITE)
    with access as view:
        four_bytes = (ctypes.c_char * 4).from_buffer(view)
    del four_bytes, view
    gc.collect()
    buffer.close()
    assert backend.kernel.mappings() == []
    assert not access.active
