"""Which kernel a profile names, and where releases differ beyond what the conformance suite asks."""

from __future__ import annotations

import errno
import mmap
import os
import platform

import pytest

from dmasync import uapi
from dmasync.fakes import FakeBackend
from dmasync.fakes.kernel import FakeKernel
from dmasync.fakes.kernel.profile import PROFILES, nearest_profile, profile_named, profile_of
from dmasync.fakes.kernel.releases import Release, Since
from tests.support.page_size import PAGE
from tests.support.paged import fake_kernel

HUGE = PAGE * (PAGE // 8)
FIOQSIZE = 0x5460
CLOSED = 99_999


@pytest.fixture(params=["6.1", "6.12"])
def kernel(request: pytest.FixtureRequest) -> FakeKernel:
    return fake_kernel(profile=request.param)


def answer(call: object, *args: object) -> str:
    try:
        call(*args)
    except OSError as failure:
        return errno.errorcode[failure.errno or 0]
    return "fine"


def expect(kernel: FakeKernel, old: str, new: str) -> str:
    return old if kernel.profile.name == "6.1" else new


# Names


@pytest.mark.parametrize(
    ("text", "line", "update"),
    [
        ("6.12", (6, 12), None),
        ("6.12.117", (6, 12), 117),
        ("6.12.117+deb12-amd64", (6, 12), 117),
        ("6.13.0-rc3", (6, 13), 0),
        ("6.1.0", (6, 1), 0),
        ("7.3-mine", (7, 3), None),
    ],
)
def test_a_release_is_the_number_that_its_text_begins_with(
    text: str, line: tuple[int, int], update: int | None
) -> None:
    release = Release.parse(text)
    assert release is not None
    assert release == (Release(line) if update is None else Release(line, update))


@pytest.mark.parametrize("text", ["", "6", "six", "v6.12", "6.12.1.2", "debian:6.12"])
def test_what_is_no_release_has_none(text: str) -> None:
    assert Release.parse(text) is None


@pytest.mark.parametrize(
    ("release", "has_it"),
    [
        ("6.1.190", False),
        ("6.1.191", True),
        ("6.1", True),
        ("6.5", False),
        ("6.6", True),
        ("6.6.999", False),
        ("6.12.111", False),
        ("6.12.112", True),
        ("6.12", True),
        ("6.18", False),
        ("6.18.50", False),
        ("7.1", False),
        ("7.2.1", False),
        ("7.2.2", True),
        ("7.3.0", True),
    ],
)
def test_a_behaviour_came_with_a_release_and_with_updates_of_older_ones(release: str, has_it: bool) -> None:
    parsed = Release.parse(release)
    assert parsed is not None
    assert (parsed in Since.of("7.2.2", "6.12.112", "6.1.191", "6.6")) == has_it


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_known_by_its_name_and_has_its_releases_answers(name: str) -> None:
    profile = profile_named(name)
    assert profile.name == name
    assert str(profile.release) == PROFILES[name]
    assert FakeBackend(profile=name).kernel.profile == profile


@pytest.mark.parametrize(
    ("name", "as_name"),
    [
        ("6.1.192", "6.1"),
        ("6.6.87", "6.6"),
        ("6.12.117", "6.12"),
        ("6.12.117+deb12-amd64", "6.12"),
        ("6.18.15", "6.18"),
        ("7.3.4+deb13-amd64", "7.3"),
    ],
)
def test_a_release_may_be_named_in_full(name: str, as_name: str) -> None:
    fields = {key: value for key, value in vars(profile_named(as_name)).items() if key != "name"}
    assert {key: value for key, value in vars(profile_named(name)).items() if key != "name"} == fields


def test_a_release_between_two_profiles_has_what_came_until_then() -> None:
    between = profile_named("6.17")
    assert between.detached_names
    assert between.udmabuf_pins_folios
    assert not between.heap_fd_last
    assert not profile_named("6.16").detached_names
    assert not profile_named("6.12.92").exec_seal_denies
    assert profile_named("6.12.93").exec_seal_denies
    assert profile_named("7.2").size_limit_mb == 64
    assert profile_named("6.8").vfs_requests == frozenset() != profile_named("6.9").vfs_requests


def test_an_update_of_an_older_line_brings_what_a_later_line_began_with() -> None:
    """By the change logs of Debian's packages, and for 6.6 by its updates' patches and two kernels that were asked."""
    for field, before, after in (
        ("udmabuf_maps_numbers", "6.6.17", "6.6.87"),
        ("sealed_maps_read", "6.6.87", "6.6.103"),
        ("limit_in_64_bits", "6.6.87", "6.6.100"),
        ("exec_seal_denies", "6.6.142", "6.6.143"),
        ("sealed_maps_read", "6.12.8", "6.12.9"),
        ("sealed_maps_read", "6.1.148", "6.1.149"),
        ("limit_in_64_bits", "6.12.56", "6.12.57"),
        ("limit_in_64_bits", "6.1.135", "6.1.136"),
        ("failed_udmabuf_goes", "6.12.6", "6.12.7"),
        ("failed_udmabuf_goes", "6.1.190", "6.1.191"),
    ):
        assert not getattr(profile_named(before), field), (field, before)
        assert getattr(profile_named(after), field), (field, after)


def test_a_size_limit_of_32_bits_is_an_int_of_c() -> None:
    """size_limit_mb * 1024 * 1024, shifted, and then compared as an unsigned long."""
    narrow, wide = profile_named("6.6"), profile_named("6.12")
    assert [narrow.page_limit(mb, 4096) for mb in (64, 2047, 4096, 4097)] == [16384, 2047 << 8, 0, 256]
    assert narrow.page_limit(2048, 4096) > 1 << 60
    assert narrow.page_limit(-1, 4096) > 1 << 60
    assert [wide.page_limit(mb, 4096) for mb in (64, 4096)] == [16384, 1 << 20]


@pytest.mark.parametrize(
    ("name", "nearest"), [("5.10", "6.1"), ("6.0.9", "6.1"), ("8.0", "7.3"), ("7.4", "7.3"), ("newest", "6.12.93")]
)
def test_a_kernel_that_the_fake_does_not_know_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"profile='{name}' .*{nearest}"):
        profile_named(name)


@pytest.mark.parametrize(
    ("running", "release"),
    [("6.12.90+deb12-amd64", "6.12.90"), ("6.17.0-8-generic", "6.17.0"), ("9.1.2", PROFILES["7.3"])],
)
def test_the_hosts_profile_is_the_running_kernels(monkeypatch: pytest.MonkeyPatch, running: str, release: str) -> None:
    monkeypatch.setattr(platform, "release", lambda: running)
    assert str(fake_kernel(profile="host").profile.release) == release


def test_a_host_older_than_every_profile_is_refused_with_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "5.15.0-91-generic")
    with pytest.raises(ValueError, match=r"profile='host' \(here 5.15.0-91-generic\) is older .* nearest is '6.1'"):
        fake_kernel(profile="host")


@pytest.mark.parametrize(
    ("recorded", "release"),
    [
        ("5.15.0", "6.1.192"),
        ("6.12.117+deb12-amd64", "6.12.117"),
        ("6.12", "6.12.117"),
        ("9.0", "7.3.4"),
        ("", "6.12.117"),
    ],
)
def test_a_recorded_kernel_finds_its_profile_or_the_nearest(recorded: str, release: str) -> None:
    assert str(nearest_profile(recorded).release) == release


def test_no_two_profiles_have_the_same_answers() -> None:
    answers = []
    for release in PROFILES.values():
        parsed = Release.parse(release)
        assert parsed is not None
        answers.append({k: v for k, v in vars(profile_of(parsed)).items() if k not in ("name", "release")})
    assert all(one != other for index, one in enumerate(answers) for other in answers[:index])


# Limits


@pytest.mark.parametrize(("profile", "limit"), [("6.1", 64), ("6.18", 64), ("7.2", 64), ("7.3", (1 << 31) - 1)])
def test_the_size_limit_is_the_releases_unless_it_is_given(profile: str, limit: int) -> None:
    assert fake_kernel(profile=profile).size_limit_mb == limit
    assert fake_kernel(profile=profile, size_limit_mb=3).size_limit_mb == 3


def create(kernel: FakeKernel, *items: tuple[int, int, int]) -> str:
    """The answer to a list of (memfd, offset, size)."""
    argument = uapi.udmabuf_create_list.pack(1, len(items))
    for memfd, offset, size in items:
        argument += uapi.udmabuf_create_item.pack(memfd, 0, offset, size)
    return answer(kernel.ioctl, kernel.open("/dev/udmabuf", os.O_RDWR), uapi.UDMABUF_CREATE_LIST, argument)


def sealed(kernel: FakeKernel, size: int, flags: int = 0) -> int:
    memfd = kernel.memfd_create("m", uapi.MFD_ALLOW_SEALING | flags)
    kernel.ftruncate(memfd, size)
    kernel.add_seals(memfd, uapi.F_SEAL_SHRINK)
    return memfd


def bytes_in_pages(kernel: FakeKernel, memfd: int) -> int:
    told = bytearray(8)
    kernel.ioctl(memfd, FIOQSIZE, told)
    return int.from_bytes(told, "little")


@pytest.mark.parametrize(
    ("offset", "size", "old", "new"),
    [(0, PAGE, "EINVAL", "ENOMEM"), (0, 0, "fine", "EINVAL"), (1 << 63, PAGE, "EINVAL", "EINVAL")],
)
def test_huge_pages_that_are_not_there_were_looked_for_only(
    kernel: FakeKernel, offset: int, size: int, old: str, new: str
) -> None:
    page, huge = sealed(kernel, PAGE), sealed(kernel, HUGE, uapi.MFD_HUGETLB)
    assert create(kernel, (page, 0, PAGE), (huge, offset, size)) == expect(kernel, old, new)
    assert bytes_in_pages(kernel, huge) == 0


def test_pages_were_looked_up_one_by_one_up_to_the_first_that_is_not_there(kernel: FakeKernel) -> None:
    memfd = sealed(kernel, 2 * PAGE)
    assert create(kernel, (memfd, PAGE, 2 * PAGE)) == "EINVAL"
    assert bytes_in_pages(kernel, memfd) == (PAGE if kernel.profile.name == "6.1" else 0)


LARGEST_TABLE = {4096: 4 << 20, 16384: 32 << 20, 65536: 512 << 20}[PAGE]
"""Bytes that kmalloc() gives at once."""


@pytest.mark.parametrize(
    ("pages", "old", "new"),
    [
        (LARGEST_TABLE // 8, "EBADFD", "EBADFD"),
        (LARGEST_TABLE // 8 + 1, "ENOMEM", "EBADFD"),
        ((1 << 31) // 8, "ENOMEM", "ENOMEM"),
    ],
)
def test_the_table_of_pages_must_be_allocated_before_a_memfd_is_looked_at(
    kernel: FakeKernel, pages: int, old: str, new: str
) -> None:
    kernel.size_limit_mb = (1 << 31) - 1
    assert create(kernel, (CLOSED, 0, pages * PAGE)) == expect(kernel, old, new)


@pytest.mark.parametrize(("profile", "whole"), [("6.1", "EINVAL"), ("6.18", "EINVAL"), ("7.2", "fine")])
def test_the_system_heap_maps_block_by_block_from_7_2_on(profile: str, whole: str) -> None:
    """A private mapping must be made at once: of a page before, now of up to 16 or 256 pages, a block of the heap."""
    kernel = fake_kernel(profile=profile)
    argument = uapi.dma_heap_allocation_data.pack(33 * PAGE, 0, os.O_RDWR, 0)
    kernel.ioctl(kernel.open("/dev/dma_heap/system", os.O_RDWR), uapi.DMA_HEAP_IOCTL_ALLOC, argument)
    buffer = uapi.dma_heap_allocation_data.get(argument, "fd")

    def private(first: int, pages: int) -> str:
        return answer(kernel.mmap, buffer, pages * PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE, first * PAGE)

    assert private(0, 16) == private(16, 16) == private(3, 5) == whole
    assert private(15, 2) == private(0, 17) == private(31, 2) == "EINVAL"
    assert private(0, 1) == private(32, 1) == "fine"
