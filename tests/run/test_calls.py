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


def test_a_shell_script_finds_what_it_would_find_on_a_kernel(dmasync_run):
    script = """
        ls /dev/dma_heap
        test -c /dev/udmabuf && test -w /dev/udmabuf && echo there
        stat -c %F /dev/dma_heap/system /dev/dma_heap
        readlink -f /dev/dma_heap/../udmabuf
        head -c1 /dev/udmabuf 2>/dev/null || echo unreadable
        exec 9<>/dev/udmabuf && readlink /proc/self/fd/9
        cat /sys/module/udmabuf/parameters/list_limit
    """
    done = dmasync_run("sh", "-c", script, options=["--node=/dev/udmabuf", "--node=/dev/dma_heap/system"], check=False)
    assert done.output.splitlines() == [
        "system", "there", "character special file", "directory", "/dev/udmabuf", "unreadable", "/dev/udmabuf", "1024",
    ]  # fmt: skip
    assert (done.errors, done.status) == ("", 0)
