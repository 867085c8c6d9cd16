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
