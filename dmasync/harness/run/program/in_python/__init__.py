"""The folder that every Python below a run finds first, and imports ``sitecustomize`` from; nothing of dmasync does.

See :mod:`dmasync.harness.run.program.python_stacks`.
"""
