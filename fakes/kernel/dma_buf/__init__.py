"""Dma-bufs, their exporters and their fences: what Linux has in ``drivers/dma-buf/``, file by file.

================= ==========================================================================
``dma_buf.py``    a buffer as a file: START, END, names, sync files (``dma-buf.c``)
``udmabuf.py``    ``/dev/udmabuf`` and its buffers (``udmabuf.c``)
``dma_heap.py``   ``/dev/dma_heap/*`` and their buffers (``dma-heap.c``, ``heaps/``)
``dma_fence.py``  fences (``dma-fence.c``, ``dma-fence-array.c``, ``dma-fence-unwrap.c``)
``dma_resv.py``   the fences of one buffer (``dma-resv.c``)
``sync_file.py``  fences as descriptors (``sync_file.c``)
================= ==========================================================================

It imports ``files`` and the kernel's ``parts``; ``nodes`` opens its devices.
"""
