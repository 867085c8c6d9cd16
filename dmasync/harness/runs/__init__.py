"""What a run file is: the facts of a row, reading, writing, and the folder that keeps the runs.

Everything in the harness may import it; it imports the plain modules of the harness alone.
"""
