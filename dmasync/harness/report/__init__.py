"""``dmasync report``: one HTML page of runs with pictures.

gate and history may import it; it imports judge and runs.
"""
