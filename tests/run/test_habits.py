"""What programs do with descriptors, processes, signals and filters around their dma-bufs."""

from __future__ import annotations

import pytest

HABITS = ["ranges", "few_numbers", "files_of_a_thread", "jumps", "children", "filters", "namespaces", "stops"]


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind", HABITS)
def test_a_programs_habits_are_answered_as_by_the_kernel(compiled, dmasync_run, kind, static):
    done = dmasync_run(compiled("habits", *(["-static"] if static else [])), kind, check=False)
    assert (done.status, done.output, done.errors) == (0, "", "")


def test_a_program_that_wants_notifications_of_its_own_is_told_why_it_has_none(compiled, dmasync_run):
    done = dmasync_run(compiled("habits"), "listener", check=False)
    assert (done.status, done.output) == (0, "")
    assert "Linux allows one such listener alone" in done.errors
