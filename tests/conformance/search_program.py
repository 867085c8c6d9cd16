"""Programs of the search as files and as text.

The operations: ``open out path flags``, ``memfd out name flags``, ``dup out fd``, ``close fd``,
``ftruncate fd length``, ``add_seals fd seals``, ``get_seals fd``, ``lseek fd offset whence``, ``poll fd events``,
``reopen out fd flags`` (by its place in ``/proc/self/fd``),
``mmap out fd length prot flags offset``, ``unmap map``, ``write map at data``, ``madvise map advice at length``,
``flush map at length``, ``map_size map``, ``resize map length``, ``fence out sync_file``,
``signal fence``, ``limits list_limit size_limit_mb``, ``nofd operation`` (with no descriptor left), ``ioctl out fd
request kind payload cut patches``, and ``checkpoint``. Descriptors, mappings and fences are numbers of variables; one
that holds nothing is never open.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dmasync import uapi
from tests.conformance.search_generator import name_of
from tests.conformance.search_world import Observation, Op, World

CHECKPOINT: Op = ("checkpoint",)
_OF_KSM = (12, 13)  # MADV_MERGEABLE, MADV_UNMERGEABLE


def observe(world: World, op: Op) -> Observation:
    """Run *op* in *world*, or look at everything."""
    return world.checkpoint() if op == CHECKPOINT else world.step(op)


def digest(observation: Observation) -> int:
    """Three bytes that two observations share only by chance when they differ."""
    return zlib.crc32(repr(observation).encode()) & 0xFF_FFFF


def outcome_of(observation: Observation) -> str:
    """The errno's name, or ok."""
    first = observation[0] if observation else None
    if isinstance(first, tuple):
        first = first[0] if first else None
    return first if isinstance(first, str) and first else "ok"


def label_of(op: Op) -> str:
    """What an operation is counted as."""
    if op[0] == "nofd":
        return "no descriptor left: " + label_of(tuple(op[1]))
    if op[0] == "ioctl":
        return f"ioctl {name_of(op[3])}{_edge_of(op)}"
    return "add_seals F_SEAL_EXEC" if op[0] == "add_seals" and op[2] & uapi.F_SEAL_EXEC else str(op[0])


def _edge_of(op: Op) -> str:
    """START or END, where the argument of a SYNC is one of them."""
    request, payload = op[3], op[5]
    if request != uapi.DMA_BUF_IOCTL_SYNC or isinstance(payload, int) or len(payload) < uapi.dma_buf_sync.size:
        return ""
    flags = uapi.dma_buf_sync.get(payload, "flags")
    if not 1 <= flags & ~uapi.DMA_BUF_SYNC_END <= uapi.DMA_BUF_SYNC_RW:
        return ""
    return " END" if flags & uapi.DMA_BUF_SYNC_END else " START"


def answerable(ops: Iterable[Op], *, merges_pages: bool) -> Iterator[Op]:
    """*ops* without those that a kernel answers otherwise if it was built without CONFIG_KSM, where it was."""
    for op in ops:
        if merges_pages or op[0] != "madvise" or op[2] not in _OF_KSM:
            yield op


def to_json(value: Any) -> Any:
    """*value* with bytes told by their hexadecimal digits, trailing zeros by their number."""
    if isinstance(value, bytes):
        core = value.rstrip(b"\0")
        return {"x": core.hex(), "z": len(value) - len(core)}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Any:
    """The value that :func:`to_json` was given; sequences as tuples."""
    if isinstance(value, dict):
        return bytes.fromhex(value["x"]) + bytes(value["z"])
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    return value


def used(op: Op) -> set[int]:
    """The variables that *op* needs."""
    name, *args = op
    if name == "nofd":
        return used(tuple(args[0]))
    if name == "ioctl":
        return {args[1], *(value for _, _, value in args[6] if isinstance(value, int))}
    if name in ("dup", "mmap", "reopen"):
        return {args[1]}
    return {args[0]} if name not in ("open", "memfd", "fence", "limits", "checkpoint") else set()


def as_python(program: Iterable[Op]) -> str:
    """*program* as a short Python program over a backend."""
    return "\n".join(line for op in program for line in _lines(op))


def _lines(op: Op) -> Sequence[str]:
    name, *args = op
    if name == "nofd":
        return ["with no_descriptor_left():", *("    " + line for line in _lines(tuple(args[0])))]
    if name in ("open", "memfd"):
        call = "open" if name == "open" else "memfd_create"
        return [f"v{args[0]} = backend.{call}({args[1]!r}, {args[2]:#o})"]
    if name == "dup":
        return [f"v{args[0]} = backend.dup(v{args[1]})"]
    if name == "reopen":
        return [f"v{args[0]} = backend.open(f'/proc/self/fd/{{v{args[1]}}}', {args[2]:#o})"]
    if name == "mmap":
        length, prot, flags, offset = args[2:]
        call = f"backend.mmap(v{args[1]}, {length:#x}, prot={prot}, flags={flags:#x}, offset={offset:#x})"
        return [f"v{args[0]} = {call}"]
    if name == "unmap":
        return [f"v{args[0]}.close()"]
    if name in ("madvise", "flush", "map_size", "resize"):
        return [f"v{args[0]}.{name.removeprefix('map_')}({', '.join(map(str, args[1:]))})"]
    if name == "write":
        return [f"v{args[0]}[{args[1]}:{args[1] + len(args[2])}] = {args[2]!r}"]
    if name == "fence":
        return [f"v{args[0]}, v{args[1]} = pending_fence(), its_sync_file"]
    if name == "signal":
        return [f"v{args[0]}.signal()"]
    if name == "limits":
        return [f"udmabuf.list_limit, udmabuf.size_limit_mb = {args[0]}, {args[1]}"]
    if name == "checkpoint":
        return ["look_at_everything()"]
    if name == "ioctl":
        return _ioctl_lines(*args)
    return [f"backend.{name}({', '.join([f'v{args[0]}', *(hex(arg) for arg in args[1:])])})"]


def _ioctl_lines(out: int, var: int, request: int, kind: str, payload: Any, cut: int, patches: Any) -> Sequence[str]:
    if kind == "i":
        return [f"backend.ioctl(v{var}, {request:#x}, {payload})  # {name_of(request)}"]
    core = payload.rstrip(b"\0")
    data = f"{core!r}" + (f" + bytes({len(payload) - len(core)})" if len(core) < len(payload) else "")
    lines = [f"a = bytearray({data})"]
    for at, size, value in patches:
        what = f"v{value}" if isinstance(value, int) else f"address_of_{value}"
        lines.append(f"a[{at}:{at + size}] = {what}.to_bytes({size}, 'little')")
    where = {"b": "a", "m": f"address_of(a, last_bytes_in_a_hole={cut})", "r": "address_of(a, read_only=True)"}[kind]
    lines.append(f"v{out} = new_descriptor_of(backend.ioctl(v{var}, {request:#x}, {where}))  # {name_of(request)}")
    return lines
