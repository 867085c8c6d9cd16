"""Commands in processes that need not load Python first: most of what a short ``python -m dmasync …`` takes is that.

Each is a process of its own, forked off one that has loaded the modules and done nothing else: it has its streams, its
environment, its folder, ends as a Python ends, and starts others as it would. It cannot show what Python does before it
runs a module, nor whether a module imports what it needs: a few tests of every command start it in full.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from _pytest.config import default_plugins

RUN = (
    "dmasync.cli", "dmasync.harness.help_texts", "dmasync.harness.run.command", "dmasync.harness.trace.record",
    "dmasync.harness.trace.replay", "dmasync.fakes.foreign.systems", "dmasync.fakes.replay", "dmasync.fakes.sanitizer",
    "dmasync.fakes.journal.json_lines", "dmasync.fakes.layers.plan_text",
)  # fmt: skip
GATE = ("dmasync.cli", "dmasync.harness.gate.command", "dmasync.harness.help_texts", "rich.console", "rich.table")
PYTEST = ("pytest", *(f"_pytest.{name}" for name in default_plugins))
MODULES = {"run": RUN, "record": RUN, "replay": RUN, "gate": GATE, "pytest": PYTEST}
"""What a server has loaded, by the command that it is for."""

_servers: dict[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], _Server] = {}
"""By their modules and what their Python was told."""


class _Server:
    def __init__(self, modules: tuple[str, ...], told: Mapping[str, str]) -> None:
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = str(Path(__file__).with_name("warm_server.py"))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, program, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                env={**{name: os.environ[name] for name in os.environ if name not in _told(os.environ)}, **told},
            )

    def start(self, words: list[str], env: Mapping[str, str], cwd: str, streams: list[int]) -> int:
        request = json.dumps({"words": words, "env": dict(env), "cwd": cwd}).encode()
        self.connection.settimeout(60)
        socket.send_fds(self.connection, [request], streams)
        return int(self.connection.recv(64))

    def status(self, timeout: float) -> int:
        self.connection.settimeout(timeout)
        return int(self.connection.recv(64))

    def close(self) -> None:
        self.connection.close()
        self.process.wait()


def python(
    *words: object,
    input: str | None = None,
    stdout: IO[str] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = 60,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """``subprocess.run([sys.executable, *words], capture_output=True, text=True, …)``; *stdout* may be a file."""
    given = [str(word) for word in words]
    environment = dict(os.environ if env is None else env)
    server = _server(given, environment)
    if server is None:
        return subprocess.run(
            [sys.executable, *given],
            input=input,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=cwd,
            timeout=timeout,
            check=check,
        )
    with ThreadPoolExecutor(3) as pool:
        with contextlib.ExitStack() as theirs:
            source = 0 if input is None else _fed(theirs, pool, input)
            out, output = (stdout.fileno(), None) if stdout else _collected(theirs, pool)
            err, errors = _collected(theirs, pool)
            child = server.start(given, environment, str(cwd or Path.cwd()), [source, out, err])
        try:
            status = server.status(timeout)
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            server.status(timeout)
            raise subprocess.TimeoutExpired(given, timeout) from None
        told = output.result() if output else "", errors.result()
    done = subprocess.CompletedProcess([sys.executable, *given], status, *told)
    if check:
        done.check_returncode()
    return done


def _fed(theirs: contextlib.ExitStack, pool: ThreadPoolExecutor, text: str) -> int:
    reader, writer = os.pipe()
    theirs.callback(os.close, reader)

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), open(writer, "w") as pipe:
            pipe.write(text)

    pool.submit(feed)
    return reader


def _collected(theirs: contextlib.ExitStack, pool: ThreadPoolExecutor) -> tuple[int, Future[str]]:
    reader, writer = os.pipe()
    theirs.callback(os.close, writer)

    def collect() -> str:
        with open(reader) as pipe:
            return pipe.read()

    return writer, pool.submit(collect)


def _server(words: list[str], environment: Mapping[str, str]) -> _Server | None:
    """One that can be asked for this, or none."""
    if words[0] != "-m" or not hasattr(socket, "send_fds"):
        return None
    modules = MODULES.get(words[2] if words[1] == "dmasync" else words[1])
    if modules is None or any(name.startswith("COVERAGE_") for name in environment):
        return None  # coverage counts what starts, not what is forked
    told = _told(environment)
    key = modules, tuple(sorted(told.items()))
    if key not in _servers:
        _servers[key] = _Server(modules, told)
    return _servers[key]


def _told(environment: Mapping[str, str]) -> dict[str, str]:
    """What a Python reads when it starts; PYTHONPATH, which differs often, is for the child."""
    beginnings = ("PYTHON", "LC_", "LANG")
    return {name: value for name, value in environment.items() if name.startswith(beginnings) and name != "PYTHONPATH"}


def close() -> None:
    """End the servers, at the end of the tests."""
    while _servers:
        _servers.popitem()[1].close()
