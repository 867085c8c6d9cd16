"""/dev/udmabuf: drivers/dma-buf/udmabuf.c."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from dmasync import uapi
from tests.conformance.kernels import PAGE, START_READ, SYSTEM_HEAP, UDMABUF, System, refused

MIB = 1 << 20
CLOSED = 99_999
SHRINK, GROW, WRITE = uapi.F_SEAL_SHRINK, uapi.F_SEAL_GROW, uapi.F_SEAL_WRITE
FUTURE, SEAL, EXEC = uapi.F_SEAL_FUTURE_WRITE, uapi.F_SEAL_SEAL, uapi.F_SEAL_EXEC
BOTH = pytest.mark.parametrize("listed", [False, True], ids=["create", "list"])


def create(system: System, device: int, memfd: int, offset: int, size: int, *, listed: bool) -> int:
    if listed:
        return system.create_list(device, [(memfd, offset, size)])
    return system.create(device, memfd, offset, size)


@BOTH
@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 4), (1, 1), (3, 1), (1, 3)])
def test_any_whole_pages_within_the_memfd_make_a_buffer(system: System, listed: bool, offset: int, size: int) -> None:
    buffer = create(system, system.open(UDMABUF), system.memfd(4), offset * PAGE, size * PAGE, listed=listed)
    assert system.size(buffer) == size * PAGE


@BOTH
@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (1, PAGE),
        (PAGE // 2, PAGE),
        (PAGE - 1, PAGE),
        (0, 1),
        (0, PAGE // 2),
        (0, PAGE + 1),
        (0, 2 * PAGE - 1),
        (0, 0),
        (PAGE, 0),
        (0, 5 * PAGE),
        (PAGE, 4 * PAGE),
        (4 * PAGE, PAGE),
        (5 * PAGE, PAGE),
        (1 << 40, PAGE),
        ((1 << 63) - PAGE, PAGE),
        (1 << 63, PAGE),
        ((1 << 64) - PAGE, PAGE),
        ((1 << 64) - PAGE, 2 * PAGE),
        (0, (1 << 64) - PAGE),
        (0, 1 << 63),
        (PAGE, 64 * MIB),
    ],
)
def test_ranges_that_are_not_whole_pages_of_the_memfd_are_refused(
    system: System, listed: bool, offset: int, size: int
) -> None:
    device, memfd = system.open(UDMABUF), system.memfd(4)
    far = offset >= 1 << 63 and not system.since("6.11")
    with refused(errno.EFBIG if far else errno.EINVAL):
        create(system, device, memfd, offset, size, listed=listed)


@pytest.mark.parametrize("pages", [0.5, 1.5, 0])
def test_a_last_page_that_is_not_whole_is_out_of_reach(system: System, pages: float) -> None:
    device, memfd = system.open(UDMABUF), system.memfd(pages)
    whole = int(pages) * PAGE
    if whole:
        system.create(device, memfd, 0, whole)
    if pages != whole // PAGE and not system.since("6.11"):
        system.create(device, memfd, 0, whole + PAGE)
        system.create(device, memfd, whole, PAGE)
        return
    with refused(errno.EINVAL):
        system.create(device, memfd, 0, whole + PAGE)
    with refused(errno.EINVAL):
        system.create(device, memfd, whole, PAGE)


@BOTH
@pytest.mark.parametrize(
    ("seals", "flags", "fine"),
    [
        (0, uapi.MFD_ALLOW_SEALING, False),
        (SHRINK, uapi.MFD_ALLOW_SEALING, True),
        (SHRINK | GROW, uapi.MFD_ALLOW_SEALING, True),
        (SHRINK | SEAL, uapi.MFD_ALLOW_SEALING, True),
        (SHRINK | GROW | SEAL, uapi.MFD_ALLOW_SEALING, True),
        (GROW, uapi.MFD_ALLOW_SEALING, False),
        (SEAL, uapi.MFD_ALLOW_SEALING, False),
        (SHRINK | WRITE, uapi.MFD_ALLOW_SEALING, False),
        (SHRINK | FUTURE, uapi.MFD_ALLOW_SEALING, False),
        (SHRINK | WRITE | FUTURE, uapi.MFD_ALLOW_SEALING, False),
        (WRITE, uapi.MFD_ALLOW_SEALING, False),
        (EXEC, uapi.MFD_ALLOW_SEALING, False),
        (0, 0, False),
        (SHRINK, uapi.MFD_NOEXEC_SEAL, True),
        (0, uapi.MFD_NOEXEC_SEAL, False),
        (SHRINK | EXEC, uapi.MFD_NOEXEC_SEAL, True),
    ],
)
def test_the_memfd_must_not_shrink_and_must_be_writable(
    system: System, listed: bool, seals: int, flags: int, fine: bool
) -> None:
    if (seals & EXEC or flags & uapi.MFD_NOEXEC_SEAL) and not system.since("6.3"):
        with refused(errno.EINVAL):
            system.memfd(1, seals, flags)
        return
    if seals == SHRINK | FUTURE and not system.since("6.13", "6.12.7", "6.6.87", "6.1.192"):
        fine = True
    device, memfd = system.open(UDMABUF), system.memfd(1, seals, flags)
    if fine:
        create(system, device, memfd, 0, PAGE, listed=listed)
    else:
        with refused(errno.EINVAL):
            create(system, device, memfd, 0, PAGE, listed=listed)


@BOTH
@pytest.mark.parametrize("what", ["closed", "-1", "device", "udmabuf", "heap buffer", "sync file", "path only"])
def test_what_is_not_a_memfd_is_ebadfd(system: System, listed: bool, what: str) -> None:
    device = system.open(UDMABUF)
    fd = -1
    if what == "closed":
        fd = system.memfd()
        system.close(fd)
    elif what == "device":
        fd = device
    elif what == "path only":
        fd = system.open(UDMABUF, 0o10000000)
    elif what == "sync file":
        fd = system.export(system.buffer("udmabuf"))
    elif what != "-1":
        fd = system.buffer("udmabuf" if what == "udmabuf" else "system")
    with refused(errno.EBADFD):
        create(system, device, fd, 0, PAGE, listed=listed)


@BOTH
@pytest.mark.parametrize(("offset", "size"), [(1, PAGE), (0, 1), (0, 0), (0, 64 * MIB + PAGE)])
def test_a_bad_range_is_found_before_a_bad_memfd(system: System, listed: bool, offset: int, size: int) -> None:
    within = size > 64 * MIB and system.since("7.3")
    with refused(errno.EBADFD if within else errno.EINVAL):
        create(system, system.open(UDMABUF), -1, offset, size, listed=listed)


@BOTH
def test_a_bad_memfd_is_found_before_a_range_beyond_its_end(system: System, listed: bool) -> None:
    device = system.open(UDMABUF)
    with refused(errno.EBADFD):
        create(system, device, device, 5 * PAGE, PAGE, listed=listed)


def test_everything_else_is_found_before_the_descriptor_limit(system: System) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    with system.no_descriptors_left():
        with refused(errno.EINVAL):
            system.create(device, memfd, 0, 2 * PAGE)
        with refused(errno.EBADFD):
            system.create(device, -1)
        with refused(errno.EMFILE):
            system.create(device, memfd)
        with refused(errno.EMFILE):
            system.create_list(device, [(memfd, 0, PAGE)])
    if system.since("6.13", "6.12.7", "6.1.191", "6.6"):
        system.backend.add_seals(memfd, WRITE)  # nothing of it is held any more
        return
    with refused(errno.EBUSY):  # two udmabufs are, for ever
        system.backend.add_seals(memfd, WRITE)


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFFE])
@BOTH
def test_only_the_lowest_flag_counts(system: System, listed: bool, flags: int) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    fd = system.create_list(device, [(memfd, 0, PAGE)], flags) if listed else system.create(device, memfd, flags=flags)
    assert system.fdinfo(fd)["flags"] == ("02000002" if flags & 1 else "02")


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3])
def test_how_the_node_was_opened_does_not_matter(system: System, flags: int) -> None:
    buffer = system.create(system.open(UDMABUF, flags), system.memfd())
    system.mmap(buffer)[0] = 1


@pytest.mark.parametrize("pages", [64 * MIB // PAGE])
@BOTH
def test_the_size_limit_of_64_mib_can_be_reached(system: System, listed: bool, pages: int) -> None:
    device, memfd = system.open(UDMABUF), system.memfd(pages + 1)
    if system.since("7.3"):
        buffer = create(system, device, memfd, 0, (pages + 1) * PAGE, listed=listed)
        assert system.size(buffer) == (pages + 1) * PAGE
    else:
        with refused(errno.EINVAL):
            create(system, device, memfd, 0, (pages + 1) * PAGE, listed=listed)
    buffer = create(system, device, memfd, PAGE, pages * PAGE, listed=listed)
    assert system.size(buffer) == pages * PAGE


@pytest.mark.parametrize(
    ("limit_mb", "pages", "fine"),
    [(1, MIB // PAGE - 1, True), (1, MIB // PAGE, True), (1, MIB // PAGE + 1, False), (0, 1, False)],
)
@pytest.mark.parametrize("parts", [1, 3])
def test_the_size_limit_counts_all_items_together(
    system: System, limit_mb: int, pages: int, fine: bool, parts: int
) -> None:
    device, memfd = system.open(UDMABUF), system.memfd(2 * MIB // PAGE)
    if parts > pages:
        parts = pages
    items = [(memfd, 0, PAGE)] * (parts - 1) + [(memfd, PAGE, (pages - parts + 1) * PAGE)]
    with system.udmabuf_limits(size_limit_mb=limit_mb):
        if fine:
            assert system.size(system.create_list(device, items)) == pages * PAGE
        else:
            with refused(errno.EINVAL):
                system.create_list(device, items)


def computes_in_64_bits(system: System) -> bool:
    return system.since("6.15", "6.12.57", "6.6.89", "6.1.136")


@pytest.mark.parametrize(("limit_mb", "in_32_bits"), [(-1, True), (2048, True), (4096, False), (65536, False)])
def test_the_size_limit_is_computed_in_64_bits(system: System, limit_mb: int, in_32_bits: bool) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    with system.udmabuf_limits(size_limit_mb=limit_mb):
        if in_32_bits or computes_in_64_bits(system):
            system.create(device, memfd)
        else:
            with refused(errno.EINVAL):
                system.create(device, memfd)


@pytest.mark.parametrize(
    ("pages", "memfd", "code"),
    [
        (1 << 28, "closed", errno.ENOMEM),
        (1 << 28, "open", errno.ENOMEM),
        ((1 << 29) + 1, "open", errno.EINVAL),
    ],
)
def test_a_table_of_more_than_2_gib_is_enomem_before_any_memfd(
    system: System, pages: int, memfd: str, code: int
) -> None:
    # One entry less, and the machine's memory decides.
    if not computes_in_64_bits(system):
        code = errno.EINVAL
    device = system.open(UDMABUF)
    fd = system.memfd() if memfd == "open" else CLOSED
    with system.udmabuf_limits(size_limit_mb=(PAGE << 29) // MIB), refused(code):
        system.create(device, fd, size=pages * PAGE)


@pytest.mark.parametrize("count", [1, 2, 1023, 1024])
def test_a_list_may_have_up_to_1024_items(system: System, count: int) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    buffer = system.create_list(device, [(memfd, 0, PAGE)] * count)
    assert system.size(buffer) == count * PAGE


@pytest.mark.parametrize("count", [0, 1025, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_other_counts_are_refused_whatever_follows(system: System, count: int) -> None:
    device = system.open(UDMABUF)
    with refused(errno.EINVAL):
        system.create_list(device, [(-1, 0, PAGE)] * min(count, 1025), count=count)


@pytest.mark.parametrize(("limit", "count", "fine"), [(2, 1, True), (2, 2, True), (2, 3, False), (0, 1, False)])
def test_the_list_limit_can_be_set(system: System, limit: int, count: int, fine: bool) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    with system.udmabuf_limits(list_limit=limit):
        if fine:
            system.create_list(device, [(memfd, 0, PAGE)] * count)
        else:
            with refused(errno.EINVAL):
                system.create_list(device, [(memfd, 0, PAGE)] * count)
        system.create(device, memfd)  # of which create knows nothing


@pytest.mark.parametrize("limit", [-1, 65536])
def test_the_list_limit_is_compared_unsigned(system: System, limit: int) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    with system.udmabuf_limits(list_limit=limit, size_limit_mb=1500 * PAGE // MIB + 1):
        system.create_list(device, [(memfd, 0, PAGE)] * 1500)


KMALLOC_MAX = {4096: 4 << 20, 16384: 32 << 20, 65536: 512 << 20}[PAGE]
"""What the kernel allocates at once at most (KMALLOC_MAX_SIZE): arm64's largest blocks grow with its pages."""


@pytest.mark.parametrize("count", [KMALLOC_MAX // 24 + 1, KMALLOC_MAX // 16, 0xFFFF_FFFF])
def test_a_list_of_more_bytes_than_the_kernel_allocates_is_enomem(system: System, count: int) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    with system.udmabuf_limits(list_limit=-1), refused(errno.ENOMEM):
        system.create_list(device, [(memfd, 0, PAGE)], count=count)


@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize(
    ("offset", "size", "own_memfd", "code"),
    [
        (1, PAGE, True, errno.EINVAL),
        (0, 1, True, errno.EINVAL),
        (0, 0, True, errno.EINVAL),
        (0, 9 * PAGE, True, errno.EINVAL),
        (0, PAGE, False, errno.EBADFD),
        (1, PAGE, False, errno.EINVAL),
        (0, 0, False, errno.EBADFD),
    ],
)
def test_one_bad_item_spoils_the_list_and_nothing_is_held(
    system: System, bad: int, offset: int, size: int, own_memfd: bool, code: int
) -> None:
    device, memfd = system.open(UDMABUF), system.memfd(4)
    items = [(memfd, 0, PAGE)] * 3
    items[bad] = (memfd if own_memfd else -1, offset, size)
    if own_memfd and not size and not system.since("6.11"):
        system.close(system.create_list(device, items))
    else:
        with refused(code):
            system.create_list(device, items)
    system.backend.add_seals(memfd, WRITE)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_first_bad_memfd_of_a_list_decides(system: System, swapped: bool) -> None:
    device, unsealed = system.open(UDMABUF), system.memfd(seals=0)
    items = [(unsealed, 0, PAGE), (-1, 0, PAGE)]
    with refused(errno.EBADFD if swapped else errno.EINVAL):
        system.create_list(device, items[::-1] if swapped else items)


def test_an_item_beyond_the_end_is_found_before_the_next_items_memfd(system: System) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    with refused(errno.EINVAL):
        system.create_list(device, [(memfd, PAGE, PAGE), (-1, 0, PAGE)])
    with refused(errno.EBADFD):
        system.create_list(device, [(-1, 0, PAGE), (memfd, PAGE, PAGE)])


def test_a_later_bad_alignment_is_found_before_an_earlier_bad_memfd(system: System) -> None:
    with refused(errno.EINVAL):
        system.create_list(system.open(UDMABUF), [(-1, 0, PAGE), (-1, 1, PAGE)])


def test_the_padding_of_an_item_is_ignored(system: System) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    argument = bytearray(struct.pack("=IIIIQQ", 1, 1, memfd, 0xDEADBEEF, 0, PAGE))
    system.owned(system.backend.ioctl(device, uapi.UDMABUF_CREATE_LIST, argument))


def test_bytes_go_both_ways_between_memfd_and_udmabuf(system: System) -> None:
    memfd = system.memfd(4)
    before = system.mmap(memfd, 4 * PAGE)
    before[PAGE : PAGE + 5] = b"early"
    buffer = system.create(system.open(UDMABUF), memfd, PAGE, 2 * PAGE)
    view = system.mmap(buffer, 2 * PAGE)
    assert view[:5] == b"early"
    view[PAGE : PAGE + 4] = b"late"
    assert before[2 * PAGE : 2 * PAGE + 4] == b"late"
    before[PAGE] = 0x7F
    assert view[0] == 0x7F
    assert system.mmap(memfd, 4 * PAGE)[2 * PAGE : 2 * PAGE + 4] == b"late"


def test_the_pages_outlive_the_memfd_and_the_device(system: System) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    buffer = system.create(device, memfd)
    mapping = system.mmap(memfd)
    mapping[:4] = b"kept"
    mapping.close()
    system.close(memfd)
    system.close(device)
    system.sync(buffer, START_READ)
    assert system.mmap(buffer)[:4] == b"kept"


def test_the_memfds_pages_outlive_the_udmabuf(system: System) -> None:
    memfd = system.memfd()
    buffer = system.create(system.open(UDMABUF), memfd)
    mapping = system.mmap(buffer)
    mapping[:4] = b"kept"
    mapping.close()
    system.close(buffer)
    assert system.mmap(memfd)[:4] == b"kept"


def test_two_udmabufs_of_one_memfd_show_the_same_pages(system: System) -> None:
    device, memfd = system.open(UDMABUF), system.memfd(3)
    one = system.mmap(system.create(device, memfd, 0, 2 * PAGE), 2 * PAGE)
    other = system.mmap(system.create(device, memfd, PAGE, 2 * PAGE), 2 * PAGE)
    one[PAGE] = 11
    assert other[0] == 11
    other[1] = 12
    assert one[PAGE + 1] == 12


def test_a_list_lays_its_items_end_to_end(system: System) -> None:
    device = system.open(UDMABUF)
    first, second = system.memfd(4), system.memfd(2)
    a, b = system.mmap(first, 4 * PAGE), system.mmap(second, 2 * PAGE)
    for page in range(4):
        a[page * PAGE] = 10 + page
    for page in range(2):
        b[page * PAGE] = 20 + page
    items = [(first, 2 * PAGE, 2 * PAGE), (second, PAGE, PAGE), (first, 0, PAGE), (second, 0, 2 * PAGE)]
    buffer = system.create_list(device, items)
    view = system.mmap(buffer, 6 * PAGE)
    assert [view[page * PAGE] for page in range(6)] == [12, 13, 21, 10, 20, 21]
    view[5 * PAGE + 1] = 99
    assert (b[PAGE + 1], view[2 * PAGE + 1]) == (99, 99)
    assert [system.mmap(buffer, 2 * PAGE, offset=3 * PAGE)[page * PAGE] for page in range(2)] == [10, 20]


def test_one_page_may_stand_in_a_buffer_several_times(system: System) -> None:
    view = system.mmap(system.create_list(system.open(UDMABUF), [(system.memfd(), 0, PAGE)] * 4), 4 * PAGE)
    view[2 * PAGE + 3] = 5
    assert [view[page * PAGE + 3] for page in range(4)] == [5, 5, 5, 5]


def test_growing_the_memfd_leaves_the_buffer_as_it_is(system: System) -> None:
    memfd = system.memfd()
    buffer = system.create(system.open(UDMABUF), memfd)
    system.backend.ftruncate(memfd, 3 * PAGE)
    assert system.size(buffer) == PAGE
    with refused(errno.EINVAL):
        system.mmap(buffer, 2 * PAGE)
    view, file = system.mmap(buffer), system.mmap(memfd, 3 * PAGE)
    file[0] = 3
    assert view[0] == 3


def test_the_memfd_cannot_shrink_under_a_buffer_nor_after_it(system: System) -> None:
    memfd = system.memfd()
    buffer = system.create(system.open(UDMABUF), memfd)
    with refused(errno.EPERM):
        system.backend.ftruncate(memfd, 0)
    system.close(buffer)
    with refused(errno.EPERM):
        system.backend.ftruncate(memfd, 0)


def test_a_new_udmabuf_has_no_name_and_names_its_exporter(system: System) -> None:
    info = system.fdinfo(system.buffer("udmabuf", 2))
    assert info == {
        "pos": "0",
        "flags": "02000002",
        "size": str(2 * PAGE),
        "count": "1",
        "exp_name": "udmabuf",
    }


@pytest.mark.parametrize("what", ["argument", "list head"])
def test_an_argument_at_address_0_is_efault(system: System, what: str) -> None:
    request = uapi.UDMABUF_CREATE if what == "argument" else uapi.UDMABUF_CREATE_LIST
    with refused(errno.EFAULT):
        system.backend.ioctl(system.open(UDMABUF), request, 0)


@pytest.mark.parametrize("cut", [0, 1, 8, 23])
def test_a_create_argument_that_cannot_be_read_to_its_end_is_efault(system: System, cut: int) -> None:
    device, memfd, memory = system.open(UDMABUF), system.memfd(), system.low_memory()
    argument = bytes(uapi.udmabuf_create.pack(memfd, 1, 0, PAGE))
    address = memory.put_before_end(argument[: len(argument) - cut])
    if cut:
        with refused(errno.EFAULT):
            system.backend.ioctl(device, uapi.UDMABUF_CREATE, address)
    else:
        system.owned(system.backend.ioctl(device, uapi.UDMABUF_CREATE, address))


@pytest.mark.parametrize(("items", "count"), [(2, 2), (1, 2), (0, 1)])
def test_a_list_that_cannot_be_read_to_its_end_is_efault(system: System, items: int, count: int) -> None:
    device, memfd, memory = system.open(UDMABUF), system.memfd(), system.low_memory()
    item = uapi.udmabuf_create_item.pack(memfd, 0, 0, PAGE)
    address = memory.put_before_end(bytes(uapi.udmabuf_create_list.pack(1, count) + item * items))
    if items < count:
        with refused(errno.EFAULT):
            system.backend.ioctl(device, uapi.UDMABUF_CREATE_LIST, address)
    else:
        system.owned(system.backend.ioctl(device, uapi.UDMABUF_CREATE_LIST, address))


@pytest.mark.parametrize(("count", "code"), [(0, errno.EINVAL), (1025, errno.EINVAL), (1024, errno.EFAULT)])
def test_the_count_is_judged_before_the_items_are_read(system: System, count: int, code: int) -> None:
    memory = system.low_memory()
    address = memory.put_before_end(bytes(uapi.udmabuf_create_list.pack(1, count)))
    with refused(code):
        system.backend.ioctl(system.open(UDMABUF), uapi.UDMABUF_CREATE_LIST, address)


@pytest.mark.parametrize(
    "request_number",
    [
        uapi.UDMABUF_CREATE ^ 1 << 30,
        uapi.UDMABUF_CREATE | 2 << 30,
        uapi.UDMABUF_CREATE ^ 8 << 16,
        uapi.UDMABUF_CREATE_LIST ^ 1 << 30,
        uapi.UDMABUF_CREATE_LIST + (24 << 16),
        uapi.UDMABUF_CREATE & 0xFFFF,
        uapi.UDMABUF_CREATE + 2,
        uapi.UDMABUF_CREATE - 1,
        uapi.DMA_BUF_IOCTL_SYNC,
        uapi.DMA_HEAP_IOCTL_ALLOC,
        0,
        0xFFFF_FFFF,
    ],
)
def test_other_requests_are_enotty(system: System, request_number: int) -> None:
    device, memfd = system.open(UDMABUF), system.memfd()
    with refused(errno.ENOTTY):
        system.backend.ioctl(device, request_number, uapi.udmabuf_create.pack(memfd, 1, 0, PAGE))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_neither_node_can_be_mapped_or_sought(system: System, flags: int) -> None:
    for node in (UDMABUF, SYSTEM_HEAP):
        fd = system.open(node, flags)
        with refused(errno.ENODEV):
            system.mmap(fd, prot=1)
        for whence in range(5):
            with refused(errno.ESPIPE):
                system.backend.lseek(fd, 0, whence)
        with refused(errno.EINVAL):
            system.backend.lseek(fd, 0, 5)
        with refused(errno.EINVAL):
            system.backend.ftruncate(fd, 0)


@pytest.mark.parametrize("sealed", [SHRINK, SHRINK | GROW])
def test_a_length_that_is_set_again_clears_what_was_written_behind_the_end(system: System, sealed: int) -> None:
    """Before 6.11 a buffer may have the whole of a memfd's last page, and so bytes that are not the memfd's."""
    device, memfd = system.open(UDMABUF), system.memfd(1.5, sealed)
    if system.since("6.11"):
        with refused(errno.EINVAL):
            system.create(device, memfd, 0, 2 * PAGE)
        return
    view = system.mmap(system.create(device, memfd, 0, 2 * PAGE), 2 * PAGE)
    inside, behind = PAGE + 100, 2 * PAGE - 8
    view[inside : inside + 4], view[behind : behind + 8] = b"kept", b"forgiven"
    system.backend.ftruncate(memfd, PAGE * 3 // 2)
    assert (view[inside : inside + 4], view[behind : behind + 8]) == (b"kept", bytes(8))
