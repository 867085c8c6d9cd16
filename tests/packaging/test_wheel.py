"""The wheel, built and installed into an empty environment, and used there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]


def run(*line: str | Path, **options: object) -> str:
    """The standard output of a command that must succeed, away from the checkout and its environment."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in line], capture_output=True, text=True, env=environment, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the sources, so that the checkout stays as it is and nothing of it is used by accident."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    names = ["dmasync", "fakes", "benchmarks", "pyproject.toml", "README.md", "LICENSE"]
    run("cp", "-r", *[ROOT / name for name in names if (ROOT / name).exists()], source)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    interpreter = folder / "bin" / "python"
    run(interpreter, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    return interpreter


def test_the_wheel_has_one_package_its_types_and_templates_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "dmasync/benchmarks/test_floor.py",
        "dmasync/harness/bench/suites.ini",
        "dmasync/harness/vm/kernels/guest.config",
        "dmasync/py.typed",
        "dmasync/fakes/py.typed",
        "dmasync/syncer.py",
        "dmasync/fakes/kernel/kernel.py",
    ):
        assert name in names
    assert any(name.startswith("dmasync/harness/report/templates/") for name in names)
    roots = {name.partition("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"dmasync"}


def test_the_suites_run_from_the_wheel_in_an_empty_folder(wheel, tmp_path):
    """The wheel's own environment, with what the extra ``harness`` needs lent by the one that runs this test."""
    venv.create(tmp_path / "environment", with_pip=True)
    interpreter = tmp_path / "environment" / "bin" / "python"
    run(interpreter, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    own = run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    lent = sysconfig.get_path("purelib")  # a plain folder on the path: links to the checkout in it do nothing
    (Path(own) / "lent.pth").write_text(f"{lent}\n", encoding="utf-8")
    folder = tmp_path / "empty"
    folder.mkdir()
    command = interpreter.parent / "dmasync"
    run(command, "bench", "--on", "fake", "--quick", "--only", "*null_ioctl", "--only", "*1MiB-READ*", cwd=folder)
    document = json.loads((folder / "dmasync-bench.json").read_text(encoding="utf-8"))
    names = [benchmark["fullname"] for benchmark in document["benchmarks"]]
    assert "benchmarks/test_floor.py::test_null_ioctl" in names
    assert "benchmarks/test_sync_steps.py::test_start[udmabuf-1MiB-READ]" in names
    assert document["commit_info"]["id"].startswith("dmabuf-sync-")
    assert [path.name for path in folder.iterdir()] == ["dmasync-bench.json"]


def test_the_library_needs_nothing_else(wheel, python, tmp_path):
    metadata = next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("METADATA"))
    required = [
        line
        for line in zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert required == []
    program = (
        "import dmasync, sys\n"
        "print(dmasync.__file__)\n"
        "with open('/dev/null') as file:\n"
        "    try: dmasync.DmaSyncer(file).start()\n"
        "    except dmasync.DmaSyncError as error: print(error.errno)\n"
    )
    path, code = run(python, "-c", program, cwd=tmp_path).split()
    assert str(python.parent.parent) in path
    assert code == "25"


def test_the_fake_works_where_nothing_else_is_installed(python, tmp_path):
    program = (
        "import dmasync\n"
        "from dmasync import fakes\n"
        "backend = fakes.FakeBackend()\n"
        "flags = dmasync.DmaBufAllocatorFlag.UDMABUF\n"
        "with dmasync.DmaBufAllocator(flags, backend=backend) as allocator, allocator.alloc('x', 4096) as buffer:\n"
        "    with buffer.cpu_access() as view: view[0] = 1\n"
        "print(len(backend.journal.transitions()), backend.kernel.open_fds())\n"
    )
    assert run(python, "-c", program, cwd=tmp_path) == "2 {}\n"


def test_the_command_is_installed_and_tells_its_subcommands(python, tmp_path):
    by_name = run(python.parent / "dmasync", "--help", cwd=tmp_path)
    by_module = run(python, "-m", "dmasync", "--help", cwd=tmp_path)
    for text in (by_name, by_module):
        for name in ("probe", "vm", "bench", "gate", "report", "replay"):
            assert name in text


def test_the_pytest_plugin_is_registered(wheel):
    entry_points = next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(entry_points).decode()
    assert "[pytest11]" in text
    assert "dmasync = dmasync.fakes.pytest_plugin" in text


def test_where_there_is_no_compiler_the_plain_twin_is_installed_and_the_build_says_so(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    names = ["dmasync", "fakes", "benchmarks", "pyproject.toml", "README.md", "LICENSE"]
    run("cp", "-r", *[ROOT / name for name in names], source)
    run("find", source / "dmasync", "-name", "*.so", "-delete")
    venv.create(tmp_path / "environment", with_pip=True)
    interpreter = tmp_path / "environment" / "bin" / "python"
    install = 'CC=/bin/false exec "$1" -m pip install -v --no-deps "$2" 2>&1'
    told = run("sh", "-c", install, "sh", interpreter, source, cwd=tmp_path)
    assert 'building extension "dmasync._window" failed' in told
    program = (
        "import dmasync\n"
        "from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer\n"
        "from dmasync.fakes import FakeBackend\n"
        "backend = FakeBackend()\n"
        "with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=backend) as allocator:\n"
        "    with allocator.alloc('frame', 4096) as buffer, DmaSyncer(buffer): pass\n"
        "print(dmasync.compiled, len(backend.journal.transitions()))\n"
    )
    assert run(interpreter, "-c", program, cwd=tmp_path) == "False 2\n"
