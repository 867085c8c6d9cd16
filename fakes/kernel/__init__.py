"""The fake kernel: answers as Linux does, errno by errno, on any machine.

====================== ====================================================================
``kernel.py``          the system calls: ``FakeKernel``, a ``dmasync.Backend``
``nodes.py``           which device nodes there are, and who may open them
``files/``             what Linux has in ``fs/`` and ``mm/``
``hugetlb/``           huge pages: their pool, their files, their mappings
``dma_buf/``           what Linux has in ``drivers/dma-buf/``
``profile.py``         where releases differ
``machine.py``         where processors differ
``releases.py``        numbers of releases, and since which of them something is so
``parts.py``           what files and drivers may ask of the kernel
``usermem.py``         copies to and from the program
``short_arguments.py`` arguments behind which nothing is
``waiting.py``         sleep, and who wakes whom
``errors.py``          how it says no
====================== ====================================================================

It imports ``memory`` and nothing above it; ``backend.py`` and devices build on it. ``FakeFence`` is work that a device
has not finished yet. A call that Linux has and the fake lacks raises ``UnmodelledCallError``, which is no ``OSError``.
"""

from dmasync.fakes.kernel.dma_buf.dma_fence import FakeFence
from dmasync.fakes.kernel.errors import BadDescriptorError, UnmodelledCallError
from dmasync.fakes.kernel.kernel import FakeKernel

__all__ = ["BadDescriptorError", "FakeFence", "FakeKernel", "UnmodelledCallError"]
