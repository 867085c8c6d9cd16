"""The fake kernel: answers as Linux does, errno by errno, on any machine.

``FakeKernel`` is a ``dmasync.Backend``. ``FakeFence`` is work that a device has not finished yet. A call that
Linux has and the fake lacks raises ``UnmodelledCallError``, which is no ``OSError``.
"""

from fakes.kernel.errors import BadDescriptorError, UnmodelledCallError
from fakes.kernel.fence import FakeFence
from fakes.kernel.kernel import FakeKernel
from fakes.kernel.memory import BufferMemory, FakeMapping

__all__ = [
    "BadDescriptorError",
    "BufferMemory",
    "FakeFence",
    "FakeKernel",
    "FakeMapping",
    "UnmodelledCallError",
]
