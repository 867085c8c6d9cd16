"""What programs do with descriptors, processes, signals and filters around their dma-bufs."""

from __future__ import annotations

import sys

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


def test_a_long_listing_of_the_nodes_has_no_errors(dmasync_run):
    done = dmasync_run("ls", "-la", "/dev/udmabuf", "/dev/dma_heap", check=False)
    assert (done.status, done.errors) == (0, "")
    assert done.output.count("crw-rw-rw-") > 1
    program = (
        "import os; print(os.stat('/dev/dma_heap/..') == os.stat('/dev'), os.path.exists('/dev/dma_heap/../none'))"
    )
    assert dmasync_run(sys.executable, "-c", program, check=False).output == "True False\n"


ATTRIBUTES = """
import errno, os
for path in ("/dev/udmabuf", "/dev/dma_heap/system", "/dev/dma_heap"):
    for follow in (True, False):
        assert os.listxattr(path, follow_symlinks=follow) == []
        for name in ("user.x", "security.x", "trusted.x", "system.x", "x", "user.", "security."):
            try:
                os.getxattr(path, name, follow_symlinks=follow)
            except OSError as problem:
                said = errno.EOPNOTSUPP if name in ("system.x", "x") else errno.ENODATA
                if name == "security." or (name == "user." and path == "/dev/dma_heap"):
                    said = errno.EINVAL
                assert problem.errno == said, (path, name)
try:
    os.getxattr("/dev/dma_heap/none", "user.x")
except FileNotFoundError:
    print("done")
"""


def test_nodes_have_no_extended_attributes(dmasync_run):
    done = dmasync_run(sys.executable, "-c", ATTRIBUTES, check=False)
    assert (done.output, done.errors) == ("done\n", "")
