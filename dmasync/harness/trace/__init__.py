"""``dmasync record`` and ``dmasync replay``: write a trace of a program, and judge one on the fake kernel.

Nothing imports it but the command; it imports :mod:`dmasync.fakes` when it runs, and of the harness what runs
programs.
"""
