"""Which pages were touched: asked of the kernel, and nothing said where it does not say."""

from __future__ import annotations

import mmap
import os

import pytest

from dmasync.fakes.memory import host, touched
from dmasync.fakes.memory.touched import Touched, _PageMap
from tests.support.child import holds_in_a_child

PAGE = mmap.PAGESIZE


@pytest.fixture
def mapping():
    memfd = os.memfd_create("touched")
    os.ftruncate(memfd, 64 * PAGE)
    with mmap.mmap(memfd, 64 * PAGE) as mapping:
        os.close(memfd)
        yield mapping


def test_a_page_is_touched_until_it_is_forgotten(mapping):
    seen = Touched(mapping)
    assert seen.pages() == []
    mapping[20 * PAGE] = 1
    assert any(begin <= 20 * PAGE < end for begin, end in seen.pages())
    seen.forget()
    assert seen.pages() == []
    assert mapping[20 * PAGE] == 1


def test_a_mapping_that_is_gone_is_forgotten_already():
    mapping = mmap.mmap(-1, PAGE)
    seen = Touched(mapping)
    del mapping
    seen.forget()


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_a_kernel_that_does_not_say_leaves_all_untouched(mapping, tmp_path, monkeypatch, content):
    path = tmp_path / "pagemap"
    if content is not None:
        path.write_bytes(content)
    pages = _PageMap(os.fsencode(path))
    seen = Touched(mapping)
    mapping[0] = 1
    monkeypatch.setattr(touched, "_PAGEMAP", pages)
    assert seen.pages() == []
    if pages._fd >= 0:
        host.close(pages._fd)


def test_a_child_looks_at_its_own_pages(mapping):
    seen = Touched(mapping)
    assert seen.pages() == []

    def sees_a_touch() -> bool:  # its figures are its parent's
        mapping[3 * PAGE] = 1
        return any(begin <= 3 * PAGE < end for begin, end in seen.pages())

    assert holds_in_a_child(sees_a_touch)
    assert seen.pages() == []
