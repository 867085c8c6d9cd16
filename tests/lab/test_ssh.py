"""A board behind a real sshd: its python3 has neither pip nor numpy nor pytest.

Needs openssh-server and openssh-client (sudo apt-get install openssh-server openssh-client).
"""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmasync.cli import main

pytestmark = pytest.mark.lab
ONLY = ["--only", "*test_null_ioctl*", "--only", "*test_empty_loop*"]


def _key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an sshd of this user, whose commands find a bare python3 first."""
    server = shutil.which("sshd") or "/usr/sbin/sshd"
    assert Path(server).exists(), "needs sshd: sudo apt-get install openssh-server"
    Path("/run/sshd").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    (programs / "python3").chmod(0o755)
    host, own = _key(tmp_path / "host"), _key(tmp_path / "own")
    shutil.copy(own.with_suffix(".pub"), tmp_path / "authorized")
    settings = {
        "HostKey": host, "AuthorizedKeysFile": tmp_path / "authorized", "PidFile": "none", "StrictModes": "no",
        "UsePAM": "no", "ListenAddress": f"127.0.0.1:{port}",
        "ForceCommand": f'PATH={programs}:$PATH sh -c "$SSH_ORIGINAL_COMMAND"',
    }  # fmt: skip
    (tmp_path / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    (tmp_path / "ssh_config").write_text(
        f"Host *\n IdentityFile {own}\n IdentitiesOnly yes\n UserKnownHostsFile {tmp_path / 'known'}\n"
        " StrictHostKeyChecking accept-new\n"
    )
    client = shutil.which("ssh")
    assert client, "needs ssh: sudo apt-get install openssh-client"
    way = tmp_path / "way"
    way.mkdir()
    (way / "ssh").write_text(f'#!/bin/sh\nexec {client} -F "{tmp_path / "ssh_config"}" "$@"\n')
    (way / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(way), prepend=":")
    serving = subprocess.Popen([server, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=subprocess.PIPE)
    assert serving.stderr is not None
    assert any(b"listening" in line for line in serving.stderr)
    yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
    serving.terminate()
    serving.stderr.close()
    serving.wait()


def there(board: str, command: str) -> subprocess.CompletedProcess[str]:
    user, _, port = board.removeprefix("ssh://").rpartition(":")
    return subprocess.run(["ssh", "-p", port, user, command], capture_output=True, text=True, check=False)


def test_a_bare_python_on_the_board_is_measured_over_ssh(board: str, tmp_path: Path) -> None:
    for package in ("numpy", "pytest", "pip"):
        assert f"No module named '{package}'" in there(board, f"python3 -c 'import {package}'").stderr
    assert main(["bench", "--on", board, "--quiet", *ONLY, "-o", str(tmp_path / "run.json")]) == 0
    run = json.loads((tmp_path / "run.json").read_text())
    assert len(run["benchmarks"]) == 2
    assert run["dmasync"]["board"]["address"] == board
    assert all(row["stats"]["median"] > 0 for row in run["benchmarks"])


def test_a_board_whose_key_is_refused_is_told_in_a_line(
    board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "authorized").write_text("")
    assert main(["bench", "--on", board, "--quiet", *ONLY, "-o", str(tmp_path / "run.json")]) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{board} cannot be reached: " in line
    assert "Permission denied" in line
    assert not (tmp_path / "run.json").exists()
