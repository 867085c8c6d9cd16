"""Sanitizer: reads a journal and explains what in it would go wrong on a machine without coherent caches."""

from dmasync.fakes.sanitizer.check import Sanitizer
from dmasync.fakes.sanitizer.finding import KINDS, Finding, Trace

__all__ = ["KINDS", "Finding", "Sanitizer", "Trace"]
