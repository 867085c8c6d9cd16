"""The way in: the filter, the notifications that it makes, and how a program is started under it.

Knows Linux and nothing of dma-bufs. Imported by :mod:`dmasync.harness.run` alone.
"""
