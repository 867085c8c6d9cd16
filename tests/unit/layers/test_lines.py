"""Bytes by cache line: what the non-coherent memory is made from."""

from __future__ import annotations

from dmasync.fakes.memory.lines import Bytes, Spans, differing_bytes


def test_nothing_added_is_nothing():
    spans = Spans()
    spans.add(64, 64)
    spans.add(128, 64)
    assert not spans
    spans.add(64, 128)
    assert list(spans) == [(64, 128)]


def test_of_each_run_the_bytes_from_the_first_to_the_last_that_differ():
    one, other = Bytes.zeroed(4096), Bytes.zeroed(4096)
    one.view[70] = one.view[80] = 1
    assert differing_bytes(one, other, [(64, 128), (128, 192), (0, 64)]) == ((70, 11),)
    one.view[200] = 1
    assert differing_bytes(one, other, [(64, 128), (192, 256)], most=1) == ((70, 11),)
