"""Mesa's software Vulkan: memory for others is a udmabuf of a memfd of its own, made where /dev/udmabuf is there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmasync.fakes import Journal
from dmasync.uapi import DMA_BUF_IOCTL_EXPORT_SYNC_FILE, UDMABUF_CREATE
from tests.judges import next_debian

pytestmark = [pytest.mark.judges, pytest.mark.timeout(900)]
PROGRAM = Path(__file__).with_name("vulkan_buffer.c")
SOFTWARE = {"VK_DRIVER_FILES": "/usr/share/vulkan/icd.d/lvp_icd.json"}
SAID = [
    "exported", "size whole", "the device filled it: 5a5a5a5a 5a5a5a5a", "the device copied it: 1 3ffff", "done",
]  # fmt: skip


@pytest.fixture(scope="module")
def root() -> Path:
    return next_debian.unpacked(["mesa-vulkan-drivers", "vulkan-tools", "libvulkan-dev"])


@pytest.fixture(scope="module")
def program(root) -> Iterator[str]:
    with next_debian.folder_of(root) as folder:
        yield next_debian.inside(
            root, next_debian.compiled(root, PROGRAM, folder, f"-I{root}/usr/include", "-l:libvulkan.so.1")
        )


def run(root: Path, program: str, *options: object) -> subprocess.CompletedProcess[str]:
    return next_debian.run(root, program, options=options, environment=SOFTWARE)


def test_buffers_of_the_device_leave_and_come_as_dma_bufs(root, program, tmp_path):
    trace = tmp_path / "trace.jsonl"
    done = run(root, program, "--trace", trace)
    assert (done.stdout.splitlines(), done.returncode) == (SAID, 0), done.stderr
    assert done.stderr == ""
    journal = Journal.load(trace)
    journal.assert_balanced()
    assert len(journal.attempts) == 6
    assert len({attempt.buffer for attempt in journal.attempts}) == 2


def test_what_the_device_writes_is_told_as_an_access_without_a_window(root, program):
    # Its device is the CPU, and nobody makes START for it.
    done = run(root, program, "--check")
    assert done.stdout.splitlines() == SAID, done.stderr
    kinds = [line.partition(" ")[0] for line in done.stderr.splitlines() if "[buffer " in line]
    assert kinds == ["access-outside-window"] * 2  # what was filled, and the copy
    assert "vulkan_buffer.c:" in done.stderr
    assert done.returncode == 1


def test_without_a_udmabuf_node_there_is_no_memory_for_others(root, program):
    done = run(root, program, "--no-node=/dev/udmabuf")
    assert (done.stdout.splitlines(), done.returncode) == (["failed: vkAllocateMemory"], 1), done.stderr


def test_vulkaninfo_tries_a_buffer_and_its_fences_and_offers_dma_bufs(root, tmp_path):
    trace = tmp_path / "trace.jsonl"
    done = run(root, "/usr/bin/vulkaninfo", "--trace", trace)
    assert done.returncode == 0, done.stderr
    assert "VK_EXT_external_memory_dma_buf" in done.stdout
    assert "dmasync run" not in done.stderr
    asked = [call.arguments[1] for call in Journal.load(trace).calls if call.method == "ioctl" and call.errno == 0]
    assert asked == [UDMABUF_CREATE, DMA_BUF_IOCTL_EXPORT_SYNC_FILE]
