"""The tests. What several test modules use lies in ``tests.support``."""
