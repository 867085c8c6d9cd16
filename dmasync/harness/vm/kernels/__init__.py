"""Which kernel a virtual machine boots: a path, a build tree, or a packaged one fetched into the cache.

=============== ==========================================================================
``kernel.py``   ``Kernel``: image, release, modules, configuration
``at_path.py``  images, build trees, folders into which packages were unpacked
``packaged.py`` Debian's packages: what is offered, and fetching one release into the cache
``built.py``    a small kernel out of a source tree; ``guest.config`` is its configuration
=============== ==========================================================================

The rest of the harness imports this package, not its modules.
"""

from __future__ import annotations

from pathlib import Path

from dmasync.harness.progress import Progress, SilentProgress
from dmasync.harness.vm import host
from dmasync.harness.vm.kernels.at_path import from_path, index_modules
from dmasync.harness.vm.kernels.built import build
from dmasync.harness.vm.kernels.kernel import ARCHITECTURES, Kernel, KernelError
from dmasync.harness.vm.kernels.packaged import DEBIAN_PREFIX, cached, named, newest, offered

__all__ = [
    "ARCHITECTURES", "Kernel", "KernelError", "build", "cached", "from_path", "index_modules", "offered", "resolve",
]  # fmt: skip


def resolve(
    specification: str | None = None, *, machine: str | None = None, progress: Progress | None = None
) -> Kernel:
    """Return the kernel that *specification* means, fetching it if it is a packaged one.

    *specification* is a path to an image, a build tree or a folder of unpacked kernel packages; ``debian:VERSION``,
    whose version may be a beginning (``debian:6.12`` is the newest of that line, ``debian:6.12-16k`` the newest with
    pages of 16 KiB, ``debian:7.3-rt`` the real-time one); or None for the newest packaged kernel with udmabuf built in.
    *machine* is the guest's architecture (default: the host's). Raises :class:`KernelError`.
    """
    machine = machine or host.host_machine()
    progress = progress or SilentProgress()
    if specification is None:
        return newest(machine, progress)
    if specification.startswith(DEBIAN_PREFIX):
        return named(specification.removeprefix(DEBIAN_PREFIX), machine, progress)
    return from_path(Path(specification), machine)
