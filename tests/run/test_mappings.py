"""What is asked of a dma-buf's mapping once it is there: advice, msync, mremap, mincore."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from dmasync.harness.run.program import areas


def test_a_buffers_mapping_answers_as_on_the_kernel(compiled, dmasync_run):
    done = dmasync_run(compiled("mappings"), check=False)
    assert (done.status, done.output, done.errors) == (0, "", "")


def test_watching_the_pages_is_not_taken_for_the_programs_advice(compiled, dmasync_run):
    done = dmasync_run(compiled("mappings"), options=["--allow=access-outside-window"])
    assert (done.status, done.output) == (0, ""), done.errors


def test_a_buffer_is_held_by_each_part_of_its_mappings(compiled, dmasync_run):
    done = dmasync_run(compiled("mappings"), "counts", check=False)
    assert (done.status, done.output, done.errors) == (0, "", "")


def test_what_advice_and_map_stack_made_of_a_mapping_moves_with_it(compiled, dmasync_run):
    done = dmasync_run(compiled("mappings"), "moved", check=False)
    assert (done.status, done.output, done.errors) == (0, "", "")


def test_mappings_of_a_memfd_are_told_from_those_of_its_udmabuf(compiled, dmasync_run):
    done = dmasync_run(compiled("mappings"), "both", check=False)
    assert (done.status, done.output, done.errors) == (0, "", "")


def test_a_buffer_behind_other_memory_in_one_call_is_not_modelled(compiled, dmasync_run):
    done = dmasync_run(compiled("mappings"), "behind", check=False)
    assert done.status == errno.ENOSYS
    assert "madvise(): not modelled: a dma-buf's mapping behind others in one call" in done.errors


@pytest.mark.parametrize("asks", [True, False])
def test_areas_are_found_on_kernels_that_can_be_asked_and_on_others(monkeypatch, asks):
    if not asks:
        monkeypatch.setattr(areas, "_asked", lambda maps, address: None)
    memfd = os.memfd_create("areas")
    os.ftruncate(memfd, 3 * mmap.PAGESIZE)
    mapping = mmap.mmap(memfd, 2 * mmap.PAGESIZE, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
    state = os.fstat(memfd)
    key = (state.st_dev, state.st_ino)
    everything = list(areas.areas(os.getpid(), 0, 1 << 47))
    assert [area.begin for area in everything] == sorted(area.begin for area in everything)
    (area,) = [area for area in everything if area.key == key]
    assert (area.end - area.begin, area.offset) == (len(mapping), mmap.PAGESIZE)
    assert (area.prot, area.is_shared) == (mmap.PROT_READ, True)
    assert list(areas.areas(os.getpid(), area.begin + 1, 1)) == [area]
    assert area not in list(areas.areas(os.getpid(), area.end, 1))


def test_a_process_that_has_ended_has_no_areas():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert list(areas.areas(child, 0, 1 << 47)) == []
