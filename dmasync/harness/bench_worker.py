"""The process that is measured: a small one that forks for each row, so that no row feels those before it.

It reads one request a line from standard input and answers each with one line of JSON. What measures is a child forked
from the same small process for every row: same memory, same addresses (with randomisation off), nothing of
pytest in it.

There are two other ends. :class:`Worker` starts the process and talks to it. In a virtual machine nothing else is to
run beside it, so there a :class:`Planner` writes down beforehand what will be asked, the process answers all of it, and
:class:`Answers` gives the answers to whoever asks the same again.
"""

from __future__ import annotations

import gc
import importlib
import json
import mmap
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

from dmasync.harness.bench_measure import Measured, Operation, Plan, measure


class RowImpossibleError(Exception):
    """The row cannot be measured here: a node is missing, the kernel refused; the message is the reason."""


class WorkerError(Exception):
    """The row failed for a reason that is a defect: the message has the child's traceback."""


class Measurer(Protocol):
    """Whoever measures a row."""

    def measure(
        self, function: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None = None
    ) -> Measured:
        """Measure the operation that *function* (``module:name`` in ``timed``) makes of *arguments*.

        *warm* are the arguments of a cheaper one. Raises RowImpossibleError, or WorkerError for a defect.
        """

    def host(self) -> dict[str, Any]:
        """What the machine and the Python that measure are: the answer of :func:`this_host`."""

    def close(self) -> None: ...


def command(python: str, folder: Path, environment: Mapping[str, Any]) -> list[str]:
    """The command line of the process; *folder* holds the package ``timed``, *environment* is :func:`surroundings`."""
    imports = [str(Path(__file__).parents[2]), str(folder)]
    return [python, "-s", "-B", "-c", _BOOTSTRAP, *imports, json.dumps(environment)]


ENVIRONMENT = {"PYTHONHASHSEED": "0", "PATH": os.defpath, "LC_ALL": "C.UTF-8"}
"""All of the process's environment: its size moves the stack, and with it the count."""


def surroundings(rung: str, *, exact: bool) -> dict[str, bool]:
    """What ``Bench`` is made from, and whether a row is to have the CPU for itself."""
    return {"fake": rung == "fake", "exclusive": exact}


class Worker:
    """Starts the process and asks it; a context manager and a :class:`Measurer`."""

    def __init__(self, folder: Path, environment: Mapping[str, Any]) -> None:
        """*folder* holds the package ``timed``; *environment* is :func:`surroundings`."""
        self._process = subprocess.Popen(
            command(sys.executable, folder, environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            text=True,
        )

    def ask(self, function: str, arguments: Mapping[str, Any]) -> Any:
        """Call *function* (``module:name`` in ``timed``) in a forked child and return what it returns, as JSON."""
        return self._request({"function": function, "arguments": arguments})

    def measure(
        self, function: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None = None
    ) -> Measured:
        return Measured(**self._request(_row_request(function, arguments, plan, warm)))

    def host(self) -> dict[str, Any]:
        return cast(dict[str, Any], self._request(_HOST_REQUEST))

    def _request(self, request: Mapping[str, Any]) -> Any:
        process = self._process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - asked for above
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise WorkerError(f"the measuring process ended with status {process.wait()}")
        return _result(line)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - see above
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Planner:
    """Writes the requests of a run to a file, one a line, for a process that is not there yet."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._add(_HOST_REQUEST)

    def add(
        self, function: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None = None
    ) -> None:
        """Note what :meth:`Measurer.measure` will be asked."""
        self._add(_row_request(function, arguments, plan, warm))

    def _add(self, request: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(request) + "\n")

    def close(self) -> None:
        self._file.close()


class Answers:
    """What the process answered to a :class:`Planner`'s requests: a :class:`Measurer` that measures nothing."""

    def __init__(self, requests: Sequence[str], answers: Sequence[str]) -> None:
        """Lines of JSON, the first answer to the first request; where the process ended early answers are missing."""
        self._answers = {_key(json.loads(request)): answer for request, answer in zip(requests, answers, strict=False)}

    def measure(
        self, function: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None = None
    ) -> Measured:
        return Measured(**self._answer(_row_request(function, arguments, plan, warm)))

    def host(self) -> dict[str, Any]:
        return cast(dict[str, Any], self._answer(_HOST_REQUEST))

    def _answer(self, request: Mapping[str, Any]) -> Any:
        line = self._answers.get(_key(request))
        if line is None:
            raise WorkerError("the measuring process ended before this row")
        return _result(line)

    def close(self) -> None: ...


_HOST_REQUEST: dict[str, Any] = {"host": True}


def _row_request(
    function: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {"function": function, "arguments": arguments, "plan": plan.as_json(), "warm": warm}


def _key(request: Mapping[str, Any]) -> str:
    return json.dumps(request, sort_keys=True)


def _result(line: str) -> Any:
    answer = json.loads(line)
    if "impossible" in answer:
        raise RowImpossibleError(answer["impossible"])
    if "failed" in answer:
        raise WorkerError(answer["failed"])
    return answer["result"]


_BOOTSTRAP = "import sys; sys.path[:0] = sys.argv[1:3]; from dmasync.harness import bench_worker; bench_worker.serve()"


def serve() -> None:
    """Answer requests from standard input until it ends."""
    environment = json.loads(sys.argv[3])
    for name in ("sync", "allocation", "retries", "floor", "threads"):
        importlib.import_module(f"timed.{name}")
    # Once, and not in every child, which would copy each page that holds an object.
    gc.collect()
    gc.freeze()
    missing = {name: _found(environment, f"bench:{name}") for name in ("providers", "importers")}
    for line in sys.stdin:
        request = json.loads(line)
        if "host" in request:
            answer = json.dumps({"result": this_host()})
        elif reason := _reason_why_not(request, missing["providers"], missing["importers"]):
            answer = json.dumps({"impossible": reason})
        else:
            answer = _in_child(request, environment)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def this_host() -> dict[str, Any]:
    """The machine and the Python of this process, in pytest-benchmark's words, and the kernel's command line."""
    return {
        # The plugin's own asks programs about the CPU for a minute, under emulation; a run needs what follows.
        "machine_info": {
            "node": platform.node(),
            "machine": platform.machine(),
            "page_size": mmap.PAGESIZE,
            "python_compiler": platform.python_compiler(),
            "python_implementation": platform.python_implementation(),
            "python_implementation_version": platform.python_version(),
            "python_version": platform.python_version(),
            "python_build": list(platform.python_build()),
            "release": platform.release(),
            "system": platform.system(),
            "cpu": {"count": os.cpu_count()},
        },
        "kernel_command_line": Path("/proc/cmdline").read_text(encoding="utf-8", errors="replace").strip(),
    }


def _found(environment: Mapping[str, Any], function: str) -> Any:
    return _result(_in_child({"function": function, "arguments": {}}, environment))


def _reason_why_not(request: Mapping[str, Any], providers: Mapping[str, str], importer: str) -> str:
    """Why the row's provider or importer cannot be had here, or the empty text."""
    arguments = request["arguments"]
    provider = arguments.get("provider") if "plan" in request else None
    if reason := providers.get(provider, "") if provider else "":
        return f"{provider}: {reason}"
    return importer if provider and arguments.get("attached") else ""


def _in_child(request: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            with open(writer, "w", encoding="utf-8") as pipe:
                pipe.write(json.dumps(_answer(request, environment)))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not text:
        return json.dumps({"failed": f"the child ended with status {os.waitstatus_to_exitcode(status)}"})
    return text


def _answer(request: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    from timed.bench import Bench, UnmeasurableError  # type: ignore[import-not-found]  # lives beside the suites

    module, _, name = request["function"].partition(":")
    function = getattr(importlib.import_module(f"timed.{module}"), name)
    try:
        if environment.get("exclusive"):
            _take_the_cpu()
        with Bench(fake=environment.get("fake", False)) as bench:
            if "plan" not in request:
                return {"result": function(bench, **request["arguments"])}
            warm = request.get("warm")
            operation = cast(Operation, function(bench, **request["arguments"]))
            cheap = None if warm is None else cast(Operation, function(bench, **warm))
            measured = measure(operation, Plan(**request["plan"]), cheap)
            return {"result": measured.__dict__}
    except (OSError, UnmeasurableError) as error:
        return {"impossible": _reason(error)}
    except Exception:
        return {"failed": traceback.format_exc()}


def _reason(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{type(error).__name__}: {text}"


def _take_the_cpu() -> None:
    """Keep the kernel's own threads off the CPU while a row is measured: they run when it sleeps."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
