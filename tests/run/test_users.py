"""Small programs in the manner of real ones that hand dma-bufs around: compositors, pools, sandboxes, loops."""

from __future__ import annotations

import pytest

USERS = [
    "compositor", "pool", "sandbox", "relatives", "folders", "loop", "thief", "mover", "crowd", "spawn", "daemon",
]  # fmt: skip


def test_a_program_with_a_ring_of_requests_gets_on_without(compiled, dmasync_run):
    done = dmasync_run(compiled("users"), "ring", check=False)
    assert (done.status, done.output) == (0, "")
    assert "io_uring" in done.errors


def test_a_plugin_has_its_buffer_while_it_is_loaded(compiled, dmasync_run):
    done = dmasync_run(compiled("users"), "load", compiled("plugin", "-shared", "-fPIC"))
    assert (done.output, {finding.kind for finding in done.findings}) == ("", {"sync-on-closed-fd"}), done.errors


@pytest.mark.parametrize("how", [(), ("-static-pie", "-fPIE")], ids=["dynamic", "static-pie"])
@pytest.mark.parametrize("kind", USERS)
def test_a_user_is_answered_as_by_the_kernel(compiled, dmasync_run, kind, how):
    done = dmasync_run(compiled("users", *how), kind, check=False, timeout=60)
    assert (done.status, done.output, done.errors) == (0, "", "")
