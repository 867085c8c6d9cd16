"""The process that is measured: a small one that forks for each row, so that no row feels those before it.

Run as ``python bench_worker.py FOLDER`` it reads one request a line from standard input and answers each with one
line of JSON. What measures is a child forked from the same small process for every row: same memory, same addresses
(with randomisation off), nothing of pytest in it. :class:`Worker` is the other end.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from dmasync.harness.bench_measure import Measured, Operation, Plan, measure


class RowImpossibleError(Exception):
    """The row cannot be measured here: a node is missing, the kernel refused; the message is the reason."""


class WorkerError(Exception):
    """The row failed for a reason that is a defect: the message has the child's traceback."""


class Worker:
    """Starts the process and asks it; a context manager."""

    def __init__(self, folder: Path, environment: dict[str, Any]) -> None:
        """*folder* holds the package ``timed``; *environment* is what its ``Bench`` is made from."""
        self._environment = environment
        imports = [str(Path(__file__).parents[2]), str(folder)]
        self._process = subprocess.Popen(
            # Nothing of the caller's environment: its size moves the stack, and with it the count.
            [sys.executable, "-s", "-B", "-c", _BOOTSTRAP, *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0", "PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            cwd="/",
            text=True,
        )

    def ask(self, function: str, arguments: dict[str, Any]) -> Any:
        """Call *function* (``module:name`` in ``timed``) in a forked child and return what it returns, as JSON."""
        return self._request({"function": function, "arguments": arguments})

    def measure(
        self, function: str, arguments: dict[str, Any], plan: Plan, warm: dict[str, Any] | None = None
    ) -> Measured:
        """Measure the operation that *function* makes of *arguments*; *warm* are those of a cheaper one."""
        request = {"function": function, "arguments": arguments, "plan": plan.as_json(), "warm": warm}
        return Measured(**self._request(request))

    def _request(self, request: dict[str, Any]) -> Any:
        process = self._process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - asked for above
        process.stdin.write(json.dumps(request | {"environment": self._environment}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise WorkerError(f"the measuring process ended with status {process.wait()}")
        answer = json.loads(line)
        if "impossible" in answer:
            raise RowImpossibleError(answer["impossible"])
        if "failed" in answer:
            raise WorkerError(answer["failed"])
        return answer["result"]

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


_BOOTSTRAP = "import sys; sys.path[:0] = sys.argv[1:]; from dmasync.harness import bench_worker; bench_worker.serve()"


def serve() -> None:
    """Answer requests from standard input until it ends."""
    for name in ("sync", "allocation", "retries", "floor", "threads"):
        importlib.import_module(f"timed.{name}")
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(_in_child(request) + "\n")
        sys.stdout.flush()


def _in_child(request: dict[str, Any]) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            with open(writer, "w", encoding="utf-8") as pipe:
                pipe.write(json.dumps(_answer(request)))
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


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from timed.bench import Bench, UnmeasurableError  # type: ignore[import-not-found]  # lives beside the suites

    module, _, name = request["function"].partition(":")
    function = getattr(importlib.import_module(f"timed.{module}"), name)
    environment = dict(request["environment"])
    try:
        if environment.pop("exclusive", False):
            _take_the_cpu()
        with Bench(**environment) as bench:
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
