"""The machine whose devices do not look into caches: what START and END move, and what they need not."""

from __future__ import annotations

import contextlib
import os

import pytest

from dmasync import DmaBuf, DmaBufAllocator, DmaBufAllocatorFlag, DmaSyncer, SyncType, uapi
from dmasync.fakes import FakeBackend, FakeDevice, Sanitizer

READ, WRITE, RW = SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE
SIZE = 16384
OLD, NEW, MINE = b"\x11" * SIZE, b"\x22" * SIZE, b"\x33" * SIZE


class Machine:
    """A buffer, a mapping of it and a device; the adversary keeps still unless there is a seed."""

    def __init__(self, seed: int | None = None, *, coherent: bool = False, watch: bool = True) -> None:
        self.exits = contextlib.ExitStack()
        self.backend = FakeBackend(coherent=coherent, seed=seed, watch=watch)
        flags = DmaBufAllocatorFlag.SYSTEM_HEAP
        allocator = self.exits.enter_context(DmaBufAllocator(flags, backend=self.backend))
        self.device = self.exits.enter_context(FakeDevice(self.backend))
        self.frame: DmaBuf = self.exits.enter_context(allocator.alloc("frame", SIZE))
        mapping = self.frame.map()
        self.exits.callback(mapping.close)
        self.view = memoryview(mapping)
        self.exits.callback(self.view.release)

    def findings(self) -> set[str]:
        self.exits.close()
        return {finding.kind for finding in Sanitizer(self.backend).findings()}


@pytest.fixture
def machine():
    machine = Machine()
    yield machine
    machine.exits.close()


def test_the_cpu_sees_what_the_device_wrote_from_start_for_read_on(machine):
    machine.device.write(machine.frame, OLD)
    assert bytes(machine.view) == bytes(SIZE)
    with DmaSyncer(machine.frame, READ):
        assert bytes(machine.view) == OLD
    machine.device.write(machine.frame, NEW)
    assert bytes(machine.view) == OLD


def test_the_device_sees_what_the_cpu_wrote_from_end_for_write_on(machine):
    with DmaSyncer(machine.frame, WRITE):
        machine.view[:] = MINE
        assert machine.device.read(machine.frame) == bytes(SIZE)
    assert machine.device.read(machine.frame) == MINE


def test_a_read_window_writes_nothing_back_and_the_next_one_throws_it_away(machine):
    with DmaSyncer(machine.frame, READ):
        machine.view[:] = MINE
    assert machine.device.read(machine.frame) == bytes(SIZE)
    with DmaSyncer(machine.frame, READ):
        assert bytes(machine.view) == bytes(SIZE)


def test_a_write_window_need_not_fetch(machine):
    machine.device.write(machine.frame, NEW)
    with DmaSyncer(machine.frame, WRITE):
        seen = bytes(machine.view)
    assert seen != NEW
    assert set(seen) == {0x00, 0x22}


def test_a_write_window_keeps_the_devices_bytes_in_lines_that_it_does_not_touch(machine):
    machine.device.write(machine.frame, NEW)
    with DmaSyncer(machine.frame, WRITE):
        machine.view[128:192] = MINE[:64]
    assert machine.device.read(machine.frame) == NEW[:128] + MINE[:64] + NEW[192:]


@pytest.mark.parametrize("length", [2, 3, 64, 100, 4096, SIZE])
@pytest.mark.parametrize("offset", [0, 1, 63, 4095])
def test_writing_the_very_bytes_that_are_stale_reaches_the_device(machine, length, offset):
    length = min(length, SIZE - offset)
    for _ in range(3):
        with DmaSyncer(machine.frame, WRITE):
            machine.view[offset : offset + length] = MINE[:length]
        assert machine.device.read(machine.frame, length, offset) == MINE[:length]
        machine.device.write(machine.frame, NEW)


def test_a_single_byte_written_anew_reaches_the_device(machine):
    for _ in range(3):
        with DmaSyncer(machine.frame, WRITE):
            machine.view[0] = 7
        assert machine.device.read(machine.frame, 1) == b"\x07"
        machine.device.write(machine.frame, NEW)


def test_sparse_writes_of_the_device_are_overwritten_by_equal_bytes_of_the_cpu(machine):
    machine.device.write(machine.frame, b"\x01", 5)
    with DmaSyncer(machine.frame, WRITE):
        machine.view[:] = bytes(SIZE)
    assert machine.device.read(machine.frame) == bytes(SIZE)


def test_a_read_write_window_keeps_and_updates(machine):
    machine.device.write(machine.frame, NEW)
    with DmaSyncer(machine.frame, RW):
        machine.view[0] += 1
    assert machine.device.read(machine.frame) == b"\x23" + NEW[1:]


def test_windows_over_one_buffer_in_turn_lose_nothing(machine):
    for number in range(20):
        machine.device.write(machine.frame, bytes([number]) * SIZE)
        with DmaSyncer(machine.frame, RW):
            assert bytes(machine.view) == bytes([number]) * SIZE
            machine.view[number] = 200
        assert machine.device.read(machine.frame, 1, number) == bytes([200])
    assert machine.findings() == set()


def test_two_readers_at_once_are_fine(machine):
    machine.device.write(machine.frame, NEW)
    with DmaSyncer(machine.frame, READ), DmaSyncer(machine.frame, READ):
        assert bytes(machine.view) == NEW
    assert machine.findings() == set()


def test_two_writers_of_different_lines_at_once_are_fine(machine):
    first, second = DmaSyncer(machine.frame, WRITE), DmaSyncer(machine.frame, WRITE)
    with first:
        machine.view[: SIZE // 2] = MINE[: SIZE // 2]
        with second:
            machine.view[SIZE // 2 :] = MINE[SIZE // 2 :]
    assert machine.device.read(machine.frame) == MINE
    assert machine.findings() == set()


def test_a_start_for_read_in_a_window_that_has_written_throws_the_bytes_away(machine):
    with DmaSyncer(machine.frame, WRITE):
        machine.view[:] = MINE
        with DmaSyncer(machine.frame, READ):
            assert bytes(machine.view) == bytes(SIZE)
    assert machine.findings() == {"racing-windows"}


def seeds_where(happens) -> int:
    count = 0
    for seed in range(1, 80):
        machine = Machine(seed, watch=False)
        count += bool(happens(machine))
        machine.exits.close()
    return count


def test_some_seed_writes_a_dirty_line_back_early():
    def happens(machine):
        with DmaSyncer(machine.frame, WRITE):
            machine.view[:] = MINE
            return 0x33 in machine.device.read(machine.frame)

    assert 0 < seeds_where(happens) < 79


def test_some_seed_fetches_a_clean_line_without_a_start():
    def happens(machine):
        machine.device.write(machine.frame, NEW)
        return 0x22 in bytes(machine.view)

    assert 0 < seeds_where(happens) < 79


def test_some_seed_writes_a_dirty_line_over_what_the_device_wrote():
    def happens(machine):
        machine.view[:] = MINE  # no window at all
        machine.device.write(machine.frame, NEW)
        return 0x33 in machine.device.read(machine.frame)

    assert 0 < seeds_where(happens) < 79


def test_lines_move_whole():
    for seed in range(1, 40):
        machine = Machine(seed, watch=False)
        machine.device.write(machine.frame, NEW)
        seen = bytes(machine.view)
        assert all(len(set(seen[line : line + 64])) == 1 for line in range(0, SIZE, 64))
        machine.exits.close()


def test_the_same_seed_moves_the_same_lines():
    def bytes_of(seed):
        machine = Machine(seed, watch=False)
        seen = []
        for byte in range(1, 9):
            machine.view[:] = bytes([byte]) * SIZE
            machine.device.write(machine.frame, bytes([byte + 100]) * 5000)
            seen += [bytes(machine.view), machine.device.read(machine.frame)]
        machine.exits.close()
        return seen

    assert bytes_of(3) == bytes_of(3)
    assert bytes_of(3) != bytes_of(4)


def test_what_a_memfd_held_is_there_for_the_device():
    backend = FakeBackend(coherent=False)
    memfd = backend.memfd_create("x", uapi.MFD_ALLOW_SEALING)
    backend.ftruncate(memfd, 3 * 4096)
    mapping = backend.mmap(memfd, 3 * 4096, 3, 1)
    memoryview(mapping)[4096:8192] = MINE[:4096]
    backend.add_seals(memfd, uapi.F_SEAL_SHRINK)
    node = backend.open("/dev/udmabuf", os.O_RDWR)
    fd = backend.ioctl(node, uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(memfd, 1, 4096, 8192))
    assert FakeDevice(backend).read(fd) == MINE[:4096] + bytes(4096)


@pytest.mark.parametrize("written", [b"\1\1", b"\0\1", b"\1\0"], ids=["both pages", "second page", "first page"])
def test_what_a_memfd_held_is_there_where_the_buffer_is_a_part_of_it(written):
    backend = FakeBackend(coherent=False)
    memfd = backend.memfd_create("x", uapi.MFD_ALLOW_SEALING)
    backend.ftruncate(memfd, 8192)
    mapping = memoryview(backend.mmap(memfd, 8192, 3, 1))
    for page, byte in enumerate(written):
        if byte:
            mapping[page * 4096 : (page + 1) * 4096] = MINE[:4096]
    backend.add_seals(memfd, uapi.F_SEAL_SHRINK)
    node = backend.open("/dev/udmabuf", os.O_RDWR)
    fd = backend.ioctl(node, uapi.UDMABUF_CREATE, uapi.udmabuf_create.pack(memfd, 1, 0, 4096))
    assert FakeDevice(backend).read(fd) == (MINE[:4096] if written[0] else bytes(4096))


def test_what_the_cpu_wrote_in_a_read_window_is_told_by_the_byte_beside_what_the_device_wrote(machine):
    with DmaSyncer(machine.frame, READ):
        machine.device.write(machine.frame, NEW[:64], 0)  # the CPU's cache still has the bytes of before
        machine.view[10] = 1
        machine.view[100] = 1
    (event,) = [event for event in machine.backend.journal.events if event.kind == "cpu-wrote-in-read"]
    assert event.ranges == ((10, 1), (100, 1))


def test_bytes_written_before_a_write_window_are_not_fetched_over(machine):
    machine.device.write(machine.frame, NEW[:256], 0)
    machine.view[70] = 9
    with DmaSyncer(machine.frame, WRITE):
        assert machine.view[70] == 9
    assert machine.device.read(machine.frame, 1, 70) == b"\t"
    assert machine.device.read(machine.frame, 64, 0) == NEW[:64]


def test_device_view_is_the_devices_side():
    machine = Machine()
    machine.device.write(machine.frame, NEW)
    memory = machine.backend.kernel.buffer_of(machine.frame.fileno()).memory
    assert bytes(memory.device_view()) == NEW
    assert bytes(memory.cpu_view()) == bytes(SIZE)
    machine.exits.close()


def test_a_private_mapping_is_never_the_buffers_own_bytes():
    machine = Machine()
    mapping = machine.backend.mmap(machine.frame.fileno(), 4096, 3, 2)
    view = memoryview(mapping)
    view[0] = 9
    assert machine.device.read(machine.frame, 1) == b"\0"
    assert view[0] == 9
    view.release()
    mapping.close()
    assert machine.findings() == set()


def test_64_mib_buffers_work():
    backend = FakeBackend(coherent=False)
    size = 64 << 20
    with (
        DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=backend) as allocator,
        FakeDevice(backend) as device,
        allocator.alloc("large", size) as frame,
    ):
        device.write(frame, b"\x22" * size)
        with frame.cpu_access(RW) as view:
            assert view[-1] == 0x22
            view[-1] = 1
        assert device.read(frame, 2, size - 2) == b"\x22\x01"
        device.write(frame, b"\x44" * size)
        with frame.cpu_access(WRITE) as view:
            assert view[1] != 0x44
            view[:] = b"\x55" * size
        assert device.read(frame) == b"\x55" * size


def test_numpy_sees_the_stale_bytes_too(machine):
    numpy = pytest.importorskip("numpy")
    array = numpy.frombuffer(machine.view, numpy.uint8)
    machine.device.write(machine.frame, NEW)
    assert not array.any()
    with DmaSyncer(machine.frame, READ):
        assert (array == 0x22).all()
    del array


def test_a_coherent_machine_shows_everybody_everything():
    machine = Machine(coherent=True)
    machine.device.write(machine.frame, NEW)
    assert bytes(machine.view) == NEW
    machine.view[:] = MINE
    assert machine.device.read(machine.frame) == MINE
    assert machine.findings() == {"access-outside-window"}
