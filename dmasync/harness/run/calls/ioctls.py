"""ioctl: the argument is copied in, descriptors and pointers in it are translated, and it is copied out again."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
from typing import Any, Final, NamedTuple

from dmasync import uapi
from dmasync.harness.run.answers import Answer, Said
from dmasync.harness.run.device_paths import HEAPS
from dmasync.harness.run.open_files import NOT_OPEN, Descriptor
from dmasync.harness.run.program import memory, processes
from dmasync.harness.run.seccomp.filter import IOCTL_TYPES
from dmasync.harness.run.seccomp.listener import Notification
from dmasync.harness.run.supervisor import Supervisor

_MOST_FENCES: Final = 4096
_LARGEST_LIST: Final = 4 << 20
_BAD_ADDRESS: Final = 8
_FICLONERANGE: Final = 0x4020940D
_CLONES: Final = (0x40049409, _FICLONERANGE)
_CLONE_RANGE_SIZE: Final = 32
_OF_THE_HOSTS_FILE: Final = frozenset({0x5450, 0x5451, 0x5421})
"""FIONCLEX, FIOCLEX, FIONBIO: what they change is the descriptor's or the open file's, whatever that is of."""
_SIZES: Final = {0x5452: 4, 0x5460: 8, 0x541B: 4, 2: 4, 1: 4}
"""FIOASYNC, FIOQSIZE, FIONREAD, FIGETBSZ, FIBMAP: older than the numbers that tell how long an argument is."""


def _ioctl(run: Supervisor, call: Notification) -> Answer:
    fd, request, pointer = call.arguments[0], call.arguments[1] & 0xFFFF_FFFF, call.arguments[2]
    known = run.find(call, fd)
    if request in _CLONES and (known is None or known.file.kind != "place"):
        return _clone(run, call, known)
    if known is None:
        return _unknown(run, call, fd & 0xFFFF_FFFF, request, pointer)
    if known.file.kind == "place":
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    is_buffer = known.file.kind == "dmabuf"
    if request == uapi.DMA_BUF_IOCTL_SYNC and is_buffer:
        return _sync(run, call, known, pointer)
    handler = _HANDLERS.get(request) if is_buffer or request not in _OF_A_BUFFER else None
    if handler is not None:
        return handler(run, call, known, request, pointer)
    path = known.file.path or ""
    if path.startswith(HEAPS + "/") and not request & 0xFF:
        return _allocate(run, call, known, request, pointer)
    return _plain(run, call, known, request, pointer)


def _unknown(run: Supervisor, call: Notification, fd: int, request: int, pointer: int) -> Answer:
    """A file of the program's own, or a descriptor that has been closed: that one's error is worth writing down."""
    gone = run.files.closed(call.process, fd)
    if gone is not None and request == uapi.DMA_BUF_IOCTL_SYNC and not processes.is_open(call.process, fd):
        data = bytearray(memory.peek(call.thread, pointer, uapi.dma_buf_sync.size))
        run.system.backend.ioctl(gone, request, data)
    elif not run.system.is_fake and request == uapi.DMA_BUF_IOCTL_SYNC:
        _sync_of_another(run, call, fd, pointer)
    return Said.CARRY_ON


def _sync_of_another(run: Supervisor, call: Notification, fd: int, pointer: int) -> None:
    """START or END of what is no dma-buf: its error is worth writing down, too. Of a plain file, where it does nothing:
    to a device the number may mean something else.
    """
    with contextlib.suppress(OSError):
        is_plain = stat.S_ISREG(os.stat(f"/proc/{call.thread}/fd/{fd}").st_mode)
        mine = run.processes.take(call.process, fd, call.thread) if is_plain else None
        if mine is not None:
            run.files.note(mine, fd)
            try:
                data = bytearray(memory.peek(call.thread, pointer, uapi.dma_buf_sync.size))
                run.system.backend.ioctl(mine, uapi.DMA_BUF_IOCTL_SYNC, data)
            finally:
                os.close(mine)


def _sync(run: Supervisor, call: Notification, known: Descriptor, pointer: int) -> Answer:
    data = bytearray(memory.read(call.thread, pointer, uapi.dma_buf_sync.size))
    run.caller().may_be_stopped = True
    if run.before_sync is not None or run.after_sync is not None:
        run.pass_on()  # what a device does may take long
    if run.before_sync is not None:
        run.before_sync(known.fd, data[0])
    run.system.backend.ioctl(known.fd, uapi.DMA_BUF_IOCTL_SYNC, data)
    if run.after_sync is not None:
        run.after_sync(known.fd, data[0])
    return 0


def _plain(run: Supervisor, call: Notification, known: Descriptor, request: int, pointer: int) -> Answer:
    """A request whose argument holds nothing that would have to be translated."""
    ours = run.system.is_fake or request >> 8 & 0xFF in IOCTL_TYPES
    if request in _OF_THE_HOSTS_FILE or not ours:
        return Said.CARRY_ON
    size = _SIZES.get(request, request >> 16 & 0x3FFF)
    data: Any = 0
    if size:
        data = bytearray(memory.peek(call.thread, pointer, size))
        if len(data) < size:
            data = _BAD_ADDRESS  # whoever looks there gets what the program would have got
    before = bytes(data) if data else b""
    result = run.system.backend.ioctl(known.fd, request, data)
    if data and data != _BAD_ADDRESS and bytes(data) != before:
        memory.write(call.thread, pointer, bytes(data))
    return result if isinstance(result, int) else 0


def _set_name(run: Supervisor, call: Notification, known: Descriptor, request: int, pointer: int) -> Answer:
    text = memory.string(call.thread, pointer, uapi.DMA_BUF_NAME_LEN) + b"\0"
    run.system.backend.ioctl(known.fd, request, bytearray(text))
    return 0


def _clone(run: Supervisor, call: Notification, known: Descriptor | None) -> Answer:
    """FICLONE: what is no regular file has no bytes that another file could have, too."""
    if not run.system.is_fake:
        return Said.CARRY_ON
    number = call.arguments[2] & 0xFFFF_FFFF
    if call.arguments[1] & 0xFFFF_FFFF == _FICLONERANGE:
        data = memory.read(call.thread, call.arguments[2], _CLONE_RANGE_SIZE)
        number = int.from_bytes(data[:4], sys.byteorder)
    source = run.find(call, number)
    if known is None and source is None:
        return Said.CARRY_ON
    if not processes.is_open(call.process, number) or (source is not None and source.file.kind == "place"):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    places = [
        (_folder_of(call, number) if one is None else one.file.kind) for one, number in
        ((known, call.arguments[0] & 0xFFFF_FFFF), (source, number))
    ]  # fmt: skip
    if len({"device" if place == "directory" else place for place in places}) > 1:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    code = errno.EISDIR if "directory" in places else errno.EINVAL
    raise OSError(code, os.strerror(code))


def _folder_of(call: Notification, number: int) -> str:
    """Of a file of the program's: "device" where it lies beside the nodes, else nothing that ours have."""
    with contextlib.suppress(OSError):
        file = os.stat(f"/proc/{call.thread}/fd/{number}")
        if file.st_dev == os.stat(f"/proc/{call.thread}/root/dev").st_dev:
            return "directory" if stat.S_ISDIR(file.st_mode) else "device"
    return ""


# -- requests that make a descriptor


class _Filled(NamedTuple):
    """An argument into which the backend puts a new descriptor."""

    data: bytearray
    """As the backend gets it, with its own descriptors."""
    given: bytes
    """As the program gave it, for as much as goes back to it."""
    layout: uapi.Layout
    field: str
    close_on_exec: bool = True
    stays: bool = False
    """Whether the program has the descriptor also where it cannot be told."""


def _with_new_descriptor(
    run: Supervisor, call: Notification, known: Descriptor, request: int, argument: _Filled
) -> Answer:
    """A request that puts its new descriptor into its argument."""
    data, layout, pointer = argument.data, argument.layout, call.arguments[2]
    run.system.backend.ioctl(known.fd, request, data)
    fd = layout.get(bytes(data).ljust(layout.size, b"\0"), argument.field)
    try:
        memory.write(call.thread, pointer, argument.given)  # EFAULT now, not when the descriptor is there
    except OSError:
        if argument.stays:
            run.hand_over(call, fd, close_on_exec=argument.close_on_exec, answer=False)
        else:
            run.system.drop(fd)
        raise
    number = run.hand_over(call, fd, close_on_exec=argument.close_on_exec, answer=False)
    _put(data, layout.offsets[argument.field], number)
    memory.write(call.thread, pointer, bytes(data[: len(argument.given)]))
    return 0


def _put(data: bytearray, offset: int, number: int) -> None:
    data[offset : offset + 4] = number.to_bytes(4, sys.byteorder)


def _allocate(run: Supervisor, call: Notification, known: Descriptor, request: int, pointer: int) -> Answer:
    """DMA_HEAP_IOCTL_ALLOC with an argument of any size: the kernel looks at the request's number alone."""
    layout = uapi.dma_heap_allocation_data
    size = request >> 16 & 0x3FFF
    data = bytearray(memory.read(call.thread, pointer, size) if request >> 30 & 1 else bytes(size))
    is_written_back = bool(request >> 30 & 2)
    close_on_exec = bool(layout.get(bytes(data).ljust(layout.size, b"\0"), "fd_flags") & os.O_CLOEXEC)
    writes_early = run.system.is_fake and not run.system.kernel.profile.heap_fd_last  # type: ignore[attr-defined]
    argument = _Filled(data, bytes(data), layout, "fd", close_on_exec, stays=writes_early)
    try:
        if not is_written_back or size < layout.offsets["fd"] + 4:
            run.system.backend.ioctl(known.fd, request, data)
            from dmasync.fakes.kernel import UnmodelledCallError

            raise UnmodelledCallError(f"DMA_HEAP_IOCTL_ALLOC as request {request:#x}: its descriptor would be lost")
        return _with_new_descriptor(run, call, known, request, argument)
    except OSError as problem:
        if writes_early and is_written_back and problem.errno != errno.EFAULT:
            memory.write(call.thread, pointer, bytes(data))  # what was refused is written back, too
        raise


def _export(run: Supervisor, call: Notification, known: Descriptor, request: int, pointer: int) -> Answer:
    layout = uapi.dma_buf_export_sync_file
    data = bytearray(memory.read(call.thread, pointer, layout.size))
    return _with_new_descriptor(run, call, known, request, _Filled(data, bytes(data), layout, "fd"))


def _merge(run: Supervisor, call: Notification, known: Descriptor, request: int, pointer: int) -> Answer:
    layout = uapi.sync_merge_data
    run.need_number(call)  # the kernel looks for one first
    given = memory.read(call.thread, pointer, layout.size)
    data = _translated(run, call, given, layout, "fd2")
    answer = _with_new_descriptor(run, call, known, request, _Filled(data, given, layout, "fence"))
    offset = layout.offsets["fd2"]
    memory.write(call.thread, pointer + offset, given[offset : offset + 4])
    return answer


def _import(run: Supervisor, call: Notification, known: Descriptor, request: int, pointer: int) -> Answer:
    layout = uapi.dma_buf_import_sync_file
    given = memory.read(call.thread, pointer, layout.size)
    run.system.backend.ioctl(known.fd, request, _translated(run, call, given, layout, "fd"))
    return 0


def _translated(run: Supervisor, call: Notification, given: bytes, layout: uapi.Layout, field: str) -> bytearray:
    """The argument with the program's descriptor in *field* replaced by the backend's."""
    data = bytearray(given)
    offset = layout.offsets[field]
    other = run.find(call, int.from_bytes(given[offset : offset + 4], sys.byteorder))
    _put(data, offset, NOT_OPEN if other is None else other.fd)
    return data


def _file_info(run: Supervisor, call: Notification, known: Descriptor, request: int, pointer: int) -> Answer:
    layout, item = uapi.sync_file_info, uapi.sync_fence_info
    data = bytearray(memory.read(call.thread, pointer, layout.size))
    room, address = layout.get(data, "num_fences"), layout.get(data, "sync_fence_info")
    table = ctypes.create_string_buffer(max(1, min(room, _MOST_FENCES)) * item.size)
    offset = layout.offsets["sync_fence_info"]
    data[offset : offset + 8] = ctypes.addressof(table).to_bytes(8, sys.byteorder)
    run.system.backend.ioctl(known.fd, request, data)
    if room:
        memory.write(call.thread, address, table.raw[: layout.get(data, "num_fences") * item.size])
    data[offset : offset + 8] = address.to_bytes(8, sys.byteorder)
    memory.write(call.thread, pointer, bytes(data))
    return 0


# -- udmabufs


def _create(run: Supervisor, call: Notification, known: Descriptor, request: int, pointer: int) -> Answer:
    layout = uapi.udmabuf_create
    data = bytearray(memory.read(call.thread, pointer, layout.size))
    if run.parameters is not None:
        run.parameters.apply()
    return _make_udmabuf(run, call, known, request, data, [layout.offsets["memfd"]], layout.get(data, "flags"))


def _create_list(run: Supervisor, call: Notification, known: Descriptor, request: int, pointer: int) -> Answer:
    layout, item = uapi.udmabuf_create_list, uapi.udmabuf_create_item
    data = bytearray(memory.read(call.thread, pointer, layout.size))
    if run.parameters is not None:
        run.parameters.apply()
    count = layout.get(data, "count")
    places: list[int] = []
    # More than the kernel can allocate for it: it does not look at a single item then.
    if count <= run.system.list_limit and count * item.size <= _LARGEST_LIST:
        data += memory.read(call.thread, pointer + layout.size, count * item.size)
        places = [layout.size + index * item.size for index in range(count)]
    return _make_udmabuf(run, call, known, request, data, places, layout.get(data, "flags"))


def _make_udmabuf(
    run: Supervisor, call: Notification, known: Descriptor, request: int, data: bytearray, places: list[int], flags: int
) -> Answer:
    backend = run.system.backend
    adopted: dict[int, int] = {}
    try:
        from dmasync.fakes.foreign.memfds import ours

        for place in places:
            number = int.from_bytes(data[place : place + 4], sys.byteorder)
            if number not in adopted:
                with ours():
                    adopted[number] = _adopted(run, call, number)
            _put(data, place, adopted[number])
        fd = int(backend.ioctl(known.fd, request, data))
    finally:
        for mine in adopted.values():
            if mine != NOT_OPEN:
                backend.close(mine)
    run.hand_over(call, fd, close_on_exec=bool(flags & uapi.UDMABUF_FLAGS_CLOEXEC), answer=True)
    return Said.SENT


def _adopted(run: Supervisor, call: Notification, number: int) -> int:
    """A descriptor of the backend for the file that the program calls *number*, a memfd if all is well."""
    known = run.find(call, number)
    if known is not None:
        copy = int(run.system.backend.dup(known.fd))
        run.files.note(copy, number)
        return copy
    try:
        mine = run.processes.take(call.process, number, call.thread)
        if mine is None:
            # Where a container forbids that: the same memfd, opened again, is as good.
            mine = os.open(f"/proc/{call.thread}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as problem:
        return NOT_OPEN if problem.errno in (errno.EBADF, errno.ENOENT) else _no_memfd(run)
    run.files.note(mine, number)  # a real kernel's memfd stays what it is
    try:
        adopted = run.system.adopt(mine)
        run.files.note(adopted, number)
        return adopted
    except OSError:
        return _no_memfd(run)


def _no_memfd(run: Supervisor) -> int:
    """A file that is open and no memfd: the kernel refuses all such alike, so any that is none will do."""
    if run.system.is_fake:
        return int(run.system.backend.open(run.places.nodes[0], os.O_RDWR))
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


_HANDLERS: Final = {
    uapi.DMA_BUF_SET_NAME_A: _set_name,
    uapi.DMA_BUF_SET_NAME_B: _set_name,
    uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE: _export,
    uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE: _import,
    uapi.UDMABUF_CREATE: _create,
    uapi.UDMABUF_CREATE_LIST: _create_list,
    uapi.SYNC_IOC_MERGE: _merge,
    uapi.SYNC_IOC_FILE_INFO: _file_info,
}

_OF_A_BUFFER: Final = (uapi.DMA_BUF_SET_NAME_A, uapi.DMA_BUF_SET_NAME_B)
"""Other files refuse them before they look at the argument."""

HANDLERS: Final = {"ioctl": _ioctl}
