"""Layers: each is a backend around another backend, fake or real.

===================== ==================================================================
``recorder.py``       writes a journal of the calls that pass
``injector.py``       refuses or delays calls
``faults.py``         the plans by which it does, as values
``plan_text.py``      plans as text
``beneath.py``        what lies under a layer, and how it names a buffer
===================== ==================================================================

A layer imports ``journal`` and knows no kernel; ``backend.py`` puts them around one.
"""
