"""Looking into another process: its memory, its descriptors, its mappings, where it is, and calls made inside it.

Knows Linux and nothing of dma-bufs. Imported by :mod:`dmasync.harness.run` alone.
"""
