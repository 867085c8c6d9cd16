"""The loops that are timed. They run in a process of their own, which imports dmasync, fakes and this alone."""
