"""Boots a kernel in a virtual machine and runs a command in it: kernels, packages and root folders that it needs.

bench, gate and probe may import it; it imports the plain modules of the harness alone.
"""
