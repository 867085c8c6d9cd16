"""The fake kernel: answers as Linux does, errno by errno, on any machine.

``FakeKernel`` is a ``dmasync.Backend``. ``FakeFence`` is work that a device has not finished yet. A call that
Linux has and the fake lacks raises ``UnmodelledCallError``, which is no ``OSError``.
"""

from dmasync.fakes.kernel.errors import BadDescriptorError, UnmodelledCallError
from dmasync.fakes.kernel.fence import FakeFence
from dmasync.fakes.kernel.kernel import FakeKernel
from dmasync.fakes.kernel.memory import BufferMemory, FakeMapping

__all__ = [
    "BadDescriptorError",
    "BufferMemory",
    "FakeFence",
    "FakeKernel",
    "FakeMapping",
    "UnmodelledCallError",
]
