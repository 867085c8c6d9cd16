"""Which nodes exist and who may open them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem, set_uid

from dmasync import DEFAULT_PROVIDERS, uapi
from dmasync.fakes.kernel import FakeKernel, UnmodelledCallError
from tests.support.paged import fake_kernel

UDMABUF, SYSTEM = "/dev/udmabuf", "/dev/dma_heap/system"
O_PATH = 0o10000000


def code_of_open(kernel: FakeKernel, path: str, flags: int = os.O_RDWR) -> int:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is the answer
        kernel.open(path, flags)
    return caught.value.errno or 0


def test_every_node_of_the_design_exists_by_default_on_any_host() -> None:
    kernel = fake_kernel()
    for provider in DEFAULT_PROVIDERS:
        kernel.open(provider.path, os.O_RDWR)
    kinds = sorted(set(kernel.open_fds().values()))
    assert kinds == ["heap device", "udmabuf device"]


def test_listed_nodes_are_all_there_is() -> None:
    kernel = fake_kernel(providers=[UDMABUF])
    kernel.open(UDMABUF, os.O_RDWR)
    assert code_of_open(kernel, SYSTEM) == errno.ENOENT
    assert code_of_open(fake_kernel(providers=[]), UDMABUF) == errno.ENOENT


@pytest.mark.parametrize("as_provider", [str, Path, lambda path: SimpleNamespace(path=path, flag=None)])
def test_a_node_is_named_by_a_path_or_by_an_object_that_has_one(as_provider: Any) -> None:
    fake_kernel(providers=[as_provider(UDMABUF)]).open(UDMABUF, os.O_RDWR)


def test_an_out_of_tree_node_is_what_its_flag_says() -> None:
    rows = [
        SimpleNamespace(path="/dev/ours", flag=SimpleNamespace(name="UDMABUF")),
        SimpleNamespace(path="/dev/our_udmabuf_heap", flag=SimpleNamespace(name="CMA_HEAP")),
    ]
    kernel = fake_kernel(providers=rows)
    assert list(kernel.open_fds()) == []
    kernel.open("/dev/ours", os.O_RDWR)
    kernel.open("/dev/our_udmabuf_heap", os.O_RDWR)
    assert list(kernel.open_fds().values()) == ["udmabuf device", "heap device"]


def test_nodes_come_and_go() -> None:
    kernel = fake_kernel(providers=[])
    kernel.nodes.add(UDMABUF)
    kernel.open(UDMABUF, os.O_RDWR)
    kernel.nodes.remove(UDMABUF)
    assert code_of_open(kernel, UDMABUF) == errno.ENOENT
    with pytest.raises(KeyError):
        kernel.nodes.remove(UDMABUF)


def test_what_linux_would_open_but_the_fake_cannot_is_no_oserror() -> None:
    kernel = fake_kernel()
    for path, flags in (
        ("/", os.O_RDONLY | os.O_DIRECTORY),
        ("/dev/new", os.O_RDWR | os.O_CREAT),
        ("/dev/dma_heap", os.O_RDWR | os.O_TMPFILE),
    ):
        with pytest.raises(UnmodelledCallError, match=r"the fake (has|creates)|of the folders the fake"):
            kernel.open(path, flags)


def test_a_nul_in_a_path_is_a_value_error_as_everywhere_in_python() -> None:
    with pytest.raises(ValueError, match="null byte"):
        fake_kernel().open("/dev/udmabuf\0", os.O_RDWR)


def test_a_fake_file_system_decides_which_nodes_exist(fs: FakeFilesystem) -> None:
    kernel = fake_kernel()
    assert code_of_open(kernel, UDMABUF) == errno.ENOENT
    fs.create_file(UDMABUF)
    kernel.open(UDMABUF, os.O_RDWR)
    assert code_of_open(kernel, SYSTEM) == errno.ENOENT
    fs.remove_object(UDMABUF)
    assert code_of_open(kernel, UDMABUF) == errno.ENOENT


@pytest.mark.parametrize(
    ("mode", "flags", "code"),
    [
        (0o600, os.O_RDWR, None),
        (0o400, os.O_RDONLY, None),
        (0o400, os.O_RDWR, errno.EACCES),
        (0o400, os.O_WRONLY, errno.EACCES),
        (0o200, os.O_WRONLY, None),
        (0o200, os.O_RDONLY, errno.EACCES),
        (0o000, os.O_RDWR, errno.EACCES),
        (0o000, O_PATH, None),
        (0o000, os.O_RDWR | os.O_CREAT | os.O_EXCL, errno.EEXIST),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_a_fake_file_systems_permissions_hold(
    fs: FakeFilesystem, mode: int, flags: int, code: int | None, listed: bool
) -> None:
    set_uid(1000)
    fs.create_file(UDMABUF).st_mode = 0o020000 | mode
    kernel = fake_kernel(providers=[UDMABUF] if listed else None)
    if code is None:
        kernel.open(UDMABUF, flags)
    else:
        assert code_of_open(kernel, UDMABUF, flags) == code


def test_a_listed_node_needs_no_place_in_a_fake_file_system(fs: FakeFilesystem) -> None:
    fake_kernel(providers=[UDMABUF]).open(UDMABUF, os.O_RDWR)


def test_a_fake_file_system_has_directories_and_other_files(fs: FakeFilesystem) -> None:
    fs.create_file(SYSTEM)
    fs.create_file("/etc/passwd")
    kernel = fake_kernel()
    assert code_of_open(kernel, "/dev/dma_heap") == errno.EISDIR
    assert code_of_open(kernel, SYSTEM + "/x") == errno.ENOTDIR
    assert code_of_open(kernel, "/etc/passwd/x") == errno.ENOTDIR
    with pytest.raises(UnmodelledCallError, match="no driver"):
        kernel.open("/etc/passwd", os.O_RDONLY)


def test_a_new_heap_in_a_fake_file_system_is_a_heap(fs: FakeFilesystem) -> None:
    fs.create_file("/dev/dma_heap/vendor")
    kernel = fake_kernel()
    heap = kernel.open("/dev/dma_heap/vendor", os.O_RDWR)
    argument = uapi.dma_heap_allocation_data.pack(1, 0, os.O_RDWR, 0)
    kernel.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    assert kernel.fdinfo(uapi.dma_heap_allocation_data.get(argument, "fd"))["exp_name"] == "vendor"


def test_buffers_work_under_a_fake_file_system(fs: FakeFilesystem) -> None:
    fs.create_file(UDMABUF)
    kernel = fake_kernel()
    memfd = kernel.memfd_create("m", uapi.MFD_ALLOW_SEALING)
    kernel.ftruncate(memfd, kernel.page_size)
    kernel.add_seals(memfd, uapi.F_SEAL_SHRINK)
    device = kernel.open(UDMABUF, os.O_RDWR)
    buffer = kernel.ioctl(device, uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(memfd, 1, 0, kernel.page_size))
    with kernel.mmap(buffer, kernel.page_size, 3, 1) as mapping:
        mapping[0] = 1
    kernel.ioctl(buffer, uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(3))
    assert kernel.poll(buffer, 5, 0) == 5
    for fd in (memfd, device, buffer):
        kernel.close(fd)
    assert kernel.open_fds() == {}


def test_nothing_can_be_created_in_a_fake_file_system(fs: FakeFilesystem) -> None:
    fs.create_dir("/dev")
    kernel = fake_kernel()
    assert code_of_open(kernel, "/dev/new/", os.O_RDWR | os.O_CREAT) == errno.EISDIR
    assert code_of_open(kernel, "/nowhere/new", os.O_RDWR | os.O_CREAT) == errno.ENOENT
    with pytest.raises(UnmodelledCallError, match="device nodes only"):
        kernel.open("/dev/new", os.O_RDWR | os.O_CREAT)


@pytest.mark.parametrize("request_", [0x80086601, 0x801C581F, 0x40086602, 0x401C5820])
def test_a_folders_attributes_are_not_in_the_fake(request_: int) -> None:
    kernel = fake_kernel()
    folder = kernel.open("/dev/dma_heap", os.O_RDONLY)
    with pytest.raises(UnmodelledCallError):
        kernel.ioctl(folder, request_, bytearray(64))


def test_a_folder_that_a_fake_file_system_closes_to_readers_is_eacces(fs: FakeFilesystem) -> None:
    fs.create_dir("/dev/dma_heap").st_mode = stat.S_IFDIR | 0o300
    set_uid(1000)
    assert code_of_open(fake_kernel(), "/dev/dma_heap", os.O_RDONLY) == errno.EACCES


def test_dev_null_is_a_node_that_no_list_need_name() -> None:
    kernel = fake_kernel(providers=["/dev/udmabuf"])
    fd = kernel.open("/dev/null", os.O_RDWR)
    assert kernel.open_fds()[fd] == "null device"
    assert kernel.listdir("/dev") == ["udmabuf"]
