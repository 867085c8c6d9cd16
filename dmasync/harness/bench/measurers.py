"""Who asks the measuring process (:mod:`dmasync.harness.bench.worker`), at once or beforehand.

:class:`Worker` starts the process and talks to it. In a virtual machine nothing else is to run beside it, so there a
:class:`Planner` writes down beforehand what will be asked, the process answers all of it, and :class:`Answers` gives
the answers to whoever asks the same again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

from dmasync.harness.bench.measure import Measured, Plan
from dmasync.harness.bench.worker import ENVIRONMENT, command

NOT_MEASURED = "not measured: "
"""What begins the lines, on the suites' standard output, that say why rows are not in the run."""


class RowImpossibleError(Exception):
    """The row cannot be measured here: a node is missing, the kernel refused; the message is the reason."""


class WorkerError(Exception):
    """The row failed for a reason that is a defect: the message has the child's traceback."""


class Measurer(Protocol):
    """Whoever measures a row."""

    def measure(
        self, suite: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None = None
    ) -> Measured:
        """Measure the operation that *suite* (:data:`dmasync.harness.bench.registry.SUITES`) makes of *arguments*.

        *warm* are the arguments of a cheaper one. Raises RowImpossibleError, or WorkerError for a defect.
        """

    def host(self) -> dict[str, Any]:
        """What the machine and the Python that measure are: the answer of
        :func:`dmasync.harness.bench.worker.this_host`.
        """

    def close(self) -> None: ...


class Worker:
    """Starts the process and asks it; a context manager and a :class:`Measurer`."""

    def __init__(self, environment: Mapping[str, Any]) -> None:
        """*environment* is :func:`dmasync.harness.bench.worker.surroundings`."""
        self._process = subprocess.Popen(
            command(sys.executable, environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            text=True,
        )

    def ask(self, function: str, arguments: Mapping[str, Any]) -> Any:
        """Call *function* (``module:name`` of the operations) in a forked child and return what it returns, as JSON."""
        return self._request({"function": function, "arguments": arguments})

    def measure(
        self, suite: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None = None
    ) -> Measured:
        return Measured(**self._request(_row_request(suite, arguments, plan, warm)))

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

    def add(self, suite: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None = None) -> None:
        """Note what :meth:`Measurer.measure` will be asked."""
        self._add(_row_request(suite, arguments, plan, warm))

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
        self, suite: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None = None
    ) -> Measured:
        return Measured(**self._answer(_row_request(suite, arguments, plan, warm)))

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
    suite: str, arguments: Mapping[str, Any], plan: Plan, warm: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {"suite": suite, "arguments": arguments, "plan": plan.as_json(), "warm": warm}


def _key(request: Mapping[str, Any]) -> str:
    return json.dumps(request, sort_keys=True)


def _result(line: str) -> Any:
    answer = json.loads(line)
    if "impossible" in answer:
        raise RowImpossibleError(answer["impossible"])
    if "failed" in answer:
        raise WorkerError(answer["failed"])
    return answer["result"]
