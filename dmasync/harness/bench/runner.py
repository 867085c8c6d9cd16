"""Run the suites on one target and write the run file: on this host, in a virtual machine, or on a board."""

from __future__ import annotations

import compileall
import contextlib
import importlib.metadata
import io
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import dmasync
from dmasync.harness.bench import worker
from dmasync.harness.bench.measurers import NOT_MEASURED
from dmasync.harness.bench.targets import HARDWARE, VM, Request
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.lab.address import LABGRID, BoardAddress, PlaceAddress, is_board, parse_board
from dmasync.harness.lab.archive import packed
from dmasync.harness.lab.board_facts import changes
from dmasync.harness.lab.connection import check_programs, measure_there
from dmasync.harness.progress import Progress, SilentProgress
from dmasync.harness.runs.facts import RUN_BLOCK
from dmasync.harness.runs.measuring_machine import HOST, machine_facts
from dmasync.harness.runs.writing import write_atomically
from dmasync.harness.scratch import scratch_folder
from dmasync.harness.vm import host_packages, kernels
from dmasync.harness.vm.guard import guarded
from dmasync.harness.vm.guest import host_files
from dmasync.harness.vm.host import host_machine
from dmasync.harness.vm.kernels import ARCHITECTURES
from dmasync.harness.vm.machine import EXACT_CLOCK_ARGUMENTS, EXACT_KERNEL_ARGUMENTS, VirtualMachine

ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""What else this Python has of pytest's plugins could change the run."""
SIZED = "test_sync_steps.py"
"""The suite that can be asked for other sizes."""
NO_TESTS = 5
"""pytest's status where it had nothing to run."""
_ROW = re.compile(r"row (\d+) of (\d+)\n")


class LostRunError(CommandError):
    """The run was measured, and its file cannot be written: ``text`` is what the file would hold."""

    def __init__(self, error: CommandError, text: str) -> None:
        super().__init__(str(error), error.status)
        self.text = text


def run_on(target: str, request: Request, output: Path, progress: Progress) -> ExitStatus:
    """Measure on *target*, whatever *request* says of that, and write *output*, whole or not at all.

    GOOD, or REGRESSION where a row failed by a defect; *output* then has the others. Raises CommandError: nothing
    was measured (3), or what the virtual machine raises; :class:`LostRunError` where *output* cannot be written.
    """
    with scratch_folder("bench") as scratch:
        file = scratch / "run.json"
        if is_board(target):
            status, text, provenance = _on_board(parse_board(target), request, file, progress)
        elif target == VM:
            status, text, provenance = _in_machine(request, file, progress)
        else:
            status, text, provenance = _here(target, request, file, progress)
        if status == NO_TESTS and request.only:
            raise CommandError(f"--only {' --only '.join(request.only)}: no row of the suites has such a name")
        if not file.is_file() or not file.stat().st_size:
            raise CommandError(f"nothing was measured{_why(text)}", ExitStatus.CANNOT_JUDGE)
        document = json.loads(file.read_text(encoding="utf-8"))
    document["commit_info"] = _commit_info()
    if is_board(target):
        _tell_machine(document["machine_info"], provenance["board"])
    else:
        document["machine_info"] |= {HOST: machine_facts()} if target == VM else machine_facts()
    document[RUN_BLOCK] |= provenance
    measured = json.dumps(document, indent=1) + "\n"
    if status != 0:
        progress.note(f"some rows failed (pytest's status {status}); they are not in {output}")
        for line in _failures(text):
            progress.note(line)
    try:
        write_atomically(output, measured)
    except CommandError as error:
        raise LostRunError(error, measured) from None
    return ExitStatus.GOOD if status == 0 else ExitStatus.REGRESSION


def suites_folder() -> Path:
    """Return the folder of the suites, ``dmasync/benchmarks``; in a checkout that is a link, and this its target.

    CommandError (4) where the installation lacks it.
    """
    folder = host_files.project_folder() / "dmasync" / "benchmarks"
    if not (folder / "conftest.py").is_file():
        raise CommandError(
            f"the suites are missing (no {folder}): install the package anew, "
            f"{sys.executable} -m pip install --force-reinstall 'dmabuf-sync[harness]'",
            ExitStatus.SKIPPED,
        )
    return folder.resolve()


def _suites(target: str, request: Request, *options: str) -> list[str]:
    """The command line of pytest that runs the suites on this host."""
    folder = suites_folder()
    what = folder / SIZED if request.sizes else folder
    line = [
        sys.executable,
        "-m",
        "pytest",
        str(what),
        f"--rootdir={folder.parent}",
        "-c",
        str(Path(__file__).with_name("suites.ini")),
    ]
    line += ["-q", "-rN", "-p", "no:cacheprovider", "-p", "pytest_benchmark.plugin", "--assert=plain"]
    line += ["--benchmark-quiet", f"--dmasync-on={target}", "--dmasync-progress"]
    line += ["--dmasync-exact"] * request.exact + ["--dmasync-quick"] * request.quick
    line += [f"--dmasync-sizes={','.join(map(str, request.sizes))}"] * bool(request.sizes)
    line += [f"--dmasync-only={glob}" for glob in request.only]
    return [*line, *options]


def _run(line: Sequence[str], progress: Progress) -> tuple[int, str]:
    """Run *line* here; return its status and what it printed. However this ends, nothing of it is left."""
    with tempfile.TemporaryFile() as printed:
        sink = _Rows(progress)
        with guarded(
            line,
            stdout=printed,
            stderr=subprocess.PIPE,
            # Nothing of the folder that this runs in is imported: python -m would put it first.
            cwd="/",
            env={**own_environment(), **ENVIRONMENT, "PYTHONPATH": _import_path(), "PYTHONDONTWRITEBYTECODE": "1"},
        ) as process:
            assert process.stderr is not None  # noqa: S101 - asked for above
            with process.stderr as stderr:
                for text in stderr:
                    sink.write(text)
            status = int(process.wait())
        progress.done()
        printed.seek(0)
        return status, printed.read().decode(errors="replace") + sink.text


def own_environment() -> dict[str, str]:
    """The variables of this process without pytest's: what another pytest around it was told is not for the suites."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def _import_path() -> str:
    """PYTHONPATH with this very package first, which may be an uninstalled checkout."""
    return os.pathsep.join([str(host_files.project_folder()), *filter(None, [os.environ.get("PYTHONPATH")])])


def _here(target: str, request: Request, file: Path, progress: Progress) -> tuple[int, str, dict[str, Any]]:
    return (*_run(_suites(target, request, f"--benchmark-json={file}"), progress), {})


def _in_machine(request: Request, file: Path, progress: Progress) -> tuple[int, str, dict[str, Any]]:
    machine_name = ARCHITECTURES[request.arch] if request.arch else host_machine()
    if request.setup:
        host_packages.install_missing(progress, machine_name)
    kernel = kernels.resolve(request.kernel, machine=machine_name, progress=progress)
    folder = suites_folder()
    # What is to be measured, before anything boots: the guest has nothing to do but that.
    plan, answers = file.with_name("plan.jsonl"), file.with_name("answers.jsonl")
    status, text = _run(_suites(VM, request, f"--dmasync-plan={plan}"), SilentProgress())
    if status:
        return status, text, {}
    _compile()
    machine = VirtualMachine(
        kernel=kernel,
        exact=request.exact,
        append=request.append,
        output=file.parent,
        mount=(folder.parent,),
        working_directory=folder.parent,
        timeout=request.timeout,
        progress=progress,
    )
    # vgem is the importer that attached rows need. Real-time threads may take all of the one CPU: while a row is
    # measured nothing else must run.
    prepare = "modprobe -q vgem 2>/dev/null; echo -1 >/proc/sys/kernel/sched_rt_runtime_us"
    variables = [f"{name}={value}" for name, value in worker.ENVIRONMENT.items()]
    command = worker.command(machine.python, worker.surroundings(VM, exact=request.exact))
    line = shlex.join(["env", "-i", *variables, *command])
    errors = io.BytesIO()
    with answers.open("wb") as out:
        sink = _Answers(out, progress, len(plan.read_text(encoding="utf-8").splitlines()) - 1)
        completed = machine.run(f"{prepare}; cd /; exec {line} <{shlex.quote(str(plan))}", stdout=sink, stderr=errors)
    progress.done()
    log = completed.kernel_log
    if log.warning:
        progress.note(f"the kernel warned while the suites ran: {log.warning}")
    if log.killed:
        progress.note(f"the guest ran out of memory, and its kernel killed {', '.join(log.killed)}")
    provenance = {
        "kernel_warnings": list(log.splats) or [log.warning] * bool(log.warning),
        "tainted": log.tainted,
        "kernel_config_digest": kernel.config_digest,
        "kernel_source": completed.kernel_source,
        "kernel_append": list(completed.append),
        "boot_seconds": round(completed.boot_seconds, 1),
        "suite_seconds": round(completed.command_seconds, 1),
    }
    said = errors.getvalue().decode(errors="replace")
    if not answers.stat().st_size:
        return completed.returncode, said, provenance
    status, text = _run(
        _suites(VM, request, f"--benchmark-json={file}", "--dmasync-answers", str(plan), str(answers)), SilentProgress()
    )
    return status, said + text, provenance


def _on_board(
    address: BoardAddress | PlaceAddress, request: Request, file: Path, progress: Progress
) -> tuple[int, str, dict[str, Any]]:
    check_programs(address)
    plan, answers = file.with_name("plan.jsonl"), file.with_name("answers.jsonl")
    # A board that counts instructions is an emulator: what it tells compares with what dmasync vm tells.
    target = VM if request.exact else HARDWARE
    status, text = _run(_suites(target, request, f"--dmasync-plan={plan}"), SilentProgress())
    if status:
        return status, text, {}
    setup = {
        "program": worker.BOOTSTRAP,
        "environment": worker.ENVIRONMENT,
        "surroundings": worker.surroundings(target, exact=request.exact),
        "exact": [EXACT_KERNEL_ARGUMENTS, EXACT_CLOCK_ARGUMENTS] if request.exact else None,
        "seconds": math.ceil(request.timeout) + 60,
    }
    planned = plan.read_bytes()
    requests = planned.count(b"\n")
    counted = _Answers(io.BytesIO(), progress, requests - 1)
    progress.phase(f"waiting for {address}")
    found = measure_there(address, packed(planned, setup), requests, request.timeout, counted.one_more)
    progress.done()
    answers.write_text("\n".join(found.answers) + "\n", encoding="utf-8")
    for change in changes(found.before, found.after):
        progress.note(f"{found.address}: {change}")
    provenance: dict[str, Any] = {"board": {"address": found.address, "before": found.before, "after": found.after}}
    if digest := found.before.get("kernel_config_digest"):
        provenance["kernel_config_digest"] = digest
    line = _suites(target, request, f"--benchmark-json={file}", "--dmasync-answers", str(plan), str(answers))
    return (*_run(line, SilentProgress()), provenance)


def _tell_machine(machine: dict[str, Any], told: Mapping[str, Any]) -> None:
    """What tells whether two runs had like machines, in pytest-benchmark's words."""
    board = told["before"]
    if told["address"].startswith(LABGRID):  # boards of a lab often have one host name, and the lab one for each
        machine["node"] = told["address"].removeprefix(LABGRID)
    if name := ", ".join(str(board[key]) for key in ("model", "cpu") if key in board):
        machine["cpu"]["brand_raw"] = name
    if governors := set(board.get("governors", {}).values()):
        machine["cpu_governor"] = "+".join(sorted(governors))


def _compile() -> None:
    """Leave bytecode beside the sources, as Python does: a guest that compiles has another memory, and other counts."""
    for package in (Path(dmasync.__file__).parent, Path(dmasync.__file__).parent / "fakes"):
        with contextlib.redirect_stdout(io.StringIO()):
            compileall.compile_dir(package, quiet=2)


class _Answers(io.BytesIO):
    """Standard output of the measuring process: one line a row, kept in a file, counted as progress."""

    def __init__(self, file: BinaryIO, progress: Progress, rows: int) -> None:
        super().__init__()
        self._file, self._progress, self._rows = file, progress, rows
        self._lines = 0

    def one_more(self) -> None:
        self.write(b"\n")

    def write(self, block: Any) -> int:
        before, self._lines = self._lines, self._lines + bytes(block).count(b"\n")
        step = max(1, self._rows // 10)
        if self._lines // step > before // step:
            self._progress.phase(f"measuring row {min(self._lines, self._rows)} of {self._rows}")
        return self._file.write(block)


class _Rows(io.BytesIO):
    """Standard error of the suites: the rows' numbers become progress, the rest is kept."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._rest = ""
        self.text = ""

    def write(self, block: Any) -> int:
        self._rest += bytes(block).decode(errors="replace")
        *lines, self._rest = self._rest.split("\n")
        for line in lines:
            if match := _ROW.fullmatch(line + "\n"):
                self._say(int(match[1]), int(match[2]))
            else:
                self.text += line + "\n"
        return len(block)

    def _say(self, row: int, rows: int) -> None:
        # Ten lines, not hundreds, where the progress is a log.
        if row in (1, rows) or row % max(1, rows // 10) == 0:
            self._progress.phase(f"measuring row {row} of {rows}")


def _why(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    impossible = [line.removeprefix(NOT_MEASURED) for line in lines if line.startswith(NOT_MEASURED)]
    if impossible:
        return f": {'; '.join(impossible)}"
    reasons = [line for line in lines if line.startswith(("E  ", "ERROR", "SKIPPED", "nothing"))]
    return f": {(reasons or lines)[-1]}" if lines else ""


def _failures(text: str) -> Sequence[str]:
    """The last line of each failed row's traceback, each once."""
    found = [line.strip() for line in text.splitlines() if re.match(r"(E\s+)?\w+(\.\w+)*(Error|Exception)\b", line)]
    return list(dict.fromkeys(found))[:10]


def _commit_info() -> dict[str, Any]:
    """What measured: the commit of a checkout, else the installed version."""
    if not (suites_folder().parent / "pyproject.toml").is_file():
        version = f"dmabuf-sync-{importlib.metadata.version('dmabuf-sync')}"
        return {"id": version, "dirty": False, "branch": "(installed)", "project": "dmasync"}
    from pytest_benchmark.utils import get_commit_info

    before = Path.cwd()
    try:
        os.chdir(suites_folder().parent)
        return dict(get_commit_info("dmasync"))  # type: ignore[no-untyped-call]  # it has no types
    finally:
        os.chdir(before)
