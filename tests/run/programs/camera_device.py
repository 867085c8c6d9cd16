"""A camera that writes the next frame, numbered from 1, into a buffer whose window has been ended."""

from dmasync.fakes import FakeDevice

_END = 4
_camera = None
_frames = {}


def setup(backend):
    global _camera
    _camera = FakeDevice(backend, name="camera")


def after_sync(backend, fd, flags):
    if flags & _END:
        buffer = _camera.attach(fd)
        number = _frames[buffer.ino] = _frames.get(buffer.ino, 0) + 1
        _camera.write(buffer, bytes([number]) * buffer.size)
