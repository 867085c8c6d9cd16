"""What a board says of itself before and after a run. It goes there as it is: it imports the standard library alone."""

from __future__ import annotations

import glob
import gzip
import hashlib
import os
import platform
from typing import Any


def facts(root: str = "/") -> dict[str, Any]:
    """Its kernel, model, frequencies and load, by the files below *root*; unknown facts are left out."""
    cpus = os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*")
    told: dict[str, Any] = {
        "kernel": platform.release(),
        "kernel_version": platform.version(),
        "kernel_config_digest": _config_digest(root),
        "model": _text(root, "proc/device-tree/model") or _text(root, "sys/class/dmi/id/product_name"),
        "cpu": _cpu(root),
        "governors": _each(os.path.join(cpus, "cpufreq/scaling_governor")),
        "frequencies_khz": _numbers(os.path.join(cpus, "cpufreq/scaling_cur_freq")),
        "throttled": sum(
            sum(_numbers(os.path.join(cpus, f"thermal_throttle/{part}_throttle_count")).values())
            for part in ("core", "package")  # a package that is too hot slows down cores that are not
        ),
        "cooling": _numbers(os.path.join(root, "sys/class/thermal/cooling_device*/cur_state")),
        "temperatures_mc": _numbers(os.path.join(root, "sys/class/thermal/thermal_zone*/temp")),
        "load": _load(root),
    }
    return {name: value for name, value in told.items() if value not in (None, "", {}, [])}


def _text(root: str, name: str) -> str:
    try:
        with open(os.path.join(root, name), "rb") as file:
            return file.read().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def _each(pattern: str) -> dict[str, str]:
    """The text of each file, by the name of the folder that tells which CPU, zone or device it is."""
    found = {}
    for path in sorted(glob.glob(pattern)):
        numbered = [part for part in path.split("/") if part[-1:].isdigit()]
        parts = [part for part in numbered if part.startswith(("cpu", "thermal_", "cooling_"))]
        if text := _text("/", path):
            found[parts[-1] if parts else path] = text
    return found


def _numbers(pattern: str) -> dict[str, int]:
    return {name: int(text) for name, text in _each(pattern).items() if text.lstrip("-").isdigit()}


def _config_digest(root: str) -> str:
    """SHA-256 of the kernel's configuration, as the kernel itself has it or as it was installed beside it."""
    try:
        with gzip.open(os.path.join(root, "proc/config.gz")) as packed:
            return hashlib.sha256(packed.read()).hexdigest()
    except (OSError, EOFError):
        pass
    try:
        with open(os.path.join(root, "boot/config-" + platform.release()), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def _cpu(root: str) -> str:
    for line in _text(root, "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "cpu model", "uarch"):
            return value.strip()
    return ""


def _load(root: str) -> list[float]:
    return [float(part) for part in _text(root, "proc/loadavg").split()[:3]]


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What moved during a run and makes its times doubtful, in sentences."""
    told = []
    if after.get("throttled", 0) > before.get("throttled", 0):
        told.append("the CPU was throttled while it was measured")
    if any(state > before.get("cooling", {}).get(name, 0) for name, state in after.get("cooling", {}).items()):
        told.append("it was cooled down while it was measured: a cooling device went up")
    if before.get("governors") != after.get("governors"):
        told.append("its frequency governor was changed while it was measured")
    if before.get("load", [0])[0] > 0.5:
        told.append(f"it was busy before it was measured: load {before['load'][0]:g}")
    return told
