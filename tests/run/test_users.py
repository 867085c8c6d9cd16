"""Small programs in the manner of real ones that hand dma-bufs around: compositors, pools, sandboxes, loops."""

from __future__ import annotations

import pytest

USERS = [
    "compositor", "pool", "sandbox", "relatives", "folders", "loop", "thief", "mover", "crowd", "spawn", "daemon",
]  # fmt: skip


@pytest.mark.parametrize("how", [(), ("-static-pie", "-fPIE")], ids=["dynamic", "static-pie"])
@pytest.mark.parametrize("kind", USERS)
def test_a_user_is_answered_as_by_the_kernel(compiled, dmasync_run, kind, how):
    done = dmasync_run(compiled("users", *how), kind, check=False, timeout=60)
    assert (done.status, done.output, done.errors) == (0, "", "")
