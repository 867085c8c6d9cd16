"""``dmasync history``: lists, prunes and keeps runs, and takes the run of a night.

Nothing imports it but the command; it imports bench, gate, judge, report and runs.
"""
