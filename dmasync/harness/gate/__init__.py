"""``dmasync gate``: gets two sides (files, kernels, commands, a step of a bisection), judges, writes the verdict.

history may import it; it imports bench, judge, report, runs and vm.
"""
