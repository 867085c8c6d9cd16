"""A Python that has loaded what commands need, and forks for each: see :mod:`tests.support.warm`.

``warm_server.py SOCKET MODULE…``: for every message on the socket (words, environment and folder as JSON, and three
descriptors) a child becomes ``python WORDS…``; its number is answered, then its exit status.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import runpy
import socket
import sys
from typing import Any, TextIO


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Returns in a child, with its request; at the end of the last one in the server, with nothing."""
    while True:
        message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            return None
        child = os.fork()
        if not child:
            connection.close()
            for standard, stream in enumerate(streams):
                os.dup2(stream, standard)
            os.closerange(3, max(streams) + 1)
            return dict(json.loads(message))
        for stream in streams:
            os.close(stream)
        connection.send(b"%d\n" % child)
        connection.send(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _stream(number: int, mode: str, before: TextIO) -> TextIO:
    unbuffered = isinstance(before, io.TextIOWrapper) and before.write_through
    raw = open(number, mode + "b", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115  # until the end
    by_lines = number == 2 or os.isatty(number)
    return io.TextIOWrapper(
        raw, before.encoding, before.errors, line_buffering=by_lines, write_through=bool(unbuffered)
    )


def become(words: list[str], env: dict[str, str], cwd: str) -> None:
    """What ``python WORDS…`` does once it is up."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    # Anew: how a stream is buffered depends on what it leads to.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = _stream(number, "w" if number else "r", getattr(sys, name))
        vars(sys).update({name: stream, f"__{name}__": stream})
    _, module, *arguments = words
    sys.argv = [module, *arguments]
    sys.path[:1] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # its children need not copy what they only look through
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        become(**request)
