"""Every kind of call, made by a C program: what it answers, and that pages are shared."""

from __future__ import annotations

import pytest

KINDS = [
    "heap", "shared_pages", "pieces", "paths", "folder", "duplicates", "refused", "sync_files", "travel", "exec",
    "no_bytes", "low_numbers", "wide", "odd_paths", "full",
]  # fmt: skip


@pytest.mark.parametrize("linking", [(), ("-static",)], ids=["dynamic", "static"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_c_program_gets_the_kernels_answers(compiled, dmasync_run, kind, linking):
    done = dmasync_run(compiled("calls", *linking), kind, check=False)
    assert (done.output, done.errors, done.status) == ("", "", 0)
