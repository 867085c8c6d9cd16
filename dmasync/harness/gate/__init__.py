"""``dmasync gate``: judge two runs, two kernels or command lines, or one step of ``git bisect run``."""

from dmasync.harness.gate.command import configure, run

__all__ = ["configure", "run"]
