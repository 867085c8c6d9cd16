"""Plays a recorded journal to the fake kernel, and notes where the fake answers otherwise."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from dataclasses import dataclass
from typing import Any, Final

from dmasync import uapi
from dmasync.fakes.backend import FakeBackend
from dmasync.fakes.journal import Call, Journal, Transition
from dmasync.fakes.journal.words import call_text, errno_name
from dmasync.fakes.kernel import UnmodelledCallError
from dmasync.fakes.kernel.profile import nearest_profile
from dmasync.fakes.layers import faults

_TRANSIENT: Final = (errno.EINTR, errno.EAGAIN)
_MOST_FENCES: Final = 4096
_NO_FD: Final = -9
"""Stands for a descriptor that was not open: neither is it in the fake."""


@dataclass(frozen=True)
class Difference:
    """One answer that the fake would have given otherwise."""

    position: int
    """How many SYNC attempts came before."""
    what: str
    recorded: str
    fake: str

    def __str__(self) -> str:
        return f"after {self.position} attempts: {self.what}: recorded {self.recorded}, the fake answers {self.fake}"


class Replay:
    """One journal, played once. The same calls in the same order, on one thread, descriptors translated.

    What depends on more than the calls is taken from the journal: refusals with EINTR and EAGAIN and interruptions,
    which nodes exist, what poll saw. Calls on a descriptor that the program got elsewhere (standard input, a dma-buf
    that another process sent) are not played: what is behind it is not in the journal.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        release = str(journal.facts.get("kernel", ""))
        opened = [call.arguments[0] for call in journal.calls if call.method == "open" and call.succeeded]
        self.backend = FakeBackend(
            providers=[path for path in dict.fromkeys(opened) if _is_provider(path)],
            profile=nearest_profile(release).name,
            descriptor_limit=1 << 16,
        )
        self._fds: dict[int, int] = {}
        self._room = bytearray()
        self.played = 0
        self.skipped = 0
        """Calls that were not played: their descriptors came from elsewhere."""
        self.told_nothing = 0
        """Calls that were not played either: they say what that machine had, not what its kernel answers."""
        self.differences: list[Difference] = []

    def run(self) -> list[Difference]:
        """Play it; what differed."""
        for entry in self.journal.entries():
            if isinstance(entry, Transition):
                self._attempt(entry)
            elif isinstance(entry, Call):
                self._call(entry)
        return self.differences

    def _fd(self, fd: int) -> int:
        return self._fds.get(fd, _NO_FD if fd >= 0 else fd)

    def _is_foreign(self, code: int, *fds: int) -> bool:
        """Whether one of *fds* was open in the program, as the answer *code* tells, and nothing tells what it was."""
        return code != errno.EBADF and any(fd >= 0 and fd not in self._fds for fd in fds)

    def _attempt(self, entry: Transition) -> None:
        if entry.errno == -1 or entry.flags is None:
            self.told_nothing += 1  # an exception in the program, or an argument nobody could read: no kernel's answer
            return
        if self._is_foreign(entry.errno, entry.fd):
            self.skipped += 1
            return
        self.played += 1
        if entry.errno in _TRANSIENT:
            self.backend.inject(faults.storm(entry.errno, 1, on=None))
        code = 0
        try:
            self.backend.ioctl(self._fd(entry.fd), uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(entry.flags))
        except OSError as error:
            code = error.errno or 0
        if code != entry.errno:
            fd = self.journal.numbers.of(entry.fd, entry.time_ns)
            what = f"#{entry.sequence} {entry.step.name} with flags {entry.flags:#x} on fd {fd}"
            self._differs(entry.sequence, what, _answer(entry.errno), _answer(code))

    def _text(self, call: Call) -> str:
        return call_text(call, self.journal.numbers)

    def _differs(self, position: int, what: str, recorded: str, fake: str) -> None:
        self.differences.append(Difference(position, what, recorded, fake))

    def _call(self, call: Call) -> None:
        if call.errno is None or call.errno == -1 or call.errno in _TRANSIENT:
            self.told_nothing += 1
            return
        if call.method == "open" and (not call.succeeded or not _is_provider(call.arguments[0])):
            self.told_nothing += 1
            return
        if self._is_foreign(call.errno, *_descriptors(call)):
            self.skipped += 1
            if call.method == "close":
                self._fds.pop(call.arguments[0], None)
            elif call.new_fd is not None:
                self._fds.pop(call.new_fd, None)  # one more of which nobody knows what is behind it
            return
        self.played += 1
        code, result = 0, None
        argument: Any = None
        try:
            if call.method == "ioctl":
                argument = self._argument(call)
                result = self.backend.ioctl(self._fd(call.arguments[0]), call.arguments[1], argument)
            else:
                result = getattr(self.backend, call.method)(*self._arguments(call))
        except UnmodelledCallError as gap:
            self._differs(call.position, self._text(call), _answer(call.errno), f"nothing: {gap}")
            return
        except OSError as error:
            code = error.errno or 0
        except (ValueError, OverflowError, TypeError) as error:
            self._differs(
                call.position,
                self._text(call),
                _answer(call.errno),
                f"{type(error).__name__}: {error}",
            )
            return
        if call.method == "poll" and not code and call.succeeded and not call.result:
            return  # it waited for a device that is not here
        if code != call.errno:
            self._differs(call.position, self._text(call), _answer(call.errno), _answer(code))
        elif not code:
            self._compare(call, result, argument)

    def _arguments(self, call: Call) -> tuple[Any, ...]:
        if call.method in ("open", "memfd_create"):
            return call.arguments
        first, *rest = call.arguments
        if call.method == "poll":
            rest[1] = 0  # what it waited for is not here
        return (self._fd(first), *rest)

    def _argument(self, call: Call) -> Any:
        request, arg = call.arguments[1], call.arguments[2]
        if isinstance(arg, int):
            if request in (uapi.DMA_BUF_SET_NAME_A, uapi.DMA_BUF_SET_NAME_B) and arg and call.succeeded:
                return bytearray(b"name\0")  # the text was in the other process's memory
            return arg
        if not isinstance(arg, bytes):
            return 0
        data = bytearray(arg)
        if request == uapi.SYNC_IOC_FILE_INFO and call.succeeded:
            self._point_to_room(data)
        for place in _places_of_descriptors(request, data):
            data[place : place + 4] = self._fd(_number_at(data, place)).to_bytes(4, sys.byteorder, signed=True)
        return data

    def _point_to_room(self, data: bytearray) -> None:
        """Fences are written to an address: the recorded one was another process's."""
        layout, item = uapi.sync_file_info, uapi.sync_fence_info
        self._room = bytearray(min(layout.get(data, "num_fences"), _MOST_FENCES) * item.size + 1)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._room))
        offset = layout.offsets["sync_fence_info"]
        data[offset : offset + 8] = address.to_bytes(8, sys.byteorder)

    def _compare(self, call: Call, result: Any, argument: Any) -> None:
        made = call.new_fd
        if made is not None:
            played = Call(call.method, call.arguments, 0, 0, 0, result=result, errno=0)
            played.after = bytes(argument) if isinstance(argument, bytearray) else None
            fake_fd = played.new_fd
            self._fds[made] = _NO_FD if fake_fd is None else fake_fd
            return
        if call.method == "close":
            self._fds.pop(call.arguments[0], None)
        elif call.method == "mmap":
            result.close()
        elif call.method != "poll" and isinstance(call.result, int) and result != call.result:
            self._differs(call.position, self._text(call), str(call.result), str(result))


def _descriptors(call: Call) -> list[int]:
    """The descriptors that a call was given."""
    if call.method in ("open", "memfd_create"):
        return []
    fd, *rest = call.arguments
    if call.method == "ioctl" and isinstance(rest[1], bytes):
        request, data = rest
        return [fd, *(_number_at(data, place) for place in _places_of_descriptors(request, data))]
    return [fd]


def _number_at(data: bytes | bytearray, place: int) -> int:
    return int.from_bytes(data[place : place + 4], sys.byteorder, signed=True)


def _places_of_descriptors(request: int, data: bytes | bytearray) -> list[int]:
    """Where in an ioctl's argument descriptors lie that the caller put there."""
    if request == uapi.UDMABUF_CREATE and len(data) >= uapi.udmabuf_create.size:
        return [uapi.udmabuf_create.offsets["memfd"]]
    if request == uapi.UDMABUF_CREATE_LIST:
        head, item = uapi.udmabuf_create_list.size, uapi.udmabuf_create_item.size
        return list(range(head, len(data) - item + 1, item))
    if request == uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE and len(data) >= uapi.dma_buf_import_sync_file.size:
        return [uapi.dma_buf_import_sync_file.offsets["fd"]]
    if request == uapi.SYNC_IOC_MERGE and len(data) >= uapi.sync_merge_data.size:
        return [uapi.sync_merge_data.offsets["fd2"]]
    return []


def _is_provider(path: str) -> bool:
    return path.startswith("/dev/dma_heap/") or "udmabuf" in os.path.basename(path)


def _answer(code: int | None) -> str:
    return "success" if code == 0 else errno_name(code)
