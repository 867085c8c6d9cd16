"""``dmasync history``: the runs that were kept, by host, kernel and date."""

from dmasync.harness.history.command import configure, run

__all__ = ["configure", "run"]
