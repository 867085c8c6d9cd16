"""Allowances: the defaults, ``[tool.dmasync.gate]``, the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmasync.cli import main
from dmasync.harness.exit_status import CommandError
from dmasync.harness.judge.settings import Allowance, GateSettings, load_settings
from tests.support.run_files import HEAP, PAIR, exact


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text)
    return path


def test_a_row_s_allowance_is_the_last_rule_that_matches(tmp_path: Path) -> None:
    path = settings_file(
        tmp_path,
        """
        [tool.dmasync.gate]
        exact-percent = 0.2
        exact-instructions = 5
        [tool.dmasync.gate.rows]
        "*udmabuf*" = 1
        "*[udmabuf-READ-1MiB]" = { instructions = 50 }
        """,
    )
    settings = load_settings(path)
    assert settings.exact(HEAP) == Allowance(0.2, 5)
    assert settings.exact(PAIR) == Allowance(1, 50)
    assert settings.exact("x[udmabuf]") == Allowance(1, 5)


def test_rules_are_found_from_the_folder_that_the_gate_is_called_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file(tmp_path, '[tool.dmasync.gate.rows]\n"*udmabuf*" = 10\n')
    inner = tmp_path / "inner"
    inner.mkdir()
    base, candidate = exact(tmp_path / "b.json", {PAIR: 5649}), exact(tmp_path / "c.json", {PAIR: 6000})
    monkeypatch.chdir(inner)
    assert main(["gate", str(base), str(candidate)]) == 0
    assert main(["gate", str(base), str(candidate), "--settings", str(settings_file(inner, ""))]) == 1


def test_max_regression_replaces_the_general_percentage_and_no_rule(tmp_path: Path) -> None:
    path = settings_file(tmp_path, '[tool.dmasync.gate.rows]\n"*udmabuf*" = 1\n')
    settings = load_settings(path).with_max_regression(7)
    assert (settings.exact(HEAP).percent, settings.wall(HEAP).percent) == (7, 7)
    assert settings.exact(PAIR).percent == 1


@pytest.mark.parametrize(
    "text",
    [
        "[tool.dmasync.gate]\nexact-percents = 1",
        "[tool.dmasync.gate]\nexact-percent = -1",
        "[tool.dmasync.gate]\nexact-percent = nan",
        "[tool.dmasync.gate]\nexact-percent = 'much'",
        "[tool.dmasync.gate]\nfalse-alarms = 1.5",
        "[tool.dmasync.gate]\nfalse-alarms = 0",
        "[tool.dmasync.gate]\ndrift-percent = 100",
        "[tool.dmasync.gate]\nrows = 3",
        "[tool.dmasync.gate.rows]\n'*' = { percents = 1 }",
        "[tool.dmasync.gate.rows]\n'*' = true",
        "[tool.dmasync]\ngate = 3",
        "[tool.dmasync.gate",
    ],
)
def test_wrong_settings_are_refused_by_file_and_reason(tmp_path: Path, text: str) -> None:
    with pytest.raises(CommandError, match=r"pyproject\.toml: ") as caught:
        load_settings(settings_file(tmp_path, text))
    assert caught.value.status == 2


def test_a_folder_that_may_not_be_looked_into_has_no_settings(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refused)
    assert load_settings(start=tmp_path) == GateSettings()
