"""What errors tell a person to do: by errno, by who asks, by what is there."""

from __future__ import annotations

import errno
import os
import re
import resource
from pathlib import Path

import pytest

from dmasync import AllocationError, DmaBufAllocator, DmaBufAllocatorFlag, NoProviderError, Provider, SyncType
from dmasync.fakes import FakeBackend, faults

CMA, SYSTEM, UDMABUF = DmaBufAllocatorFlag.CMA_HEAP, DmaBufAllocatorFlag.SYSTEM_HEAP, DmaBufAllocatorFlag.UDMABUF


@pytest.fixture(autouse=True)
def _an_ordinary_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def refusal(flags=UDMABUF, backend=None, *, code=None, **options):
    backend = backend or FakeBackend(**options)
    if code is not None:
        backend.inject(faults.storm(code, None, on="open"))
    with pytest.raises(NoProviderError) as caught:
        DmaBufAllocator(flags, backend=backend)
    return str(caught.value)


# Nodes that may not be opened


def test_eperm_is_a_device_policy_whoever_asks():
    text = refusal(code=errno.EPERM)
    assert "refused to whoever asks: a device policy" in text
    assert "group that owns" not in text
    assert "udev" not in text


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666 & ~0o006])
def test_a_node_that_belongs_to_roots_group_is_no_matter_of_joining_a_group(fs, mode):
    _node_of(fs, 0, mode)
    text = refusal(code=errno.EACCES)
    bits = {0o600: "crw-------", 0o640: "crw-r-----", 0o660: "crw-rw----"}[mode]
    assert f"/dev/udmabuf is {bits} root root: no group may use it, let a udev rule give it one" in text
    assert "join" not in text


def test_a_node_of_another_group_is_a_matter_of_joining_it(fs):
    _node_of(fs, 54321, 0o660)
    text = refusal(code=errno.EACCES)
    assert "/dev/udmabuf is crw-rw---- root 54321: join that group and log in again, or let a udev rule" in text


def test_who_is_in_the_nodes_group_already_is_told_of_policies(fs, monkeypatch):
    _node_of(fs, 54321, 0o660)
    monkeypatch.setattr(os, "getgroups", lambda: [54321])
    text = refusal(code=errno.EACCES)
    assert "and you are in that group: a device policy" in text


def test_a_refusal_whose_node_nobody_can_look_at_names_both_ways():
    assert "join the group that owns the node, or let a udev rule give it one" in refusal(code=errno.EACCES)


@pytest.mark.parametrize("code", [errno.ENXIO, errno.ENODEV])
def test_a_node_without_a_driver_is_said_to_be_left_over(code):
    assert "no driver answers behind /dev/udmabuf: the node is left over" in refusal(code=code)


def test_a_busy_node_says_who_may_have_it():
    assert "fuser /dev/udmabuf says who" in refusal(code=errno.EBUSY)


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.ENOTDIR, errno.EBUSY, errno.EMFILE, errno.ENOMEM])
def test_nobody_is_sent_to_a_kernel_log_that_has_nothing_to_say(code):
    assert "log" not in refusal(code=code).replace("log in", "")


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO])
def test_every_refusal_names_the_two_ways_on(code):
    text = refusal(code=code)
    assert "dmasync probe says what this machine has" in text
    assert "dmasync vm -- COMMAND" in text


# What is used up


@pytest.mark.parametrize("flags", [CMA, UDMABUF])
def test_too_many_descriptors_tell_the_limit_and_how_many_there_are(flags):
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = refusal(flags, code=errno.EMFILE)
    found = re.search(r"ulimit -n allows this process (\d+) descriptors and it has (\d+)", text)
    assert found is not None
    assert int(found[1]) == soft
    assert abs(int(found[2]) - len(os.listdir("/proc/self/fd"))) <= 2
    assert f"it leaks them: ls -l /proc/{os.getpid()}/fd" in text


def test_every_call_that_makes_a_descriptor_says_so(buffer, backend):
    for on, call in (
        ("dup", buffer.dup),
        ("DMA_BUF_IOCTL_EXPORT_SYNC_FILE", lambda: buffer.export_sync_file(SyncType.READ)),
    ):
        backend.inject(faults.error(errno.EMFILE, on=on))
        with pytest.raises(OSError, match="Too many open files: ulimit -n allows this process") as caught:
            call()
        assert caught.value.errno == errno.EMFILE
        backend.inject(faults.error(errno.EIO, on=on))
        with pytest.raises(OSError, match=r"Input/output error$"):
            call()
    with DmaBufAllocator(UDMABUF, backend=backend) as allocator:
        for on in ("memfd_create", "UDMABUF_CREATE"):
            backend.inject(faults.error(errno.EMFILE, on=on))
            with pytest.raises(AllocationError, match="ulimit -n allows this process"):
                allocator.alloc("frame", 4096)


def test_the_fakes_own_limit_of_descriptors_says_that_it_is_the_fakes():
    text = refusal(UDMABUF, FakeBackend(descriptor_limit=0))
    assert "the fake kernel's descriptor_limit, its ulimit -n, is 0, and 0 are open" in text
    assert "this process" not in text


def test_too_many_files_of_the_system_are_nobodys_in_particular():
    most = Path("/proc/sys/fs/file-nr").read_text(encoding="ascii").split()[2]
    text = refusal(code=errno.ENFILE)
    assert re.search(rf"as many files open as it may, .*: \d+ of {most} \(/proc/sys/fs/file-nr", text)


@pytest.mark.parametrize("flags", [CMA, SYSTEM, UDMABUF])
def test_no_memory_tells_how_much_was_asked_for_and_how_much_there_is(backend, flags):
    backend.inject(
        faults.storm(errno.ENOMEM, None, on="UDMABUF_CREATE" if flags is UDMABUF else "DMA_HEAP_IOCTL_ALLOC")
    )
    with DmaBufAllocator(flags, backend=backend) as allocator:
        with pytest.raises(
            AllocationError, match=r"8192 bytes for 'frame' failed: Cannot allocate memory: .* kB of"
        ) as e:
            allocator.alloc("frame", 8000 if flags is UDMABUF else 8192)
        assert e.value.errno == errno.ENOMEM


@pytest.mark.parametrize("flags", [CMA, SYSTEM, UDMABUF])
def test_the_fakes_own_memory_says_that_it_is_the_fakes(flags):
    backend = FakeBackend(memory_mb=1)
    with DmaBufAllocator(flags, backend=backend) as allocator, allocator.alloc("first", 512 << 10):
        with pytest.raises(AllocationError, match="524288 are free of the fake kernel's memory_mb=1") as caught:
            allocator.alloc("frame", 1 << 20)
        assert caught.value.errno == errno.ENOMEM
        assert "failed: Cannot allocate memory: 1048576 bytes were asked for, " in str(caught.value)


# Heaps under other names


def test_heaps_under_other_names_are_listed_with_the_way_to_take_one():
    names = ["cma-uncached", "cma", "vidbuf_cached"]
    backend = FakeBackend(providers=[f"/dev/dma_heap/{name}" for name in names])
    text = refusal(CMA | UDMABUF, backend)
    assert "/dev/dma_heap holds cma, cma-uncached, vidbuf_cached" in text
    assert text.index("holds cma") < text.index("needs a kernel")  # what is here first, then what would be needed
    way = re.search(r"providers=\[(Provider\(.*?\))\] takes cma\b", text)
    assert way is not None
    row = eval(way[1], {"Provider": Provider, "DmaBufAllocatorFlag": DmaBufAllocatorFlag})  # noqa: S307 - what a user copies
    with DmaBufAllocator(CMA, providers=[row], backend=backend) as allocator, allocator.alloc("frame", 1) as buffer:
        assert buffer.provider == row


def test_a_heap_that_another_flag_asks_for_is_named_with_that_flag():
    text = refusal(CMA, FakeBackend(providers=["/dev/dma_heap/system"]))
    assert "/dev/dma_heap holds system: flags=DmaBufAllocatorFlag.SYSTEM_HEAP takes system" in text


def test_the_device_tree_of_a_test_is_looked_at_too(fs):
    fs.create_file("/dev/dma_heap/cma", st_mode=0o020666)
    assert '"/dev/dma_heap/cma")] takes cma' in refusal(CMA | SYSTEM)


@pytest.mark.parametrize(("flags", "nodes"), [(UDMABUF, ["/dev/dma_heap/cma"]), (CMA, []), (CMA, ["/dev/udmabuf"])])
def test_no_heap_is_offered_where_none_was_asked_for_or_none_is_there(flags, nodes):
    assert " holds " not in refusal(flags, FakeBackend(providers=nodes))


def test_a_backend_with_nothing_but_the_protocol_is_advised_all_the_same(backend):
    class Bare:
        ioctl = close = print

        def open(self, path, flags):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    text = refusal(CMA, Bare())
    assert "join the group" in text
    assert " holds " not in text


def test_the_real_kernel_lists_its_own_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("dmasync.advice._HEAPS", str(tmp_path))
    (tmp_path / "vidbuf_cached").touch()
    with pytest.raises(NoProviderError, match=r"holds vidbuf_cached: providers=\[Provider"):
        DmaBufAllocator(CMA, providers=[Provider(CMA, str(tmp_path / "no-such"))])


def _node_of(fs, group, mode):
    fs.create_file("/dev/udmabuf", st_mode=0o020000 | mode, apply_umask=False)
    os.chown("/dev/udmabuf", 0, group)


# Where the numbers cannot be had, or say more


def test_a_process_without_a_descriptor_to_count_them_has_as_many_as_it_may(monkeypatch):
    def refused(path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "listdir", refused)
    assert "descriptors and it has that many" in refusal(code=errno.EMFILE)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            CMA,
            "65536 kB of CMA are free, in pieces that may be smaller, the cgroup may have 4096 bytes and has 1",
        ),
        (SYSTEM, "7 kB of memory are available, the cgroup may have 4096 bytes and has 1"),
    ],
)
def test_memory_is_that_of_the_heap_that_was_asked_and_of_the_cgroup(backend, monkeypatch, flags, told):
    files = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:       7 kB\nCmaTotal:    65536 kB\nCmaFree:  512 kB\n",
        "/proc/self/cgroup": "0::/a/b\n",
        "/sys/fs/cgroup//a/b/memory.max": "4096\n",
        "/sys/fs/cgroup//a/b/memory.current": "1\n",
    }
    monkeypatch.setattr("dmasync.advice._read", lambda path: files.get(path.replace("cgroup/a", "cgroup//a"), ""))
    backend.inject(faults.storm(errno.ENOMEM, None, on="DMA_HEAP_IOCTL_ALLOC"))
    with DmaBufAllocator(flags, backend=backend) as allocator, pytest.raises(AllocationError) as caught:
        allocator.alloc("frame", 4096)
    assert str(caught.value).endswith(told)


def test_a_system_without_proc_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setattr("dmasync.advice._read", lambda path: "")
    assert "?" in refusal(code=errno.ENFILE)
    assert "Cannot allocate memory" in refusal(code=errno.ENOMEM)
