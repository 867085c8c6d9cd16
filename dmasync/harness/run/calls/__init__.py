"""The answers, a module for each kind of call; :data:`HANDLERS` is the whole of it.

A handler takes the supervisor and the call, and returns the result, raises the errno, or says that the kernel shall do
the call itself. Only :mod:`dmasync.harness.run` may import it.
"""

from __future__ import annotations

from dmasync.harness.run.calls import (
    asynchronous,
    descriptors,
    epolls,
    ioctls,
    mapping,
    metadata,
    paths,
    refused,
    waiting,
)
from dmasync.harness.run.supervisor import Handler

HANDLERS: dict[str, Handler] = {
    **paths.HANDLERS,
    **metadata.HANDLERS,
    **ioctls.HANDLERS,
    **descriptors.HANDLERS,
    **mapping.HANDLERS,
    **waiting.HANDLERS,
    **epolls.HANDLERS,
    **refused.HANDLERS,
    **asynchronous.HANDLERS,
}
