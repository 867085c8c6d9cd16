"""Runs the suites: where, which rows, in which process, how they are timed; the door is ``run_suite``.

gate, history and the suites (:mod:`dmasync.benchmarks`) may import it; it imports runs and vm.
"""
