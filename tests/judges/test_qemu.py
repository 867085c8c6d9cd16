"""QEMU's virtio-gpu with blob resources: it makes a udmabuf of the guest's memory for each buffer that the guest has.

On a host without ``/dev/udmabuf`` it does not start; on the fake kernel it does, and the guest draws into udmabufs.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dmasync.fakes import Journal
from dmasync.harness.vm import kernels
from dmasync.harness.vm.kernels.kernel import Kernel

pytestmark = [pytest.mark.judges, pytest.mark.timeout(400)]
INIT = Path(__file__).with_name("guest_init.c")
DRIVER = "virtio-gpu"
MEMORY = "384M"


@pytest.fixture(scope="session")
def qemu() -> str:
    """QEMU for this machine; installed where that is possible."""
    found = shutil.which("qemu-system-x86_64")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "qemu-system-x86"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(command, check=False, capture_output=True, env=environment)
        found = shutil.which("qemu-system-x86_64")
    if found is None:
        pytest.skip("there is no qemu-system-x86_64, and it cannot be installed")
    return found


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    return kernels.resolve(machine="x86_64")


def entry(name: str, mode: int, data: bytes = b"") -> bytes:
    """A file of a cpio archive in the form that the kernel unpacks at its start."""
    path = name.encode() + b"\0"
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)


@pytest.fixture(scope="session")
def initrd(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of ours and the modules of the virtual graphics card, in the order in which they are loaded."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("guest")
    subprocess.run([compiler, "-static", "-O1", "-Wall", "-Werror", "-o", folder / "init", INIT], check=True)
    assert kernel.modules is not None
    lines = (kernel.modules / "modules.dep").read_text().splitlines()
    driver, _, needed = next(line for line in lines if f"/{DRIVER}.ko" in line.partition(":")[0]).partition(":")
    directory, file = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    archive = (
        entry("dev", directory) + entry("modules", directory) + entry("init", file, (folder / "init").read_bytes())
    )
    for place, module in enumerate([*reversed(needed.split()), driver]):
        archive += entry(f"modules/{place:02}", file, (kernel.modules / module).read_bytes())
    path = folder / "initrd"
    path.write_bytes(gzip.compress(archive + entry("TRAILER!!!", 0), 1))
    return path


def command(qemu: str, *more: object) -> list[str]:
    return [
        qemu, "-display", "none", "-nodefaults", "-vga", "none", "-machine", "q35,memory-backend=memory", "-cpu", "max",
        "-m", MEMORY, "-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on",
        "-device", "virtio-gpu-pci,blob=true", *map(str, more),
    ]  # fmt: skip


def under(*options: object) -> list[str]:
    return [sys.executable, "-m", "dmasync", "run", "--timeout=300", *map(str, options), "--"]


def test_it_starts_where_it_would_not_start_alone(qemu):
    words = command(qemu, "-S", "-monitor", "stdio")
    alone = subprocess.run(words, input="quit\n", capture_output=True, text=True, check=False, timeout=60)
    if not os.path.exists("/dev/udmabuf"):
        assert alone.returncode == 1
        assert "udmabuf" in alone.stderr
    done = subprocess.run([*under(), *words], input="quit\n", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if "io_uring_setup()" not in line]  # it does without
    hidden = [*under("--no-node=/dev/udmabuf"), *words]
    done = subprocess.run(hidden, input="quit\n", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "udmabuf" in done.stderr


def test_a_guest_boots_draws_and_powers_off(qemu, kernel, initrd, tmp_path):
    trace = tmp_path / "trace.jsonl"
    guest = ["-serial", "stdio", "-no-reboot", "-kernel", kernel.image, "-initrd", initrd, "-append", "console=ttyS0"]
    done = subprocess.run(
        [*under("--check", "--trace", trace), *command(qemu, *guest)], capture_output=True, text=True, check=False
    )
    assert "guest: made 0, mapped 0, byte 85" in done.stdout, done.stdout[-2000:] + done.stderr
    journal = Journal.load(trace)
    methods = [call.method for call in journal.calls]
    assert "mmap" in methods
    made = [call for call in journal.calls if call.method == "ioctl" and call.new_fd is not None]
    assert made
    # What the guest drew is in the buffer, and QEMU says START to nobody.
    assert done.returncode == 1
    assert "access-outside-window" in done.stderr
    assert "virtio_gpu_init_udmabuf" in done.stderr
