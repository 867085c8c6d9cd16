"""Whether KVM works here: the kernel is asked, and the emulator, which may fail although the node opens."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from dmasync.harness.vm.host import host_machine, search_path

NODE: Final = Path("/dev/kvm")
_GET_API_VERSION: Final = 0xAE00
_CREATE_VM: Final = 0xAE01  # include/uapi/linux/kvm.h: _IO(KVMIO, 0x01)
_API_VERSION: Final = 12
_EMULATORS: Final = {"x86_64": ("qemu-system-x86_64", "q35"), "aarch64": ("qemu-system-aarch64", "virt")}
_SECONDS: Final = 5


def try_kvm(node: Path = NODE) -> tuple[bool, str]:
    """Whether a virtual machine can be made with KVM, and in a few words why not; no words where there is no node."""
    if not node.exists():
        return False, ""
    try:
        descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return False, f"{node} does not open ({error.strerror})"
    try:
        if fcntl.ioctl(descriptor, _GET_API_VERSION) != _API_VERSION:
            return False, f"{node} speaks another version"
        os.close(fcntl.ioctl(descriptor, _CREATE_VM, 0))
    except OSError as error:
        return False, f"{node} makes no virtual machine ({error.strerror})"
    finally:
        os.close(descriptor)
    return _in_emulator()


def _in_emulator() -> tuple[bool, str]:
    """Start the emulator with KVM and a CPU, and let it quit at once: no guest runs."""
    name, machine = _EMULATORS.get(host_machine(), ("", ""))
    program = shutil.which(name, path=search_path()) if name else None
    if program is None:
        return True, ""
    line = [program, "-accel", "kvm", "-cpu", "host", "-machine", machine, "-m", "64M", "-nodefaults", "-nographic"]
    line += ["-no-user-config", "-S", "-monitor", "stdio"]
    try:
        done = subprocess.run(
            line, input="quit\n", capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"{name} did not start within {_SECONDS} s"
    except OSError as error:
        return False, f"{name} does not start ({error.strerror})"
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        # The whole line names a file of the emulator's sources: it would read as a crash of something that was wanted.
        why = "one of its own checks fails" if "Assertion" in said[-1] else said[-1]
        return False, f"{name} ends when it is tried: {why}"
    return True, ""
