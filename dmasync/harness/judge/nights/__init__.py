"""A row's nights together, not two sides of a comparison.

history and report import it; it imports nothing of the harness.
"""
