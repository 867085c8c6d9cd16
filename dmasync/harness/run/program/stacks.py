"""Where a program is: its stack, unwound from outside while it waits, with the names and lines of its debug data.

elfutils' libdw reads the unwind tables, the symbols and the lines. Registers other than the program counter and the
stack pointer are not known of a thread that waits for a filter's answer: where the tables ask for the frame pointer
before a frame has told it, the first frame record on the stack that is followed by a return address is taken.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import platform
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from dmasync.harness.run.program import memory

Frame = tuple[str, int, str]
_DEPTH: Final = 24
_STACK: Final = 16384
"""How far a frame record is looked for."""
_NEAR: Final = 2048
"""Bytes that are read at once."""
_WORD: Final = 8
_LOOKS: Final = 1000
_PUSHED: Final = struct.Struct("<QQ")
_OP_PLUS: Final = 0x23
_OP_BREG0: Final = 0x70
_OP_BREGX: Final = 0x92
_OP_CFA: Final = 0x9C
_SIGNED: Final = 1 << 63
_POINTER: Final = ctypes.c_void_p
_CALL: Final = 0xE8
_CALL_INDIRECT: Final = 0xFF
_CALL_LENGTH: Final = 6
"""The longest of those that matter on x86-64: call through a table beside the code."""
_JUMP_THROUGH_TABLE: Final = b"\xff\x25"
"""What an entry of the procedure linkage table does."""
_BL, _BL_MASK = 0x94000000, 0xFC000000
_BLR, _BLR_MASK = 0xD63F0000, 0xFFFFFC1F


class _Operation(ctypes.Structure):
    """Dwarf_Op."""

    _fields_ = (
        ("atom", ctypes.c_uint8),
        ("number", ctypes.c_uint64),
        ("number2", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
    )


class _Callbacks(ctypes.Structure):
    """Dwfl_Callbacks."""

    _fields_ = (
        ("find_elf", _POINTER),
        ("find_debuginfo", _POINTER),
        ("section_address", _POINTER),
        ("debuginfo_path", _POINTER),
    )


@dataclass(frozen=True)
class _Registers:
    """DWARF's numbers of a machine's registers."""

    stack: int
    frame: int
    return_address: int


_REGISTERS: Final = {"x86_64": _Registers(7, 6, 16), "aarch64": _Registers(31, 29, 30)}


@dataclass(frozen=True)
class _Step:
    """How to get from one frame to the next: (register, offset) of the CFA; where the others lie relative to it."""

    frame: Frame
    cfa: tuple[int, int] | None = None
    return_at: int | None = None
    frame_pointer_at: int | None = None


class Stacks:
    """Takes stacks; ``is_available`` is False where libdw is not installed, and every stack is empty then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library = _load()
        self._registers = _REGISTERS[platform.machine()]
        self._sessions: dict[int, Any] = {}
        self._steps: dict[tuple[int, int], _Step | None] = {}
        self._ends: dict[int, tuple[int, int]] = {}
        """Of each thread's stack: the addresses between which it lies."""
        self._demangle = _demangler()
        self._callbacks = _Callbacks()
        if self._library is not None:
            for name, function in (
                ("find_elf", self._library.dwfl_linux_proc_find_elf),
                ("find_debuginfo", self._library.dwfl_standard_find_debuginfo),
            ):
                setattr(self._callbacks, name, ctypes.cast(function, _POINTER))

    @property
    def is_available(self) -> bool:
        return self._library is not None

    def take(self, process: int, thread: int, counter: int) -> tuple[Frame, ...]:
        """The stack of *thread*, which waits at *counter*, innermost frame first."""
        if self._library is None:
            return ()
        pointer = _stack_pointer(thread)
        if pointer is None:
            return ()
        with self._lock:
            return tuple(self._unwind(process, thread, counter, pointer))

    def forget(self, process: int) -> None:
        """The process has ended, or is another program now."""
        with self._lock:
            session = self._sessions.pop(process, None)
            self._steps = {place: step for place, step in self._steps.items() if place[0] != process}
            if session is not None and self._library is not None:
                self._library.dwfl_end(session)

    def _unwind(self, process: int, thread: int, counter: int, pointer: int) -> list[Frame]:
        stack = _Stack(thread, pointer, self._end_of_stack(process, thread, pointer))
        frames: list[Frame] = []
        base: int | None = None
        while len(frames) < _DEPTH:
            # A return address is behind the call: the call itself is what is asked about.
            step = self._step(process, counter if not frames else counter - 1)
            if step is None or (frames and step.cfa is None):
                break  # no code that the tables know
            frames.append(step.frame)
            if step.cfa is None and len(frames) == 1:
                # Some C libraries have no tables, musl for one: whoever called into it has.
                calling = self._first_call(process, thread, stack, pointer)
                if calling is None:
                    break
                counter, pointer = calling
                continue
            if step.cfa is None or step.return_at is None:
                break
            register, offset = step.cfa
            if register == self._registers.frame and base is None:
                base = self._first_record(process, stack, pointer)
            origin = pointer if register == self._registers.stack else base
            if origin is None:
                break
            cfa = origin + offset
            returned = stack.word(cfa + step.return_at)
            if not returned or cfa <= pointer - _WORD:
                break
            if step.frame_pointer_at is not None:
                base = stack.word(cfa + step.frame_pointer_at)
            counter, pointer = returned, cfa
        return frames

    def _end_of_stack(self, process: int, thread: int, pointer: int) -> int:
        low, high = self._ends.get(thread, (0, 0))
        if not low <= pointer < high:
            low, high = pointer, pointer + _WORD
            with contextlib.suppress(OSError), open(f"/proc/{process}/maps") as maps:
                for line in maps:
                    begin, end = (int(text, 16) for text in line.split(None, 1)[0].split("-"))
                    if begin <= pointer < end:
                        low, high = begin, end
            self._ends[thread] = low, high
        return high

    def _first_call(self, process: int, thread: int, stack: _Stack, pointer: int) -> tuple[int, int] | None:
        """The first return address on the stack that lies behind a call, in code that has tables, of code without; and
        the stack pointer once that call has returned.
        """
        for place in range(pointer, pointer + _NEAR, _WORD):
            returned = stack.word(place)
            if returned is None:
                return None
            step = self._step(process, returned - 1) if returned > 1 << 16 else None
            if step is not None and step.cfa is not None and self._calls(process, thread, returned):
                return returned, place + _WORD
        return None

    def _calls(self, process: int, thread: int, returned: int) -> bool:
        """Whether the instruction before *returned* may have called a function without tables."""
        code = memory.peek(thread, returned - _CALL_LENGTH, _CALL_LENGTH)
        if len(code) < _CALL_LENGTH:
            return False
        if platform.machine() == "aarch64":
            word = int.from_bytes(code[-4:], "little")
            return word & _BL_MASK == _BL or word & _BLR_MASK == _BLR
        if code[1] != _CALL:
            return code[0] == _CALL_INDIRECT or code[-2] == _CALL_INDIRECT or code[-3] == _CALL_INDIRECT
        target = returned + int.from_bytes(code[2:], "little", signed=True)
        step = self._step(process, target)
        return step is None or step.cfa is None or _JUMP_THROUGH_TABLE in memory.peek(thread, target, 2 * _WORD)

    def _first_record(self, process: int, stack: _Stack, pointer: int) -> int | None:
        for place in range(pointer, pointer + _STACK - _WORD, _WORD):
            saved, returned = stack.word(place), stack.word(place + _WORD)
            if saved is None or returned is None:
                return None
            if (saved > place or saved in (0, 1)) and returned > 1 << 16:
                step = self._step(process, returned - 1)
                if step is not None and step.cfa is not None:
                    return place
        return None

    # -- libdw

    def _step(self, process: int, address: int) -> _Step | None:
        place = process, address
        if place not in self._steps:
            self._steps[place] = self._look_up(process, address)
        return self._steps[place]

    def _look_up(self, process: int, address: int) -> _Step | None:
        library = self._library
        module = self._module(process, address)
        if not module or library is None:
            return None
        step = _Step(self._frame(module, address))
        for tables in (library.dwfl_module_eh_cfi, library.dwfl_module_dwarf_cfi):
            bias = ctypes.c_uint64()
            information = tables(module, ctypes.byref(bias))
            found = _POINTER()
            place = (address - bias.value) & (1 << 64) - 1
            if information and not library.dwarf_cfi_addrframe(information, place, ctypes.byref(found)):
                with contextlib.suppress(LookupError):
                    step = _Step(
                        step.frame,
                        self._cfa(found),
                        self._saved(found, self._registers.return_address),
                        self._saved(found, self._registers.frame),
                    )
                _LIBC.free(found)
                break
        return step

    def _module(self, process: int, address: int) -> Any:
        assert self._library is not None  # noqa: S101 - take() asked
        session = self._sessions.get(process)
        module = session and self._library.dwfl_addrmodule(session, address)
        if not module:
            # New, or it has loaded a library since.
            if session is None:
                session = self._sessions[process] = self._library.dwfl_begin(ctypes.byref(self._callbacks))
            else:
                self._library.dwfl_report_begin(session)
            if self._library.dwfl_linux_proc_report(session, process):
                return None
            self._library.dwfl_report_end(session, None, None)
            module = self._library.dwfl_addrmodule(session, address)
        return module

    def _frame(self, module: Any, address: int) -> Frame:
        library = self._library
        assert library is not None  # noqa: S101 - take() asked
        name = library.dwfl_module_addrname(module, address)
        function = self._demangle(name) if name else hex(address)
        line = library.dwfl_module_getsrc(module, address)
        if line:
            number = ctypes.c_int()
            file = library.dwfl_lineinfo(line, None, ctypes.byref(number), None, None, None)
            if file:
                return file.decode(errors="replace"), number.value, function
        path = library.dwfl_module_info(module, None, None, None, None, None, None, None)
        return (path or b"?").decode(errors="replace"), 0, function

    def _cfa(self, frame: Any) -> tuple[int, int]:
        assert self._library is not None  # noqa: S101 - take() asked
        operations, count = ctypes.POINTER(_Operation)(), ctypes.c_size_t()
        if self._library.dwarf_frame_cfa(frame, ctypes.byref(operations), ctypes.byref(count)) or count.value != 1:
            raise LookupError
        operation = operations[0]
        if operation.atom == _OP_BREGX:
            return operation.number, _signed(operation.number2)
        if _OP_BREG0 <= operation.atom < _OP_BREG0 + 32:
            return operation.atom - _OP_BREG0, _signed(operation.number)
        raise LookupError

    def _saved(self, frame: Any, register: int) -> int | None:
        """Where a register was saved, relative to the CFA; None for one that was left alone."""
        assert self._library is not None  # noqa: S101 - take() asked
        room, operations, count = (_Operation * 3)(), ctypes.POINTER(_Operation)(), ctypes.c_size_t()
        if self._library.dwarf_frame_register(frame, register, room, ctypes.byref(operations), ctypes.byref(count)):
            raise LookupError
        if not count.value or operations[0].atom != _OP_CFA:
            return None
        if count.value == 1:
            return 0
        return _signed(operations[1].number) if operations[1].atom == _OP_PLUS else None


class _Stack:
    """Words of a thread's stack, and of nothing else: what lies behind it may be a buffer whose pages are watched."""

    def __init__(self, thread: int, pointer: int, end: int) -> None:
        self._thread = thread
        self._pointer = pointer
        self._end = end
        self._bytes = memory.peek(thread, pointer, min(_NEAR, end - pointer))

    def word(self, address: int) -> int | None:
        place = address - self._pointer
        if place < 0 or address + _WORD > self._end:
            return None
        data = self._bytes[place : place + _WORD]
        if len(data) < _WORD:
            data = memory.peek(self._thread, address, _WORD)
        return int.from_bytes(data, "little") if len(data) == _WORD else None


def _stack_pointer(thread: int) -> int | None:
    """Where its stack ends; None when it has ended. It may not have got to sleep yet, and is "running" so long."""
    for _ in range(_LOOKS):
        try:
            with open(f"/proc/{thread}/syscall") as call:
                fields = call.read().split()
        except OSError:
            return None
        if len(fields) > 2:
            return int(fields[-2], 16)
        time.sleep(0)
    return None


_LIBC: Final = ctypes.CDLL(None)
_LIBC.free.argtypes = (_POINTER,)


def _signed(value: int) -> int:
    return value - (_SIGNED << 1) if value & _SIGNED else value


def _load() -> Any:
    try:
        library = ctypes.CDLL("libdw.so.1")
    except OSError:
        return None
    signatures: tuple[tuple[Any, ...], ...] = (
        ("dwfl_begin", _POINTER, _POINTER),
        ("dwfl_end", None, _POINTER),
        ("dwfl_report_begin", None, _POINTER),
        ("dwfl_linux_proc_report", ctypes.c_int, _POINTER, ctypes.c_int),
        ("dwfl_report_end", ctypes.c_int, _POINTER, _POINTER, _POINTER),
        ("dwfl_addrmodule", _POINTER, _POINTER, ctypes.c_uint64),
        ("dwfl_module_addrname", ctypes.c_char_p, _POINTER, ctypes.c_uint64),
        ("dwfl_module_getsrc", _POINTER, _POINTER, ctypes.c_uint64),
        ("dwfl_lineinfo", ctypes.c_char_p, *[_POINTER] * 6),
        ("dwfl_module_info", ctypes.c_char_p, *[_POINTER] * 8),
        ("dwfl_module_eh_cfi", _POINTER, _POINTER, _POINTER),
        ("dwfl_module_dwarf_cfi", _POINTER, _POINTER, _POINTER),
        ("dwarf_cfi_addrframe", ctypes.c_int, _POINTER, ctypes.c_uint64, _POINTER),
        ("dwarf_frame_cfa", ctypes.c_int, *[_POINTER] * 3),
        ("dwarf_frame_register", ctypes.c_int, _POINTER, ctypes.c_int, *[_POINTER] * 3),
    )
    for name, result, *arguments in signatures:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _demangler() -> Any:
    """Names of C++ functions as they are written, where the C++ library is there to say."""
    try:
        demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    except OSError:
        return lambda name: name.decode(errors="replace")
    demangle.restype = _POINTER
    demangle.argtypes = (ctypes.c_char_p, _POINTER, _POINTER, _POINTER)

    def readable(name: bytes) -> str:
        if not name.startswith(b"_Z"):
            return name.decode(errors="replace")
        text = demangle(name, None, None, None)
        if not text:
            return name.decode(errors="replace")
        try:
            return ctypes.string_at(text).decode(errors="replace")
        finally:
            _LIBC.free(text)

    return readable
