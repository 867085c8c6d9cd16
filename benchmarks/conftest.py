"""The suites. ``pytest benchmarks`` runs them on what is here; ``dmasync bench`` chooses where."""

import sys
from pathlib import Path

# The suites share grid.py, whatever import mode pytest was given.
sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["dmasync.harness.bench_plugin"]
