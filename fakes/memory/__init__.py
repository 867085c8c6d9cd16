"""A buffer's bytes: one class with two sides, the CPU's and the device's, for each kind of machine.

=================== ==========================================================================
``coherent.py``     what the kernel asks of a buffer's bytes, and the plain machine
``watched.py``      the same with an observer: what the CPU did outside a window
``noncoherent.py``  a machine whose devices do not see the CPU's caches
``adversary.py``    which cache lines move when no one asked for it
``lines.py``        byte ranges and cache lines that differ
``touched.py``      which pages the CPU touched
``pages.py``        pages of the host, and mappings of them
``host.py``         the few system calls that get them
=================== ==========================================================================

It imports ``journal.windows``, for which window an END ends, and nothing else of the fakes; the kernel and devices
build on it.
"""

from dmasync.fakes.memory.coherent import BufferMemory
from dmasync.fakes.memory.pages import FakeMapping

__all__ = ["BufferMemory", "FakeMapping"]
