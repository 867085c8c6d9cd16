"""Runs the scripts in workflows as their service runs them: the same shell, the same variables, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


def loaded(name: str) -> dict[str, Any]:
    """A file of the project, which is YAML. Nothing but texts, lists and mappings: ``on`` is no truth value here."""
    return dict(yaml.load((ROOT / name).read_text(encoding="utf-8"), Loader=yaml.BaseLoader))  # noqa: S506 - texts


class Runner:
    """One job on GitHub: its folders, its files for outputs and summary, its variables."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.temporary, self.workspace = folder / "temporary", folder / "workspace"
        self.summary, self.output = folder / "summary.md", folder / "output"
        for made in (self.temporary, self.workspace):
            made.mkdir()
        for file in (self.summary, self.output):
            file.touch()
        self.variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "RUNNER_TEMP": str(self.temporary),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(self.output),
            **variables,
        }

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())

    def run(self, step: Mapping[str, Any], values: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a step's script. *values* are those of the expressions in its variables."""
        assert "${{" not in step["run"], "text that others choose would be taken for a script"
        variables = {name: filled(text, values) for name, text in step.get("env", {}).items()}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={**self.variables, **variables}, cwd=self.workspace, capture_output=True, text=True, check=False,
        )  # fmt: skip


def filled(text: str, values: Mapping[str, str]) -> str:
    """*text* with each expression's value in its place; KeyError where *values* lack one."""
    return _EXPRESSION.sub(lambda found: values[found[1]], text)


def step_named(steps: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [step for step in steps if step.get("name") == name]
    return found
