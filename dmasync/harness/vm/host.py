"""The host as virtual machines see it: its architecture, and where its programs are looked for."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def host_machine() -> str:
    """Return the host's architecture under the kernel's name (``x86_64``, ``aarch64``)."""
    machine = platform.machine()
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine)


def search_path() -> str:
    """Return PATH with the folder of this interpreter's scripts first and the system's own folders last.

    virtme-ng starts its own programs by name; depmod lives in sbin, which an ordinary user's PATH lacks.
    """
    entries = [str(Path(sys.executable).parent), *os.environ.get("PATH", "").split(os.pathsep)]
    entries += ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return os.pathsep.join(dict.fromkeys(entry for entry in entries if entry))
