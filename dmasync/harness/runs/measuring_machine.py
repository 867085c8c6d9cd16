"""Which machine measured: what its CPU is, and whether the runs of a comparison by the wall clock had the same one."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmasync.harness.runs.reading import Run, printable

HOST = "host"
"""In ``machine_info`` of a run in a virtual machine: the facts of the machine that emulated the guest's CPU."""


def machine_facts(root: Path = Path("/")) -> dict[str, object]:
    """The CPU of this machine, in pytest-benchmark's words, and what else moves a time: for ``machine_info``."""
    told = _cpu_information(root)
    cpu: dict[str, object] = {"count": os.cpu_count()}
    if brand := _brand(told, root):
        cpu["brand_raw"] = brand
    facts: dict[str, object] = {"node": platform.node(), "cpu": cpu, "virtual": _is_virtual(told, root)}
    if governor := _governor(root):
        facts["cpu_governor"] = governor
    return facts


def difference(runs: Sequence[Run]) -> str:
    """What tells the machines of *runs* apart, in words; empty where it was one machine, or one like the other.

    Machines of the same CPU, count of CPUs, governor and kind (virtual or not) are taken for alike. A fact that a file
    does not tell counts as the same on one host only, as its name says.
    """
    machines = [_measuring(run) for run in runs]
    one_host = len({_text(machine.get("node")) for machine in machines}) == 1
    told = []
    for name, fact in _FACTS.items():
        values = list(dict.fromkeys(fact(machine) for machine in machines))
        known = [value for value in values if value is not None]
        if len(known) > 1 or (known and len(values) > 1 and not one_host):
            told.append(f"{name} {' and '.join('unknown' if value is None else value for value in values)}")
    if not told and not one_host and any(_FACTS["CPU"](machine) is None for machine in machines):
        hosts = list(dict.fromkeys(_text(machine.get("node")) or "unknown" for machine in machines))
        told.append(f"host {' and '.join(hosts)}, and the files do not tell their CPUs")
    return printable(", ".join(told))


def _measuring(run: Run) -> Mapping[str, Any]:
    host = run.machine.get(HOST)
    return host if isinstance(host, dict) else run.machine


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _of_cpu(machine: Mapping[str, Any], key: str) -> object:
    cpu = machine.get("cpu")
    return cpu.get(key) if isinstance(cpu, dict) else None


def _kind(machine: Mapping[str, Any]) -> str | None:
    virtual, flags = machine.get("virtual"), _of_cpu(machine, "flags")
    if virtual is None and isinstance(flags, list) and flags:  # pytest-benchmark's own
        virtual = "hypervisor" in flags
    return None if virtual is None else "virtual" if virtual else "not virtual"


_FACTS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "CPU": lambda machine: _text(_of_cpu(machine, "brand_raw")),
    "count of CPUs": lambda machine: _text(_of_cpu(machine, "count")),
    "governor": lambda machine: _text(machine.get("cpu_governor")),
    "machine": _kind,
}


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes().decode("utf-8", "replace").strip("\0\n ")
    return ""


def _cpu_information(root: Path) -> dict[str, list[str]]:
    """The values of each key of ``/proc/cpuinfo``, each once, in order."""
    found: dict[str, list[str]] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, colon, value = line.partition(":")
        values = found.setdefault(name.strip(), [])
        if colon and value.strip() not in values:
            values.append(value.strip())
    return found


def _brand(told: Mapping[str, list[str]], root: Path) -> str:
    """The model of the CPU. arm64 has no such line: there the board's name, and the numbers of its cores."""
    if models := told.get("model name") or told.get("cpu model") or told.get("uarch") or told.get("cpu"):
        return " + ".join(models)
    board = _read(root / "proc/device-tree/model")
    cores = [
        " ".join(f"{key.removeprefix('CPU ')} {value}" for value in told[key])
        for key in ("CPU implementer", "CPU part", "CPU revision")
        if key in told
    ]
    return ", ".join(part for part in (board, " ".join(cores)) if part)


def _governor(root: Path) -> str:
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return "+".join(sorted({text for path in folders if (text := _read(path))}))


def _is_virtual(told: Mapping[str, list[str]], root: Path) -> bool:
    if any("hypervisor" in flags.split() for flags in told.get("flags", [])):
        return True
    if (root / "proc/device-tree/hypervisor").exists() or _read(root / "sys/hypervisor/type"):
        return True
    maker = f"{_read(root / 'sys/class/dmi/id/sys_vendor')} {_read(root / 'sys/class/dmi/id/product_name')}"
    return bool(re.search(r"QEMU|KVM|VMware|VirtualBox|Xen|Virtual Machine|Bochs", maker))
