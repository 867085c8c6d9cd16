"""Where kernels differ: what a release knows and what it does not.

``docs/explanation/fidelity.md`` has the same as a table, with the tests that ask each kernel.
"""

from __future__ import annotations

import errno
import platform
from dataclasses import dataclass

from dmasync import uapi
from dmasync.fakes.kernel.releases import Release, Since

FS_IOC_GETFSUUID = 0x80111500
FS_IOC_GETFSSYSFSPATH = 0x80811501

DEFAULT_PROFILE = "6.12"
"""Debian's kernel, and the one that the fake was compared with for the most steps."""
HOST = "host"
"""The profile of the kernel that this process runs on."""
PROFILES = {"6.1": "6.1.192", "6.6": "6.6.87", "6.12": "6.12.117", "6.18": "6.18.15", "7.3": "7.3.4"}
"""The profiles by name, and the release that each stands for: one that answered the conformance suite."""

_SEALS_BEFORE_EXEC = (
    uapi.F_SEAL_SEAL | uapi.F_SEAL_SHRINK | uapi.F_SEAL_GROW | uapi.F_SEAL_WRITE | uapi.F_SEAL_FUTURE_WRITE
)
_FLAGS_BEFORE_EXEC = uapi.MFD_CLOEXEC | uapi.MFD_ALLOW_SEALING | uapi.MFD_HUGETLB
_INT_MAX = (1 << 31) - 1
_KMALLOC_MAX_4K = 4 << 20

# Since when. Where the first release is not known, the first that was seen to have it. A line without an update
# (here 6.6) has it in its newest one.
_EXEC_SEAL = Since.of("6.3")
_NO_HUGE_UDMABUF = Since.of("6.5")
_MAP_ABOVE4G = Since.of("6.6")
_SHORT_FOLDERS = Since.of("6.6")
_DEADLINE = Since.of("6.7")
_STACK_WITHOUT_HUGE_PAGES = Since.of("6.7")
_SEALED_MAPS_READ = Since.of("6.7", "6.12.9", "6.6.103", "6.1.149")
_LONG_FOLDERS = Since.of("6.9")
_FS_IDENTITY = Since.of("6.9")
_DIRECT_MEMFDS = Since.of("6.6")  # read; 6.1.192 refuses it
_PINNED_FOLIOS = Since.of("6.11")
_UDMABUF_NUMBERS = Since.of("6.11", "6.6.87")
_FUTURE_WRITE_DENIED = Since.of("6.13", "6.12.7", "6.6.87", "6.1.192")
_FAILED_UDMABUF_GOES = Since.of("6.13", "6.12.7", "6.1.191", "6.6")
_LIMIT_IN_64_BITS = Since.of("6.15", "6.12.57", "6.6.89", "6.1.136")
_CMA_NUMBERS = Since.of("6.9")
_LARGE_ARRAYS = Since.of("6.12")
_FILES_GUARDED = Since.of("6.15")
_DETACHED_NAMES = Since.of("6.17")
_PROMISED_HUGE_PAGES = Since.of("6.16.12")
_RESERVED_HUGE_PAGES = Since.of("6.17")
_PROMISED_ANEW = Since.of("6.9")  # between 6.6.87 and 6.12.117
_RESERVED_AS_ENOMEM = Since.of("7.2")
_EXEC_SEAL_DENIES = Since.of("7.2", "6.18.44", "6.12.93", "6.6.143")
_HEAP_FD_LAST = Since.of("7.2", "6.12.112", "6.1.191", "6.6")
_ANONYMOUS_NOEXEC = Since.of("6.16")
_ONLY_COUNTED_FORKS = Since.of("7.2")
_PSEUDO_NOEXEC = Since.of("7.2")
_HEAP_MAPS_BLOCKS = Since.of("7.2")
_DESCRIPTOR_BEFORE_PATH = Since.of("7.2")
_EMPTY_PATHS = Since.of("7.2")
_NO_SIZE_LIMIT = Since.of("7.3")


@dataclass(frozen=True)
class Profile:
    """The answers of one kernel release, as far as they differ from another's."""

    name: str
    release: Release
    memfd_flags: int
    """Flags of memfd_create() that are known; since 6.3 also MFD_EXEC and MFD_NOEXEC_SEAL."""
    seals: int
    """Seals that are known; since 6.3 also F_SEAL_EXEC."""
    exec_seal_denies: bool
    """F_SEAL_EXEC looks at mappings and pins before it brings F_SEAL_WRITE along; older ones only bring it."""
    sync_file_requests: frozenset[int]
    """Since 6.7 also SYNC_IOC_SET_DEADLINE."""
    vfs_requests: frozenset[int]
    """Requests that the VFS answers itself since 6.9: FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH."""
    memfds_open_directly: bool
    """A memfd may be opened with O_DIRECT, which changes nothing."""
    udmabuf_pins_folios: bool
    """Since 6.11: an item of no pages is refused, a page that the memfd's end cuts through is out of reach, and an
    offset of 2**63 or more is EINVAL; 6.1 looked each page up, and said EFBIG to the last."""
    udmabuf_maps_numbers: bool
    """A udmabuf's mapping is of page numbers, as the system heap's; before, of the memfd's own pages, which Linux
    miscounts when the memfd goes first."""
    udmabuf_takes_huge_pages: bool
    """From 6.5 to 6.10 a memfd of huge pages is none to ``/dev/udmabuf``."""
    udmabuf_seals_denied: int
    """Seals with which no udmabuf is made of a memfd: F_SEAL_WRITE, later also F_SEAL_FUTURE_WRITE."""
    failed_udmabuf_goes: bool
    """A udmabuf for which no descriptor is left is given back; before, it kept its pages for ever."""
    limit_in_64_bits: bool
    """udmabuf's size limit in bytes is computed in 64 bits; before, in 32: 4096 MiB were 0, and 2048 no limit."""
    sealed_maps_read: bool
    """A mapping to read made under a seal on writing can never write, and Linux knows; before, it was counted as one
    that may, so that F_SEAL_WRITE refused it, and was refused by it."""
    stack_without_huge_pages: bool
    """What is mapped with MAP_STACK has no huge pages, as if MADV_NOHUGEPAGE had been said of it."""
    folder_end: int
    """The last place in a folder of nodes that lseek() takes."""
    size_limit_mb: int
    """What udmabuf's module parameter is unless somebody sets it: 64, since 7.3 as good as none."""
    missing_huge_page: int
    """The errno of a udmabuf that needs a huge page which is not there, once it is more than looked for."""
    pinning_takes_promised: bool
    """A udmabuf gets huge pages only as long as any are promised, whoever they are promised to."""
    pinning_promises: bool
    """A udmabuf's huge page that is not there yet is promised before it is taken; before, one that was promised to
    somebody else may be taken, and the count of promised ones goes below 0."""
    promises_huge_pages_anew: bool
    """When a private mapping loses a huge page of its own (MADV_DONTNEED, a hole), the next one is promised to it."""
    detached_names: bool
    """Since 6.17 a fence that has signalled no longer gives its driver's names."""
    heap_fd_last: bool
    """A heap gives the new descriptor to the process only when its number has been told, and writes nothing where it
    refuses; before, the descriptor was there already when telling it failed, and what was refused was written back."""
    heap_maps_blocks: bool
    """The system heap maps each block of its pages at once: a private mapping may fill a block. Before, a page."""
    cma_maps_numbers: bool
    """A CMA heap's mapping is of page numbers, as the system heap's always was; before, of pages as a file's is."""
    dofork_for_counted_pages: bool
    """MADV_DOFORK is refused wherever a mapping is of page numbers, a udmabuf's too; before, of a heap's alone."""
    guards_files: bool
    """madvise() knows MADV_GUARD_INSTALL and MADV_GUARD_REMOVE in mappings of files."""
    maps_above_4g: bool
    """x86-64: whether MAP_SHARED_VALIDATE takes MAP_ABOVE4G."""
    anonymous_files_execute: bool
    """Whether a sync file, which has an anonymous inode, is as any other file when mapped with PROT_EXEC, or EPERM."""
    dma_bufs_execute: bool
    """Whether dma-bufs may be mapped with PROT_EXEC."""
    descriptor_before_path: bool
    """open() looks for a descriptor before it looks at an empty or too long path."""

    empty_paths: bool
    """open() knows O_EMPTYPATH, and the file keeps it among its flags."""

    def page_limit(self, size_limit_mb: int, page_size: int) -> int:
        """Pages that one udmabuf may have, as C computes it from the module's parameter: an int, shifted."""
        size = size_limit_mb * 1024 * 1024
        if not self.limit_in_64_bits:
            size = (size + (1 << 31) & (1 << 32) - 1) - (1 << 31)
            return size // page_size & (1 << 64) - 1
        return (size & (1 << 64) - 1) // page_size

    def largest_page_array(self, page_size: int) -> int:
        """Bytes that a udmabuf's table of pages, eight for each, may take: ``kmalloc_array()``'s most before 6.12, then
        ``kvmalloc_array()``'s. More is ENOMEM before any memfd is looked at.
        """
        return _INT_MAX if self.release in _LARGE_ARRAYS else largest_kmalloc(page_size)


def largest_kmalloc(page_size: int) -> int:
    """KMALLOC_MAX_SIZE in bytes: the largest block of pages, which arm64 makes larger with its pages."""
    return {16384: 32 << 20, 65536: 512 << 20}.get(page_size, _KMALLOC_MAX_4K)


def profile_of(release: Release, name: str = "") -> Profile:
    """The answers of *release*."""
    requests = {uapi.SYNC_IOC_MERGE, uapi.SYNC_IOC_FILE_INFO}
    exec_seal = release in _EXEC_SEAL
    enomem = release not in _RESERVED_HUGE_PAGES or release in _RESERVED_AS_ENOMEM
    return Profile(
        name=name or str(release),
        release=release,
        memfd_flags=_FLAGS_BEFORE_EXEC | (uapi.MFD_EXEC | uapi.MFD_NOEXEC_SEAL if exec_seal else 0),
        seals=_SEALS_BEFORE_EXEC | (uapi.F_SEAL_EXEC if exec_seal else 0),
        exec_seal_denies=release in _EXEC_SEAL_DENIES,
        sync_file_requests=frozenset(requests | ({uapi.SYNC_IOC_SET_DEADLINE} if release in _DEADLINE else set())),
        vfs_requests=frozenset({FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH} if release in _FS_IDENTITY else ()),
        memfds_open_directly=release in _DIRECT_MEMFDS,
        udmabuf_pins_folios=release in _PINNED_FOLIOS,
        udmabuf_maps_numbers=release in _UDMABUF_NUMBERS,
        udmabuf_takes_huge_pages=release not in _NO_HUGE_UDMABUF or release in _PINNED_FOLIOS,
        udmabuf_seals_denied=uapi.F_SEAL_WRITE | (uapi.F_SEAL_FUTURE_WRITE if release in _FUTURE_WRITE_DENIED else 0),
        failed_udmabuf_goes=release in _FAILED_UDMABUF_GOES,
        limit_in_64_bits=release in _LIMIT_IN_64_BITS,
        sealed_maps_read=release in _SEALED_MAPS_READ,
        stack_without_huge_pages=release in _STACK_WITHOUT_HUGE_PAGES,
        folder_end=(1 << 32) - 1 if release in _SHORT_FOLDERS and release not in _LONG_FOLDERS else (1 << 63) - 1,
        size_limit_mb=_INT_MAX if release in _NO_SIZE_LIMIT else 64,
        missing_huge_page=errno.ENOMEM if enomem else errno.EPERM,
        pinning_takes_promised=release in _PROMISED_HUGE_PAGES and release not in _RESERVED_HUGE_PAGES,
        pinning_promises=release in _RESERVED_HUGE_PAGES,
        promises_huge_pages_anew=release in _PROMISED_ANEW,
        detached_names=release in _DETACHED_NAMES,
        heap_fd_last=release in _HEAP_FD_LAST,
        heap_maps_blocks=release in _HEAP_MAPS_BLOCKS,
        cma_maps_numbers=release in _CMA_NUMBERS,
        dofork_for_counted_pages=release in _ONLY_COUNTED_FORKS,
        guards_files=release in _FILES_GUARDED,
        maps_above_4g=release in _MAP_ABOVE4G,
        anonymous_files_execute=release not in _ANONYMOUS_NOEXEC,
        dma_bufs_execute=release not in _PSEUDO_NOEXEC,
        descriptor_before_path=release in _DESCRIPTOR_BEFORE_PATH,
        empty_paths=release in _EMPTY_PATHS,
    )


def profile_named(name: str) -> Profile:
    """The profile *name*: one of :data:`PROFILES`, another release from the oldest of them on, or ``"host"``.

    ``"host"`` is the running kernel's release, or the newest profile where that is newer still. Whatever follows a
    release's number, as in ``6.12.117+deb12-amd64``, is ignored. ValueError, with the nearest profile, for the rest.
    """
    wanted = platform.release() if name == HOST else name
    if wanted in PROFILES:
        release = Release.parse(PROFILES[wanted])
        assert release is not None  # noqa: S101 - written above
        return profile_of(release, wanted)
    release = Release.parse(wanted)
    oldest, *_, newest = PROFILES
    if release is None:
        raise ValueError(
            f"profile={name!r} is no kernel release: use one of {', '.join(PROFILES)}, a release such as 6.12.93, "
            f"or {HOST!r}"
        )
    if release.line < _line(oldest):
        raise ValueError(
            f"profile={_said(name, wanted)} is older than any that the fake knows: the nearest is {oldest!r}"
        )
    if release.line > _line(newest):
        if name == HOST:
            return profile_named(newest)
        raise ValueError(f"profile={name!r} is newer than any that the fake knows: the nearest is {newest!r}")
    return profile_of(release)


def nearest_profile(kernel: str) -> Profile:
    """The profile for a kernel that answered *kernel* to ``uname -r``: its release's, or the nearest that is known."""
    release = Release.parse(kernel)
    if kernel in PROFILES or release is None:
        return profile_named(kernel if kernel in PROFILES else DEFAULT_PROFILE)
    oldest, *_, newest = PROFILES
    if release.line < _line(oldest):
        return profile_named(oldest)
    return profile_named(newest) if release.line > _line(newest) else profile_of(release)


def _line(name: str) -> tuple[int, int]:
    release = Release.parse(name)
    assert release is not None  # noqa: S101 - written above
    return release.line


def _said(name: str, wanted: str) -> str:
    return repr(name) if name == wanted else f"{name!r} (here {wanted})"
