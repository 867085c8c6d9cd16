"""Numbers, sizes and offsets are those of the system's kernel headers, as a C compiler sees them."""

from __future__ import annotations

import json
import platform
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dmasync import uapi

HEADERS = (
    "linux/version.h",
    "linux/types.h",
    "linux/dma-buf.h",
    "linux/dma-heap.h",
    "linux/udmabuf.h",
    "linux/sync_file.h",
    "linux/memfd.h",
    "linux/fcntl.h",
)

# What came after the oldest headers that this test is for, and with which release: absent from older headers, and
# only from those.
SINCE = {
    "dma_buf_export_sync_file": (6, 0),
    "dma_buf_import_sync_file": (6, 0),
    "DMA_BUF_IOCTL_EXPORT_SYNC_FILE": (6, 0),
    "DMA_BUF_IOCTL_IMPORT_SYNC_FILE": (6, 0),
    "F_SEAL_EXEC": (6, 3),
    "MFD_NOEXEC_SEAL": (6, 3),
    "MFD_EXEC": (6, 3),
    "sync_set_deadline": (6, 4),
    "SYNC_IOC_SET_DEADLINE": (6, 4),
}

NOT_IN_HEADERS = {
    "MFD_NAME_MAX_LEN",  # private to mm/memfd.c; the conformance suite asks the kernel itself
    "GENERIC_ENCODING",  # asm/ioctl.h has its parts, compared below
}

CONSTANTS = {
    name: value
    for name, value in vars(uapi).items()
    if name.isupper() and not name.startswith("_") and name != "LAYOUTS" and name not in NOT_IN_HEADERS
}


def _print_number(name: str) -> str:
    return f'printf(",\\n\\"{name}\\": %llu", (unsigned long long)({name}));'


def _print_layout(layout: uapi.Layout) -> str:
    structure = f"struct {layout.name}"
    fields = ", ".join(f'\\"{field}\\": %zu' for field in layout.fields)
    offsets = "".join(f", offsetof({structure}, {field})" for field in layout.fields)
    return (
        f'printf(",\\n\\"{layout.name}\\": {{\\"size\\": %zu, \\"offsets\\": {{{fields}}}}}", '
        f"sizeof({structure}){offsets});"
    )


def _program() -> str:
    lines = ["#include <stddef.h>", "#include <stdio.h>", *(f"#include <{header}>" for header in HEADERS)]
    lines += ["int main(void) {", 'printf("{\\"version\\": %d", LINUX_VERSION_CODE);']
    lines += ['printf(",\\n\\"_IOC_SIZEBITS\\": %d", _IOC_SIZEBITS);']
    lines += [_print_number(name) for name in ("_IOC_NONE", "_IOC_WRITE", "_IOC_READ")]
    for name in CONSTANTS:
        lines += [f"#ifdef {name}", _print_number(name), "#endif"]
    for layout in uapi.LAYOUTS:
        major, minor = SINCE.get(layout.name, (0, 0))
        lines += [f"#if LINUX_VERSION_CODE >= KERNEL_VERSION({major}, {minor}, 0)", _print_layout(layout), "#endif"]
    return "\n".join([*lines, 'puts("}"); return 0; }', ""])


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a C program compiled against the system's kernel headers prints."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/udmabuf.h").exists():
        pytest.skip("needs a C compiler and the kernel's headers: apt-get install gcc libc6-dev linux-libc-dev")
    folder = tmp_path_factory.mktemp("uapi")
    source, program = folder / "uapi.c", folder / "uapi"
    source.write_text(_program())
    subprocess.run([compiler, "-Wall", "-Werror", "-o", program, source], check=True)
    result: dict[str, Any] = json.loads(subprocess.run([program], check=True, capture_output=True).stdout)
    return result


def test_every_number_is_the_headers(headers):
    differing = {
        name: (value, headers[name])
        for name, value in CONSTANTS.items()
        if name in headers and (ord(value) if isinstance(value, str) else value) != headers[name]
    }
    assert differing == {}


def test_every_structure_has_the_headers_size_and_offsets(headers):
    differing = {
        layout.name: ({"size": layout.size, "offsets": layout.offsets}, headers[layout.name])
        for layout in uapi.LAYOUTS
        if layout.name in headers and {"size": layout.size, "offsets": layout.offsets} != headers[layout.name]
    }
    assert differing == {}


def test_what_the_headers_lack_is_exactly_what_is_younger_than_they_are(headers):
    version = (headers["version"] >> 16, headers["version"] >> 8 & 0xFF)
    lacking = {name for name in [*CONSTANTS, *(layout.name for layout in uapi.LAYOUTS)] if name not in headers}
    assert lacking == {name for name, since in SINCE.items() if since > version}


def test_this_machines_encoding_is_that_of_asm_ioctl(headers):
    assert uapi.ioctl_encoding(platform.machine()) == (
        headers["_IOC_SIZEBITS"],
        headers["_IOC_NONE"],
        headers["_IOC_WRITE"],
        headers["_IOC_READ"],
    )


def test_the_layouts_named_here_are_all_that_there_are():
    assert {value for value in vars(uapi).values() if isinstance(value, uapi.Layout)} == set(uapi.LAYOUTS)


@pytest.mark.parametrize(
    ("machine", "sync", "allocate"),
    [
        # _IOW('b', 0, 8) and _IOWR('H', 0, 24), by hand from each architecture's asm/ioctl.h.
        ("x86_64", 0x40086200, 0xC0184800),
        ("i686", 0x40086200, 0xC0184800),
        ("aarch64", 0x40086200, 0xC0184800),
        ("armv7l", 0x40086200, 0xC0184800),
        ("riscv64", 0x40086200, 0xC0184800),
        ("loongarch64", 0x40086200, 0xC0184800),
        ("s390x", 0x40086200, 0xC0184800),
        ("m68k", 0x40086200, 0xC0184800),
        ("mips64", 0x80086200, 0xC0184800),
        ("ppc64le", 0x80086200, 0xC0184800),
        ("sparc64", 0x80086200, 0xC0184800),
        ("alpha", 0x80086200, 0xC0184800),
        ("parisc64", 0x80086200, 0xC0184800),
    ],
)
def test_requests_are_encoded_as_each_architecture_does(machine, sync, allocate):
    encoding = uapi.ioctl_encoding(machine)
    assert encoding.request(encoding.write, "b", 0, 8) == sync
    assert encoding.request(encoding.read | encoding.write, "H", 0, 24) == allocate


def test_a_read_only_request_tells_the_families_apart():
    reads = {
        m: uapi.ioctl_encoding(m).request(uapi.ioctl_encoding(m).read, "b", 0, 8) for m in ("x86_64", "ppc", "parisc")
    }
    assert reads == {"x86_64": 0x80086200, "ppc": 0x40086200, "parisc": 0x40086200}


def test_old_encodings_have_a_direction_for_requests_without_argument():
    assert uapi.ioctl_encoding("mips").request(uapi.ioctl_encoding("mips").none, "b", 0, 0) == 0x20006200
    assert uapi.GENERIC_ENCODING.request(uapi.GENERIC_ENCODING.none, "b", 0, 0) == 0x6200
    assert uapi.ioctl_encoding("parisc64").request(uapi.ioctl_encoding("parisc64").none, "b", 0, 0) == 0x6200


def test_a_structure_packs_into_a_writable_argument_and_back():
    argument = uapi.udmabuf_create.pack(7, uapi.UDMABUF_FLAGS_CLOEXEC, 4096, 8192)
    assert type(argument) is bytearray
    assert argument == struct.pack("=IIQQ", 7, 1, 4096, 8192)
    assert uapi.udmabuf_create.unpack(argument) == (7, 1, 4096, 8192)
    assert uapi.udmabuf_create.unpack(b"abc" + argument + b"behind", 3) == (7, 1, 4096, 8192)


def test_a_field_is_read_by_its_name():
    argument = uapi.dma_heap_allocation_data.pack(4096, 12, 0o2000002, 0)
    assert uapi.dma_heap_allocation_data.get(argument, "fd") == 12
    assert uapi.dma_heap_allocation_data.get(argument, "fd_flags") == 0o2000002


def test_set_name_is_the_one_of_this_word_size():
    by_size = {4: uapi.DMA_BUF_SET_NAME_A, 8: uapi.DMA_BUF_SET_NAME_B}
    assert by_size[struct.calcsize("P")] == uapi.DMA_BUF_SET_NAME
