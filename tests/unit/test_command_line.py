"""What ``dmasync`` itself answers, without a subcommand: its version, completions for a shell."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from dmasync import cli


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_the_distributions(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([option])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"dmasync {importlib.metadata.version('dmabuf-sync')}\n"


def test_the_completion_knows_every_command_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="completion comes with dmabuf-sync[harness]")
    with pytest.raises(SystemExit) as stop:
        cli.main(["--print-completion", "bash"])
    assert stop.value.code == 0
    script = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    for command in cli.COMMANDS:
        assert f"_shtab_dmasync_{command}_option_strings=" in script
    assert "--max-regression" in script


def test_without_shtab_the_message_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["--print-completion", "zsh"])
    assert stop.value.code == 4
    assert "pip install shtab" in capsys.readouterr().err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_standard_stream_is_no_mistake(closed: str) -> None:
    line = f"{sys.executable} -m dmasync vm --version {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_the_system_that_nobody_expected_is_a_line_and_never_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_: object) -> int:
        raise PermissionError(13, "Permission denied", "/root/secret")

    monkeypatch.setattr("dmasync.harness.history.command.run", refused)
    with pytest.raises(SystemExit) as stop:
        cli.main(["history", "list"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "dmasync history: Permission denied: /root/secret\n"
