"""The suites. ``pytest benchmarks`` runs them on what is here; ``dmasync bench`` chooses where."""

pytest_plugins = ["dmasync.harness.bench.plugin"]
