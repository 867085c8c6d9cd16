"""Where kernels differ: what a release knows and what it does not."""

from __future__ import annotations

from dataclasses import dataclass

from dmasync import uapi

FS_IOC_GETFSUUID = 0x80111500
FS_IOC_GETFSSYSFSPATH = 0x80811501

_SEALS_BEFORE_EXEC = (
    uapi.F_SEAL_SEAL | uapi.F_SEAL_SHRINK | uapi.F_SEAL_GROW | uapi.F_SEAL_WRITE | uapi.F_SEAL_FUTURE_WRITE
)
_FLAGS_BEFORE_EXEC = uapi.MFD_CLOEXEC | uapi.MFD_ALLOW_SEALING | uapi.MFD_HUGETLB


@dataclass(frozen=True)
class Profile:
    """The answers of one kernel release, as far as they differ from another's."""

    name: str
    memfd_flags: int
    """Flags of memfd_create() that are known; since 6.3 also MFD_EXEC and MFD_NOEXEC_SEAL."""
    seals: int
    """Seals that are known; since 6.3 also F_SEAL_EXEC."""
    sync_file_requests: frozenset[int]
    """Since 6.4 also SYNC_IOC_SET_DEADLINE."""
    vfs_requests: frozenset[int]
    """Requests that the VFS answers itself since 6.9: FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH."""
    udmabuf_pins_folios: bool
    """Since 6.12: an item of no pages is refused, a page that the memfd's end cuts through is out of reach, and an
    offset of 2**63 or more is EINVAL; 6.1 looked each page up, and said EFBIG to the last."""
    largest_page_array: int
    """Bytes that a udmabuf's table of pages, eight for each, may take: ``kmalloc_array()``'s most in 6.1, since 6.12
    ``kvmalloc_array()``'s. More is ENOMEM before any memfd is looked at."""

    @staticmethod
    def page_limit(size_limit_mb: int, page_size: int) -> int:
        """Pages that one udmabuf may have, as C computes it in 64 bits from the module's parameter."""
        return (size_limit_mb * 1024 * 1024 & (1 << 64) - 1) // page_size


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="6.12",
            memfd_flags=_FLAGS_BEFORE_EXEC | uapi.MFD_EXEC | uapi.MFD_NOEXEC_SEAL,
            seals=_SEALS_BEFORE_EXEC | uapi.F_SEAL_EXEC,
            sync_file_requests=frozenset({uapi.SYNC_IOC_MERGE, uapi.SYNC_IOC_FILE_INFO, uapi.SYNC_IOC_SET_DEADLINE}),
            vfs_requests=frozenset({FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH}),
            udmabuf_pins_folios=True,
            largest_page_array=(1 << 31) - 1,
        ),
        Profile(
            name="6.1",
            memfd_flags=_FLAGS_BEFORE_EXEC,
            seals=_SEALS_BEFORE_EXEC,
            sync_file_requests=frozenset({uapi.SYNC_IOC_MERGE, uapi.SYNC_IOC_FILE_INFO}),
            vfs_requests=frozenset(),
            udmabuf_pins_folios=False,
            largest_page_array=4 << 20,
        ),
    )
}
