"""``dmasync run``: any program, in any language, on a backend of ours.

Imported by the command alone. :mod:`~dmasync.harness.run.seccomp` is the way in, :mod:`~dmasync.harness.run.program`
looks into the program, :mod:`~dmasync.harness.run.calls` has the answers.
"""

from dmasync.harness.run.command import configure, run

__all__ = ["configure", "run"]
