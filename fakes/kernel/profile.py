"""Where kernels differ: what a release knows and what it does not."""

from __future__ import annotations

from dataclasses import dataclass

from dmasync import uapi

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
    dma_buf_requests: frozenset[int]
    """Requests on a dma-buf that came late: the sync file ones, since 6.0."""
    write_sealed_maps_read_only: bool
    """Whether a memfd with F_SEAL_WRITE can be mapped shared and read-only; since 6.7."""
    wide_size_limit: bool
    """Whether udmabuf multiplies size_limit_mb in 64 bits; 6.1 wraps around at 2048 MiB."""
    strscpy_pads_words: bool
    """Whether a merged sync file's name comes with zeros up to a multiple of 8 bytes; 6.1 used strlcpy()."""

    def page_limit(self, size_limit_mb: int, page_size: int) -> int:
        """Pages that one udmabuf may have, as C computes it from the module's parameter."""
        if self.wide_size_limit:
            return (size_limit_mb * 1024 * 1024 & (1 << 64) - 1) // page_size
        wrapped = size_limit_mb * 1024 * 1024 & 0xFFFF_FFFF
        signed = wrapped - (1 << 32) if wrapped >> 31 else wrapped
        return signed // page_size & (1 << 64) - 1


_SYNC_FILE = frozenset({uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE})

PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="6.12",
            memfd_flags=_FLAGS_BEFORE_EXEC | uapi.MFD_EXEC | uapi.MFD_NOEXEC_SEAL,
            seals=_SEALS_BEFORE_EXEC | uapi.F_SEAL_EXEC,
            sync_file_requests=frozenset({uapi.SYNC_IOC_MERGE, uapi.SYNC_IOC_FILE_INFO, uapi.SYNC_IOC_SET_DEADLINE}),
            dma_buf_requests=_SYNC_FILE,
            write_sealed_maps_read_only=True,
            wide_size_limit=True,
            strscpy_pads_words=True,
        ),
        Profile(
            name="6.1",
            memfd_flags=_FLAGS_BEFORE_EXEC,
            seals=_SEALS_BEFORE_EXEC,
            sync_file_requests=frozenset({uapi.SYNC_IOC_MERGE, uapi.SYNC_IOC_FILE_INFO}),
            dma_buf_requests=_SYNC_FILE,
            write_sealed_maps_read_only=False,
            wide_size_limit=False,
            strscpy_pads_words=False,
        ),
    )
}
