"""A device beside a C program, on a machine whose devices see the CPU's caches and on one where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

CAMERA = Path(__file__).with_name("programs") / "camera_device.py"


def see(compiled, dmasync_run, how, *options, check=False):
    return dmasync_run(compiled("frames"), how, options=[f"--device={CAMERA}", *options], check=check)


@pytest.mark.parametrize("how", ["right", "wrong"])
def test_a_coherent_machine_forgives(compiled, dmasync_run, how):
    assert see(compiled, dmasync_run, how).output.split() == ["1", "2", "3"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_who_starts_sees_each_frame_on_every_machine(compiled, dmasync_run, seed):
    done = see(compiled, dmasync_run, "right", f"--noncoherent={seed}", check=True)
    assert (done.output.split(), done.status) == (["1", "2", "3"], 0), done.errors


def test_who_forgets_start_reads_stale_bytes_and_is_told(compiled, dmasync_run):
    seen = {see(compiled, dmasync_run, "wrong", f"--noncoherent={seed}").output for seed in range(6)}
    assert seen != {"1 2 3 \n"}
    done = see(compiled, dmasync_run, "wrong", "--noncoherent=0", check=True)
    assert done.status == 1
    assert "access-outside-window" in done.errors
