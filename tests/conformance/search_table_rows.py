"""Where in the fake each row of the table in docs/explanation/fidelity.md is answered, as the search's log has it."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """Patterns over a log's names, ``ERRNO file function: question`` or ``operation = outcome``; all must be met."""

    patterns: tuple[str, ...]


class WhyNot(NamedTuple):
    """The search cannot get there."""

    reason: str


def _row(*patterns: str) -> Row:
    return Row(patterns)


_NO_FILE_SYSTEM = WhyNot("needs another user than root; asked of a fake file system by the unit tests")

_DEADLY = WhyNot("whoever touches it is dead, and the search with it: asked by its test, in a child")

_BESIDES = WhyNot("never a finding of the driver's: asked by its test, and by the search among other answers")

ROWS: dict[tuple[str, str], Row | WhyNot] = {
    ("proc_fd_link", ""): _row("^reopen = ENOENT"),
    ("do_open", "`/proc/self/fd/N` with O_CREAT"): _row("EEXIST proc_fd.py open_again"),
    ("do_open", "`/proc/self/fd/N` with O_NOFOLLOW"): _row("ELOOP proc_fd.py _open_link", "ENOTDIR proc_fd.py"),
    ("no_open", ""): _row("ENXIO proc_fd.py open_again"),
    ("do_ftruncate", "a memfd that was opened"): _row("EINVAL memfd.py truncate: if not self.writable"),
    ("handle_truncate", ""): _row("^reopen = EPERM"),
    ("madvise_behavior_valid", ""): _row("EINVAL mapped.py advise: if advice not in known"),
    ("madvise_dontneed_free", ""): _row("EINVAL mapped.py advise: if self._is_refused"),
    ("madvise_vma_behavior", ""): _row("EINVAL mapped.py advise: if self._is_refused"),
    ("madvise_populate", "what the mapping"): _row("EINVAL mapped.py advise: if self._is_refused"),
    ("madvise_remove", ""): _row("EACCES mapped.py _remove", "ENODEV mapped.py _remove"),
    ("shmem_fallocate", ""): _row("EPERM memfd.py punch"),
    ("vfs_fsync_range", ""): _row("EINVAL mapped.py check_flush"),
    ("may_open", "a folder"): _row("EISDIR nodes.py _directory: if flags"),
    ("dcache_dir_lseek", ""): _row("EINVAL file.py seek: if"),
    ("null_lseek", ""): _BESIDES,
    ("do_vfs_ioctl", "FIOQSIZE on a folder"): _BESIDES,
    ("copy_to_user", ""): _BESIDES,
    ("memfd_create", "a flag that is not known"): _row("EINVAL memfd_create.py memfd_create: if flags & ~"),
    ("memfd_create", "MFD_EXEC with"): _row("EINVAL memfd_create.py memfd_create: if flags & uapi.MFD_EXEC"),
    ("memfd_create", "a name longer"): _row("EINVAL memfd_create.py memfd_create: if len"),
    ("memfd_create", "no descriptor left"): _row("EMFILE memfd_create.py memfd_create"),
    ("memfd_create", "MFD_HUGETLB with"): _row("ENODEV hugetlbfs.py"),
    ("memfd_create", "which seals"): _row("^memfd = ok"),
    ("memfd_add_seals", "a file not opened for writing"): _row("EPERM file.py add_seals"),
    ("memfd_add_seals", "a seal that is not known"): _row("EINVAL memfd.py add_seals"),
    ("memfd_add_seals", "no memfd"): _row("EINVAL file.py add_seals"),
    ("memfd_add_seals", "F_SEAL_SEAL is there"): _row("EPERM memfd.py add_seals"),
    ("memfd_add_seals", "F_SEAL_EXEC on an executable"): _row("^add_seals F_SEAL_EXEC = ok"),
    ("mapping_deny_writable", ""): _row("EBUSY memfd.py add_seals: if self._writable_mappings"),
    ("memfd_wait_for_pins", ""): _row("EBUSY memfd.py add_seals: if self.pinned_by"),
    ("memfd_get_seals", "no memfd"): _row("EINVAL file.py get_seals"),
    ("check_write_seal", ""): _row("EPERM memfd.py check_map"),
    ("shmem_setattr", ""): _row("EPERM memfd.py truncate"),
    ("shmem_file_llseek", ""): _row("ENXIO memfd.py _seek_pages"),
    ("generic_file_llseek_size", ""): _row("EINVAL memfd.py seek"),
    ("hugetlbfs_setattr", ""): _row("EINVAL hugetlbfs.py truncate: if length % self.huge_page"),
    ("hugetlbfs_file_mmap", ""): _row("ENOMEM hugetlbfs.py map", "EINVAL hugetlbfs.py map"),
    ("hugetlb_reserve_pages", ""): _BESIDES,
    ("hugetlb_fault", ""): _DEADLY,
    ("hugetlbfs_punch_hole", ""): _row("EPERM hugetlbfs.py punch"),
    ("hugetlb_vm_op_split", ""): _row("EINVAL huge_mapping.py _change"),
    ("hugetlb_vmdelete_list", ""): _BESIDES,
    ("madvise_dontneed_free_valid_vma", ""): _row("EINVAL huge_mapping.py _forget"),
    ("can_madv_lru_vma", ""): _row("EINVAL mapped.py advise: if self._is_refused"),
    ("vma_to_resize", ""): _BESIDES,
    ("default_llseek", ""): _row("ENXIO hugetlbfs.py seek: if offset"),
    ("do_sys_ftruncate", "a negative length"): _row("EINVAL kernel.py ftruncate"),
    ("do_sys_ftruncate", "not open"): _row("EBADF kernel.py ftruncate"),
    ("do_ftruncate", "no regular file"): _row("EINVAL file.py truncate"),
    ("build_open_flags", "O_CREAT with O_DIRECTORY"): _row("EINVAL nodes.py check_flags: if flags & os.O_CREAT"),
    ("getname_flags", ""): _row("ENAMETOOLONG nodes.py"),
    ("path_openat", "no such node"): _row("ENOENT nodes.py", "ENOTDIR nodes.py", "EISDIR nodes.py"),
    ("do_open", "O_CREAT with O_EXCL"): _row("EEXIST nodes.py"),
    ("inode_permission", ""): _NO_FILE_SYSTEM,
    ("do_dentry_open", "O_DIRECT"): _row("EINVAL nodes.py open: if flags & os.O_DIRECT"),
    ("get_unused_fd_flags", ""): _row("EMFILE kernel.py open", "EMFILE kernel.py dup"),
    ("fdget", ""): _row("EBADF kernel.py ioctl", "EBADF kernel.py close", "EBADF file.py ioctl"),
    ("ksys_mmap_pgoff", ""): _row("EINVAL mmap.py check_mmap: if flags & _MAP_HUGETLB"),
    ("do_mmap", "length 0"): _row("EINVAL mmap.py check_mmap: if not length", "EINVAL kernel.py mmap: if offset"),
    ("do_mmap", "longer than the address space"): _row("ENOMEM mmap.py check_mmap"),
    ("do_mmap", "neither shared nor private"): _row("EINVAL mmap.py check_mmap: if kind not in"),
    ("do_mmap", "MAP_SHARED_VALIDATE"): _row("ENOTSUP mmap.py check_mmap"),
    ("do_mmap", "shared and writable without"): _row(
        "EACCES mmap.py check_mmap: if is_shared", "EACCES mmap.py check_mmap: if not file"
    ),
    ("do_mmap", "a file that cannot be mapped"): _row("ENODEV mmap.py check_mmap"),
    ("ioctl_fionbio", ""): _row("EFAULT ioctl.py _fionbio", "EFAULT ioctl.py _fioasync"),
    ("ioctl_fioasync", "turned on"): _row("ENOTTY ioctl.py _fioasync"),
    ("do_vfs_ioctl", "FIOQSIZE"): _row("ENOTTY ioctl.py _fioqsize"),
    ("do_vfs_ioctl", "FIONREAD"): _row("^ioctl FIONREAD = ENOTTY", "^ioctl FIONREAD = EINVAL"),
    ("do_vfs_ioctl", "FIGETBSZ"): _row("EFAULT ioctl.py _figetbsz"),
    ("udmabuf_ioctl", "any other request"): _row("ENOTTY udmabuf.py driver_ioctl"),
    ("udmabuf_ioctl_create", "an argument"): _row("EFAULT udmabuf.py driver_ioctl: data = .*udmabuf_create.size"),
    ("udmabuf_ioctl_create_list", "a head"): _row("EFAULT udmabuf.py driver_ioctl: head"),
    ("udmabuf_ioctl_create_list", "more items than"): _row("EINVAL udmabuf.py driver_ioctl: if count"),
    ("udmabuf_ioctl_create_list", "more bytes"): _row("ENOMEM udmabuf.py driver_ioctl"),
    ("udmabuf_ioctl_create_list", "items that cannot be read"): _row(
        "EFAULT udmabuf.py driver_ioctl: data = .*create_list"
    ),
    ("udmabuf_create", "an offset or a size"): _row("EINVAL udmabuf.py _create: if offset"),
    ("udmabuf_create", "more pages than"): _row("EINVAL udmabuf.py _create: if pages >"),
    ("udmabuf_create", "no pages at all"): _row("EINVAL udmabuf.py _create: if not pages"),
    ("udmabuf_create", "a table of pages"): _row("ENOMEM udmabuf.py _create"),
    ("udmabuf_create", "a memfd that is not open"): _row("EBADFD udmabuf.py _sealed_memfd: if memfd is None"),
    ("check_memfd_seals", "no memfd"): _row("EBADFD udmabuf.py _sealed_memfd: if not isinstance"),
    ("check_memfd_seals", "without F_SEAL_SHRINK"): _row("EINVAL udmabuf.py _sealed_memfd"),
    ("memfd_pin_folios", ""): _row("EINVAL memfd.py check_pin"),
    ("memfd_alloc_folio", ""): _row("ENOMEM hugetlbfs.py _bring_to_pin"),
    ("dma_buf_fd", ""): _row("EMFILE udmabuf.py _create"),
    ("begin_cpu_udmabuf", ""): _row("^ioctl SYNC START = ok"),
    ("end_cpu_udmabuf", ""): _row("EINVAL udmabuf.py end_cpu_access"),
    ("mmap_udmabuf", ""): _row("EINVAL udmabuf.py may_map: if not is_shared.flags.$"),
    ("dma_heap_ioctl", "a request whose number"): _row("EINVAL dma_heap.py driver_ioctl"),
    ("dma_heap_ioctl", "an argument that cannot be read"): _row("EFAULT dma_heap.py driver_ioctl: data"),
    ("dma_heap_ioctl", "an argument that cannot be written"): _row("EFAULT dma_heap.py driver_ioctl: copy_words_to"),
    ("dma_heap_ioctl", "a smaller or larger"): _row("^ioctl ALLOC of another size = ok"),
    ("dma_heap_ioctl_allocate", "fd not 0"): _row("EINVAL dma_heap.py _allocate: if fd$"),
    ("dma_heap_ioctl_allocate", "fd_flags"): _row("EINVAL dma_heap.py _allocate: if fd_flags"),
    ("dma_heap_ioctl_allocate", "any heap flag"): _row("EINVAL dma_heap.py _allocate: if heap_flags"),
    ("dma_heap_ioctl_allocate", "a length of no pages"): _row("EINVAL dma_heap.py _allocate: if not length"),
    ("dma_heap_ioctl_allocate", "no descriptor left"): _row("EMFILE dma_heap.py _allocate_with_number"),
    ("system_heap_dma_buf_end_cpu_access", ""): _row("^ioctl SYNC END = ok"),
    ("system_heap_mmap", ""): _row("EINVAL dma_heap.py may_map: if not is_shared.flags. and"),
    ("cma_heap_mmap", ""): WhyNot("the search asks kernels that have no CMA heap; the conformance suite asks one"),
    ("system_heap_allocate", "no memory"): WhyNot("a real heap that runs dry wakes the out-of-memory killer first"),
    ("dma_buf_ioctl", "any other request"): _row("ENOTTY file.py driver_ioctl"),
    ("dma_buf_ioctl", "SYNC: an argument"): _row("EFAULT dma_buf.py ioctl: step"),
    ("dma_buf_ioctl", "SYNC: a bit"): _row("EINVAL dma_buf.py ioctl: if step"),
    ("dma_buf_begin_cpu_access", ""): _row("EINTR"),
    ("dma_buf_end_cpu_access", ""): _row("^ioctl SYNC END = ok"),
    ("dma_buf_set_name", "a name that cannot"): _row("EFAULT dma_buf.py _set_name"),
    ("dma_buf_set_name", "a name of 32"): _row("EINVAL dma_buf.py _set_name"),
    ("dma_buf_export_sync_file", ""): _row(
        "EFAULT dma_buf.py _export_sync_file: data",
        "EINVAL dma_buf.py _export_sync_file",
        "EMFILE dma_buf.py _export_sync_file",
        "EFAULT dma_buf.py _export_sync_file: copy_to",
    ),
    ("dma_buf_import_sync_file", ""): _row(
        "EFAULT dma_buf.py _import_sync_file",
        "EINVAL dma_buf.py _import_sync_file: if flags",
        "EINVAL dma_buf.py _import_sync_file: if not isinstance",
    ),
    ("dma_buf_llseek", ""): _row("EINVAL dma_buf.py seek: else", "EINVAL dma_buf.py seek: if offset"),
    ("dma_buf_mmap_internal", ""): _row("EINVAL dma_buf.py map"),
    ("dma_buf_poll", ""): _row("^poll = ok"),
    ("dma_resv_wait_timeout", ""): WhyNot("the search has one thread; two are needed"),
    ("dma_resv_reserve_fences", ""): _row("^ioctl IMPORT = ok"),
    ("dma_resv_add_fence", ""): _row("^ioctl IMPORT = ok"),
    ("sync_file_ioctl", ""): _row("ENOTTY sync_file.py driver_ioctl"),
    ("sync_file_ioctl_merge", "no descriptor left"): _row("EMFILE sync_file.py _merge"),
    ("sync_file_ioctl_merge", "an argument"): _row(
        "EFAULT sync_file.py _merge: data", "EFAULT sync_file.py _merge: copy_to"
    ),
    ("sync_file_ioctl_merge", "flags or padding"): _row("EINVAL sync_file.py _merge"),
    ("sync_file_ioctl_merge", "the other one"): _row("ENOENT sync_file.py _merge"),
    ("sync_file_ioctl_fence_info", "an argument or a table"): _row(
        "EFAULT sync_file.py _info: data",
        "EFAULT sync_file.py _info: copy_words_to.pointer",
        "EFAULT sync_file.py _info: copy_to.arg",
    ),
    ("sync_file_ioctl_fence_info", "flags or padding"): _row("EINVAL sync_file.py _info: if flags"),
    ("sync_file_ioctl_fence_info", "less room"): _row("EINVAL sync_file.py _info: if room"),
    ("sync_file_ioctl_set_deadline", ""): _row(
        "EFAULT sync_file.py _set_deadline", "EINVAL sync_file.py _set_deadline"
    ),
    ("dma_fence_set_deadline", ""): _row("^ioctl SET_DEADLINE = ok"),
    ("vfs_llseek", ""): _row("ESPIPE file.py seek", "EINVAL kernel.py lseek"),
    ("sync_file_poll", ""): _row("^poll = ok"),
}
