"""``dmasync report``: one self-contained HTML page out of runs."""

from dmasync.harness.report.command import configure, run

__all__ = ["configure", "run"]
