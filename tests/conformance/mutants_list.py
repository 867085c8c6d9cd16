"""The ways in which the fake is broken on purpose."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A change of one place in ``fakes``."""

    name: str
    file: str
    """Its path in ``fakes``."""
    old: str
    new: str
    profile: str | None = None
    """Ask the fake with this profile, which is the one that was changed; None: with its default."""


MUTANTS = (
    Mutant(
        "wrong errno: a memfd that is none is EBADF instead of EBADFD",
        "kernel/dma_buf/udmabuf.py",
        "if not isinstance(memfd, Memfd):\n            raise os_error(errno.EBADFD)",
        "if not isinstance(memfd, Memfd):\n            raise os_error(errno.EBADF)",
    ),
    Mutant(
        "wrong errno: too many items are E2BIG",
        "kernel/dma_buf/udmabuf.py",
        "if count > self.kernel.list_limit & 0xFFFF_FFFF:\n                raise os_error(errno.EINVAL)",
        "if count > self.kernel.list_limit & 0xFFFF_FFFF:\n                raise os_error(errno.E2BIG)",
    ),
    Mutant(
        "wrong errno: a heap calls an unknown number ENOTTY",
        "kernel/dma_buf/dma_heap.py",
        "if request & 0xFF:\n            raise os_error(errno.EINVAL)",
        "if request & 0xFF:\n            raise os_error(errno.ENOTTY)",
    ),
    Mutant(
        "wrong errno: merging with no sync file is EBADF",
        "kernel/dma_buf/sync_file.py",
        "raise os_error(errno.ENOENT)",
        "raise os_error(errno.EBADF)",
    ),
    Mutant(
        "swapped checks: the memfd before the alignment of a later item",
        "kernel/dma_buf/udmabuf.py",
        "        for _, offset, size in items:\n            if offset % page or size % page:",
        "        for fd, offset, size in items:\n            self._sealed_memfd(fd)\n"
        "            if offset % page or size % page:",
    ),
    Mutant(
        "swapped checks: SEAL_SEAL before unknown seals",
        "kernel/files/memfd.py",
        "        if seals & ~(_ALL_SEALS & self.kernel.profile.seals):",
        "        if self.seals & uapi.F_SEAL_SEAL:\n            raise os_error(errno.EPERM)\n"
        "        if seals & ~(_ALL_SEALS & self.kernel.profile.seals):",
    ),
    Mutant(
        "swapped checks: export takes a descriptor before it looks at the flags",
        "kernel/dma_buf/dma_buf.py",
        "        if flags & ~_RW or not flags & _RW:\n            raise os_error(errno.EINVAL)\n"
        "        descriptors = self.kernel.descriptors\n        fd = descriptors.reserve()",
        "        descriptors = self.kernel.descriptors\n        fd = descriptors.reserve()\n"
        "        if flags & ~_RW or not flags & _RW:\n            raise os_error(errno.EINVAL)",
    ),
    Mutant(
        "missing limit: no size limit for a udmabuf",
        "kernel/dma_buf/udmabuf.py",
        "            if pages > limit:\n                raise os_error(errno.EINVAL)\n",
        "",
    ),
    Mutant(
        "limit off by one: as many pages as the limit are too many",
        "kernel/dma_buf/udmabuf.py",
        "if pages > limit:",
        "if pages >= limit:",
    ),
    Mutant(
        "missing limit: names may be longer",
        "kernel/usermem.py",
        '    text = bytes(memoryview(arg).cast("B")[:limit]).partition(b"\\0")[0]\n    if len(text) >= limit:\n'
        "        raise os_error(errno.EINVAL)\n    return text",
        '    return bytes(memoryview(arg).cast("B")[:limit]).partition(b"\\0")[0]',
    ),
    Mutant(
        "missing check: a write-sealed memfd makes a udmabuf",
        "kernel/dma_buf/udmabuf.py",
        "if memfd.seals & _SEALS_WANTED != _SEALS_WANTED or memfd.seals & profile.udmabuf_seals_denied:",
        "if memfd.seals & _SEALS_WANTED != _SEALS_WANTED:",
    ),
    Mutant(
        "missing check: END before START of a udmabuf is taken",
        "kernel/dma_buf/udmabuf.py",
        "        if not self._has_page_table:\n            raise os_error(errno.EINVAL)",
        "        return",
    ),
    Mutant(
        "missing check: the write seal beside a shared mapping",
        "kernel/files/memfd.py",
        "if self._writable_mappings:  # mapping_deny_writable()",
        "if False:",
    ),
    Mutant(
        "missing check: a memfd opened to read is cut",
        "kernel/files/memfd.py",
        "        if not self.writable:\n            raise os_error(errno.EINVAL)\n",
        "",
    ),
    Mutant(
        "wrong errno: a hole in a dma-buf",
        "kernel/files/mapped.py",
        "raise os_error(errno.ENODEV)",
        "raise os_error(errno.EINVAL)",
    ),
    Mutant(
        "missing check: pages of a dma-buf that are not wanted",
        "kernel/files/mapped.py",
        "return advice in _OF_ANONYMOUS_MEMORY or (bool(pages & ~Pages.FIXED) and advice in _OF_PAGES)",
        "return advice in _OF_ANONYMOUS_MEMORY",
    ),
    Mutant(
        "missing check: a dma-buf's mapping is flushed",
        "kernel/files/mapped.py",
        " or (length and is_shared and not self._file.can_sync)",
        "",
    ),
    Mutant(
        "missing check: the write seal while a udmabuf holds pages",
        "kernel/files/memfd.py",
        "if self.pinned_by:  # memfd_wait_for_pins()",
        "if False:",
    ),
    Mutant(
        "lost pages: a udmabuf begins at its memfd's first page",
        "kernel/files/memfd.py",
        "return Run(self.store, offset, size)",
        "return Run(self.store, 0, size)",
    ),
    Mutant(
        "lost page: a mapping of several runs shows the first one twice",
        "memory/pages.py",
        "                done += part\n            begin += run_length",
        "                done += part\n            begin += run_length and skip",
    ),
    Mutant(
        "leak: a duplicate does not count as a reference",
        "kernel/files/descriptors.py",
        "        file.get()\n        if close_on_exec:",
        "        if not file.references:\n            file.get()\n        if close_on_exec:",
    ),
    Mutant(
        "late wake-up: a poll hangs on although its fence has signalled",
        "kernel/dma_buf/dma_buf.py",
        "self._polled[event] = False\n                self._queue.wake_all()\n                self.put()",
        "self.put()",
    ),
    Mutant(
        "missing wait: START does not wait for readers",
        "kernel/dma_buf/dma_resv.py",
        "return Usage.READ if write else Usage.WRITE",
        "return Usage.WRITE",
    ),
    Mutant(
        "stale fence: a later import never takes an earlier one's place",
        "kernel/dma_buf/dma_resv.py",
        "if (old.context == fence.context and old_usage >= usage and is_later) or old.is_signaled():",
        "if old.is_signaled():",
    ),
    Mutant(
        "missing drop: a list of fences that grows keeps what has signalled",
        "kernel/dma_buf/dma_resv.py",
        "self.entries = [entry for entry in self.entries if not entry[0].is_signaled()]",
        "self.entries = list(self.entries)",
    ),
    Mutant(
        "lost state: a node's descriptor is close-on-exec no more after dup",
        "kernel/kernel.py",
        "return self.descriptors.add(self.descriptors.any_file(fd), close_on_exec=True)",
        "return self.descriptors.add(self.descriptors.any_file(fd), close_on_exec=False)",
    ),
    Mutant(
        "wrong size: a heap does not round up to pages",
        "kernel/dma_buf/dma_heap.py",
        "length = (length + page - 1 & _ULONG) // page * page\n",
        "length = length // page * page\n",
    ),
    Mutant(
        "lost answer: a merged file does not get the name that it was given",
        "kernel/dma_buf/sync_file.py",
        'merged(self.fence, other.fence), name.partition(b"\\0")[0])',
        "merged(self.fence, other.fence))",
    ),
    Mutant(
        "wrong order: the descriptor limit before a merge's other errors is asked last",
        "kernel/dma_buf/sync_file.py",
        "        fd = descriptors.reserve()\n        data = copy_from(arg, uapi.sync_merge_data.size)",
        "        data = copy_from(arg, uapi.sync_merge_data.size)\n        fd = descriptors.reserve()",
    ),
    Mutant(
        "lost part: advice about a part splits nothing",
        "kernel/files/vmas.py",
        "parts += [piece for piece in cut if piece.begin < piece.end]",
        "parts.append(part)",
    ),
    Mutant(
        "wrong part: what was mapped by numbers joins as other mappings do",
        "kernel/files/vmas.py",
        "_joined(parts) if self._joins else parts",
        "_joined(parts)",
    ),
    Mutant(
        "wrong part: a dump may have what was mapped by numbers",
        "kernel/files/mapped.py",
        "VmFlags.DONTDUMP if file.mapped_pages() & Pages.NUMBERS else VmFlags.NONE",
        "VmFlags.NONE",
    ),
    Mutant(
        "lost pages: a hole in a memfd is one in its udmabufs, too",
        "kernel/files/memfd.py",
        "            self._leave_to_buffers(begin, end)\n",
        "",
    ),
    Mutant(
        "missing check: pages that have left a memfd count against its write seal",
        "kernel/files/memfd.py",
        "                self.pinned_by.discard(buffer)\n",
        "                pass\n",
    ),
    Mutant(
        "wrong size: the folder of descriptors is sought as one of nodes",
        "kernel/files/proc_fd.py",
        "if not 0 <= position <= _LAST:",
        "if not 0 <= position < 1 << 63:",
    ),
)
