"""``dmasync model``: fits cost = a + b * bytes to a run and answers what a frame costs.

Nothing imports it but the command; it imports runs.
"""
