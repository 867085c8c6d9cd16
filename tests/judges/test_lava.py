"""What LAVA and tuxrun are given, before LAVA's own eyes: its schemas, its test shell, tuxrun's own parser.

LAVA's parts come from Debian's packages lava-common and lava-dispatcher; nothing is installed. LAVA's test shell runs
``lava-test-case`` with functions of its own, which write a line for each signal.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmasync.harness.vm.apt import Apt
from dmasync.harness.vm.host import host_machine
from tests.ci.steps import ROOT
from tests.support.run_files import exact

pytestmark = pytest.mark.judges
PAIR = "benchmarks/test_sync_pair.py::test_sync_pair[udmabuf]"
LAVA = ROOT / "docs/ci/lava"
DEFINITION = yaml.safe_load((LAVA / "dmasync.yaml").read_text())


@pytest.fixture(scope="session")
def lava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of LAVA's Python packages."""
    into = tmp_path_factory.mktemp("lava")
    for package in Apt(host_machine()).download(["lava-common", "lava-dispatcher"], into):
        subprocess.run(["dpkg", "-x", package, into], check=True)
    return into / "usr/lib/python3/dist-packages"


@pytest.fixture
def shell(lava: Path, tmp_path: Path) -> dict[str, str]:
    """The variables of a test shell: LAVA's own programs and this dmasync are on its PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for script in (lava / "lava_dispatcher/lava_test_shell").glob("lava-*"):
        if script.is_file():
            # As the dispatcher does it: the interpreter's line goes to the top.
            (programs / script.name).write_text(f"#!/bin/sh\n{script.read_text()}")
            (programs / script.name).chmod(0o755)
    (programs / "dmasync").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dmasync "$@"\n')
    (programs / "dmasync").chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LAVA_RESULT_DIR": str(tmp_path / "results"),
    }


def cases(printed: str) -> dict[str, str]:
    """The result of each test case that LAVA was told of, with its figure."""
    found = {}
    for line in printed.splitlines():
        if "LAVA_SIGNAL_TESTCASE" in line:
            words = line.split("TEST_CASE_ID=")[1].rstrip(">").split()
            found[words[0]] = " ".join(word.split("=", 1)[1] for word in words[1:])
    return found


def measured(shell: dict[str, str], folder: Path, *arguments: str) -> dict[str, str]:
    script = LAVA / "measure.sh"
    done = subprocess.run(
        ["sh", "-ex", script, *arguments], env=shell, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return cases(done.stdout)


def test_lava_takes_the_test_definition(lava: Path) -> None:
    text = f"import sys; sys.path.insert(0, {str(lava)!r}); import yaml; from lava_common.schemas.test import testdef; "
    text += "testdef.validate(yaml.safe_load(sys.stdin))"
    for content, status in ((DEFINITION, 0), ({**DEFINITION, "metadata": {"name": "dmasync"}}, 1)):
        given = yaml.safe_dump(content)
        done = subprocess.run([sys.executable, "-c", text], input=given, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr


def test_the_definition_s_last_step_measures_with_the_parameters_that_it_has(
    shell: dict[str, str], tmp_path: Path
) -> None:
    only = "#!/bin/sh\n"
    only += f'case $1 in bench) set -- "$@" --quick --only "*null*";; esac\nexec "{sys.executable}" -m dmasync "$@"\n'
    (tmp_path / "programs" / "dmasync").write_text(only)
    parameters = {**DEFINITION["params"], "ON": "fake"}
    script = "set -e\n" + "".join(f"{name}={value!r}\n" for name, value in parameters.items())
    script += DEFINITION["run"]["steps"][-1]
    done = subprocess.run(["sh", "-c", script], env=shell, cwd=ROOT, capture_output=True, text=True, check=False)
    (ROOT / "run.json").unlink()
    assert done.returncode == 0, done.stderr
    assert cases(done.stdout) == {"dmasync-bench": "pass"}


def test_each_row_reaches_lava_with_its_figure_and_doubt_is_unknown(shell: dict[str, str], tmp_path: Path) -> None:
    base = exact(tmp_path / "base.json", {PAIR: 100, "a.py::gone": 5})
    run = exact(tmp_path / "measured.json", {PAIR: 150})
    # What was measured is a run of two rows that is there already.
    gate = f'#!/bin/sh\n[ "$1" = bench ] && exec cp {run} run.json\nexec "{sys.executable}" -m dmasync "$@"\n'
    (tmp_path / "programs" / "dmasync").write_text(gate)
    found = measured(shell, tmp_path, "hardware", str(base))
    assert found.pop("dmasync-bench") == "pass"
    assert found.pop("dmasync-gate") == "fail"
    assert sorted(found.values()) == ["fail", "fail instructions 150", "unknown"]  # one for the comparison as a whole


def test_a_board_that_lacks_the_nodes_is_skipped_and_one_that_is_gone_is_unknown(
    shell: dict[str, str], tmp_path: Path
) -> None:
    assert measured(shell, tmp_path, "ssh://127.0.0.1:1", "base.json") == {"dmasync-bench": "unknown"}
    assert measured(shell, tmp_path, "nowhere", "base.json") == {"dmasync-bench": "unknown"}


RENDER = """
import sys
from tuxrun.argparse import setup_parser
from tuxlava.jobs import Job
options = setup_parser().parse_args(sys.argv[1:])
names = ("device", "kernel", "rootfs", "overlays", "commands", "timeouts")
job = Job(**{name: getattr(options, name) for name in names})
job.initialize()
print(job.render())
"""
"""What tuxrun does with its arguments before it starts a container: read them, and write LAVA's job."""


def test_tuxrun_takes_the_call_and_lava_the_job_that_it_makes(
    lava: Path, shell: dict[str, str], tmp_path: Path
) -> None:
    job_file, overlay = tmp_path / "job.yaml", tmp_path / "overlay.tar.gz"
    (tmp_path / "render.py").write_text(RENDER)
    programs = tmp_path / "programs"
    (programs / "tuxrun").write_text(
        f'#!/bin/sh\nfor word in "$@"; do case $word in *overlay.tar.gz) cp "$word" {overlay};; esac; done\n'
        f'exec "{sys.executable}" {tmp_path}/render.py "$@" >{job_file}\n'
    )
    (programs / "tuxrun").chmod(0o755)
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3").chmod(0o755)
    for name in ("bzImage", "rootfs.ext4"):
        (tmp_path / name).touch()
    base = exact(tmp_path / "base.json", {PAIR: 100})
    called = subprocess.run(
        ["sh", LAVA / "tuxrun.sh", tmp_path / "bzImage", tmp_path / "rootfs.ext4", base],
        env={**shell, "PIP_NO_DEPS": "1"}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert called.returncode == 0, called.stderr
    text = f"import sys; sys.path.insert(0, {str(lava)!r}); import yaml; from lava_common.schemas import validate; "
    text += "validate(yaml.safe_load(sys.stdin), extra_context_variables=['no_network'])"  # newer than Debian's LAVA
    job = job_file.read_text()
    done = subprocess.run([sys.executable, "-c", text], input=job, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (step,) = run_steps(yaml.safe_load(job))
    root = tmp_path / "board"
    with tarfile.open(overlay) as archive:
        archive.extractall(root, filter="data")
    program = root / "opt/dmasync/bin/dmasync"
    program.write_text(program.read_text().replace("/opt/", f"{root}/opt/"))
    on_board = step.replace("/opt/", f"{root}/opt/").replace("measure.sh hardware", "measure.sh nowhere")
    taken = subprocess.run(["sh", "-c", on_board], env=shell, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert cases(taken.stdout)["dmasync-bench"] == "unknown", taken.stderr  # "nowhere" is no target


def run_steps(job: dict[str, Any]) -> list[str]:
    """The shell lines of a LAVA job's tests."""
    tests = [action["test"] for action in job["actions"] if "test" in action]
    found = [one["repository"]["run"]["steps"] for test in tests for one in test["definitions"]]
    return [step for steps in found for step in steps]
