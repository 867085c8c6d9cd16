"""The driver of vgem's card, as far as a host without one tells; tests/conformance uses it on a real kernel."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from dmasync.harness import vgem
from dmasync.harness.vgem import Vgem


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vgem.glob, "glob", lambda pattern: [str(path) for path in tmp_path.iterdir()])
    return tmp_path


@pytest.mark.skipif(struct.calcsize("P") != 8, reason="the numbers are those of a 64-bit process")
def test_the_requests_have_the_numbers_of_the_user_api() -> None:
    assert {name: value for name, value in vars(vgem).items() if name.startswith("_DRM_IOCTL")} == {
        "_DRM_IOCTL_VERSION": 0xC0406400,
        "_DRM_IOCTL_GEM_CLOSE": 0x40086409,
        "_DRM_IOCTL_PRIME_HANDLE_TO_FD": 0xC00C642D,
        "_DRM_IOCTL_PRIME_FD_TO_HANDLE": 0xC00C642E,
        "_DRM_IOCTL_VGEM_FENCE_ATTACH": 0xC0106441,
        "_DRM_IOCTL_VGEM_FENCE_SIGNAL": 0x40086442,
        "_DRM_IOCTL_MODE_CREATE_DUMB": 0xC02064B2,
    }


def test_a_card_of_another_driver_is_given_back_and_none_is_found(nodes: Path, monkeypatch: Any) -> None:
    (nodes / "card0").touch()
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, request, argument: 0)
    with pytest.raises(FileNotFoundError, match="modprobe vgem"):
        Vgem.find()
    assert os.listdir("/proc/self/fd") == before


def test_what_is_no_card_at_all_is_given_back_too(nodes: Path) -> None:
    (nodes / "card0").touch()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        Vgem.find()
    assert os.listdir("/proc/self/fd") == before


def test_the_card_of_vgem_is_opened_and_closed(nodes: Path, monkeypatch: Any) -> None:
    (nodes / "card0").touch()
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(vgem, "_driver", lambda fd: b"vgem")
    with Vgem.find() as card:
        assert os.readlink(f"/proc/self/fd/{card.fd}") == str(nodes / "card0")
    assert os.listdir("/proc/self/fd") == before
