"""Compiles the C of this folder with the headers of the interpreter that runs."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

_HERE = Path(__file__).parent
_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wno-deprecated-declarations"]


class CannotBuildError(Exception):
    """There is no compiler, or there are no headers; says which."""


def compiler() -> list[str]:
    """The interpreter's own compiler where it is installed, else ``cc`` or ``gcc``."""
    own = shlex.split(sysconfig.get_config_var("CC") or "")[:1]
    for name in [*own, "cc", "gcc"]:
        if shutil.which(name):
            return [name]
    raise CannotBuildError("there is no C compiler: install gcc")


def build_module(folder: Path) -> ModuleType:
    """The extension module ``_points``, built in *folder*. Raises CannotBuildError."""
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").exists():
        raise CannotBuildError(f"there are no headers in {include}: install this interpreter's development package")
    target = folder / f"_points{sysconfig.get_config_var('EXT_SUFFIX')}"
    _compile(target, ["_points.c", "kernel.c"], [f"-I{include}"])
    spec = importlib.util.spec_from_file_location("_points", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_preload(folder: Path) -> Path:
    """The library for LD_PRELOAD, built in *folder*. Raises CannotBuildError."""
    target = folder / "preload.so"
    _compile(target, ["preload.c", "kernel.c"], [])
    return target


def _compile(target: Path, sources: list[str], options: list[str]) -> None:
    command = [*compiler(), *_FLAGS, *options, "-o", str(target), *(str(_HERE / name) for name in sources)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise AssertionError(f"{shlex.join(command)} failed:\n{done.stderr}")
