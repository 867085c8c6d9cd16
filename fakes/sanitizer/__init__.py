"""Sanitizer: reads a journal and explains what in it would go wrong on a machine without coherent caches."""

from fakes.sanitizer.check import Sanitizer
from fakes.sanitizer.finding import KINDS, Finding, Trace

__all__ = ["KINDS", "Finding", "Sanitizer", "Trace"]
