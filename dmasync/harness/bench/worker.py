"""The process that is measured: a small one that forks for each row, so that no row feels those before it.

It reads one request a line from standard input and answers each with one line of JSON. What measures is a child forked
from the same small process for every row: same memory, same addresses (with randomisation off), nothing of
pytest in it. Who asks it is in :mod:`dmasync.harness.bench.measurers`.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import platform
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dmasync
from dmasync.harness.bench.measure import Plan, measure
from dmasync.harness.bench.registry import SUITES, function


def command(python: str, environment: Mapping[str, Any]) -> list[str]:
    """The command line of the process; *environment* is :func:`surroundings`."""
    return [python, "-s", "-B", "-c", BOOTSTRAP, str(Path(__file__).parents[3]), json.dumps(environment)]


ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PATH": os.defpath,
    "LC_ALL": "C.UTF-8",
    # Whoever wants the plain Python twin measured says so in his own environment.
    **{name: os.environ[name] for name in ("DMASYNC_COMPILED",) if name in os.environ},
}
"""All of the process's environment: its size moves the stack, and with it the count."""


def surroundings(target: str, *, exact: bool) -> dict[str, bool]:
    """What ``Bench`` is made from, and whether a row is to have the CPU for itself."""
    return {"fake": target == "fake", "exclusive": exact}


BOOTSTRAP = "; ".join(
    (
        "import sys",
        "sys.path[:] = filter(None, sys.path)",
        "from importlib import util",
        "at = sys.argv[1] + '/dmasync'",
        "spec = util.spec_from_file_location('dmasync', at + '/__init__.py', submodule_search_locations=[at])",
        "sys.modules['dmasync'] = package = util.module_from_spec(spec)",
        "spec.loader.exec_module(package)",
        "from dmasync.harness.bench import worker",
        "worker.serve()",
    )
)
"""A folder on ``sys.path`` is listed and the list kept: with one file more beside the package every object would have
another address, which now and then costs a miss in Python's method cache. So of the package nothing is listed but its
own folders.
"""


def serve() -> None:
    """Answer requests from standard input until it ends."""
    environment = json.loads(sys.argv[2])
    for suite in SUITES.values():
        function(suite.operation)
    # Once, and not in every child, which would copy each page that holds an object.
    gc.collect()
    gc.freeze()
    missing = {name: _found(environment, f"surroundings:{name}") for name in ("providers", "importers")}
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
    """The machine and the Python of this process, in pytest-benchmark's words, whether dmasync's C extension is in use,
    and the kernel's command line.
    """
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
        "compiled": dmasync.compiled,
        "kernel_command_line": Path("/proc/cmdline").read_text(encoding="utf-8", errors="replace").strip(),
    }


def _found(environment: Mapping[str, Any], name: str) -> Any:
    return json.loads(_in_child({"function": name, "arguments": {}}, environment))["result"]


def _reason_why_not(request: Mapping[str, Any], providers: Mapping[str, str], importer: str) -> str:
    """Why the row's provider or importer is not here, or the empty text."""
    arguments = request["arguments"]
    provider = arguments.get("provider") if "suite" in request else None
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
    from dmasync.harness.bench.timed.surroundings import Bench, UnmeasurableError

    try:
        if environment.get("exclusive"):
            _take_the_cpu()
        with Bench(fake=environment.get("fake", False)) as bench:
            if "function" in request:
                return {"result": function(request["function"])(bench, **request["arguments"])}
            suite, warm = SUITES[request["suite"]], request.get("warm")
            operation = suite.make(bench, **request["arguments"])
            cheap = None if warm is None else suite.make(bench, **warm)
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
