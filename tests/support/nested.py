"""The tests once more, in a pytest of their own, which loads no plugin that they do not use: most of its start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pytest_of_its_own(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    plugins = ["-p", "timeout", "-p", "dmasync", "-p", "fakefs", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", *plugins, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**(os.environ if env is None else env), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
