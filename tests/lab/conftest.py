"""A board behind an sshd, and a lab of two such boards.

Needs openssh-server and openssh-client (sudo apt-get install openssh-server openssh-client).
"""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.boards import Board, Lab, key
from tests.support.kernel_selftests import kernel_sources, selftest

__all__ = ["kernel_sources", "selftest"]


@pytest.fixture
def own_key(tmp_path: Path) -> Path:
    return key(tmp_path / "own")


@pytest.fixture
def sshd(tmp_path: Path, own_key: Path) -> Iterator[Board]:
    """A board by itself."""
    made = Board(tmp_path / "board", own_key)
    yield made
    made.close()


@pytest.fixture
def board(tmp_path: Path, sshd: Board, own_key: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a board, which this user's ssh has the key for."""
    (tmp_path / "ssh_config").write_text(
        f"Host *\n IdentityFile {own_key}\n IdentitiesOnly yes\n UserKnownHostsFile {tmp_path / 'known'}\n"
        " StrictHostKeyChecking accept-new\n"
    )
    client = shutil.which("ssh")
    assert client, "needs ssh: sudo apt-get install openssh-client"
    way = tmp_path / "way"
    way.mkdir()
    (way / "ssh").write_text(f'#!/bin/sh\nexec {client} -F "{tmp_path / "ssh_config"}" "$@"\n')
    (way / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(way), prepend=":")
    return f"ssh://{getpass.getuser()}@127.0.0.1:{sshd.port}"


@pytest.fixture
def lab(tmp_path: Path, own_key: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Two places, ``one`` and ``two``, which this user may acquire."""
    boards = {name: Board(tmp_path / name, own_key) for name in ("one", "two")}
    made = Lab(tmp_path / "lab", boards, own_key)
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LG_HOSTNAME", "host")
    monkeypatch.setenv("LG_USERNAME", "tester")
    yield made
    made.close()
    for each in boards.values():
        each.close()
