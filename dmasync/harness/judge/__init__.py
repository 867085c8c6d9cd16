"""Compares two sides of runs: which rows match, the verdict of each by its clock, and the words for it.

report, gate and history may import it; it imports runs.
"""
