"""Sanitizer: reads a journal and explains what in it would go wrong on a machine without coherent caches.

=============== =======================================================
``check.py``    ``Sanitizer``: collects, analyses, complains
``analysis.py`` one walk through a journal
``leaks.py``    what is open and mapped at its end
``finding.py``  a finding, its kind and what to do about it
``frames.py``   whose a frame of a stack is
=============== =======================================================

It imports ``journal``; tests, the pytest plugin and ``dmasync replay`` ask it.
"""

from dmasync.fakes.sanitizer.check import Sanitizer
from dmasync.fakes.sanitizer.finding import KINDS, Finding, Trace

__all__ = ["KINDS", "Finding", "Sanitizer", "Trace"]
