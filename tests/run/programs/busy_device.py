"""A device that writes the buffers that the program names "for ever", "until told" or "counts"."""

import threading

from dmasync.fakes import FakeFence

_END = 4
_LATER_S = 0.15  # seconds after which "until told" has been told
_OTHERS = 100
_ends = 0
_waiting: list[FakeFence] = []
_seen: set[int] = set()


def after_sync(backend, fd, flags):
    global _ends
    buffer = backend.kernel.buffer_of(fd)
    if not flags & _END:
        return
    if buffer.name is None:
        _ends += 1
        if _ends >= _OTHERS:
            while _waiting:
                _waiting.pop().signal()
    elif buffer.ino not in _seen:
        _seen.add(buffer.ino)
        fence = FakeFence()
        backend.kernel.attach_fence(fd, fence)
        if buffer.name == b"until told":
            threading.Timer(_LATER_S, fence.signal).start()
        elif buffer.name == b"counts":
            _waiting.append(fence)
