"""What surrounds a run, for the command ``dmasync`` alone: virtual machines, benchmarks, verdicts, reports.

A subpackage imports those before it in this list and none behind it: runs, vm, bench, judge, model, report, gate,
history, probe, trace; every one may import the plain modules beside this file.
"""
