"""Fixtures of the library's own tests."""

from signal_storm import open_files, storm

__all__ = ["open_files", "storm"]
