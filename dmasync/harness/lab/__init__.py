"""Boards that are reached over ssh or through labgrid: what is carried there, what runs there, what comes back.

bench may import it; it imports the plain modules of the harness alone.
"""
