"""A judgement or a list of findings in the formats that labs and their services read.

gate, run and trace may import it; it imports judge and runs.
"""
