"""Fixtures of the tests on a real kernel."""

from tests.support.signal_storm import open_files, storm

__all__ = ["open_files", "storm"]
