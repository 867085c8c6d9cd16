"""The suites, one file a question; ``dmasync bench`` runs them. Nothing imports this package.

A row is described in :mod:`dmasync.harness.bench.registry`, what it times is in :mod:`dmasync.harness.bench.timed`.
"""
